"""Runs claptune and clapd as a user would: what they print, with time and memory."""
import json
import os
import subprocess
import tempfile
import time
from typing import NamedTuple


class Run(NamedTuple):
    status: int
    out: str
    errors: str
    seconds: float
    rss_mb: float


def run(command, cache, limit_s=3600):
    """Runs to the end; `cache` keeps the run from reading or leaving anything in the user's."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        begun = time.monotonic()
        child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=errors,
                                 stdin=subprocess.DEVNULL, env=environment)
        peak = 0
        while child.poll() is None:
            # Not getrusage: what it says of a child counts this process's memory before the program was loaded.
            peak = max(peak, peak_kib(child.pid))
            if time.monotonic() - begun > limit_s:
                child.kill()
                child.wait()
                raise TimeoutError(f"{command[0]} took more than {limit_s} s")
            time.sleep(0.01)
        seconds = time.monotonic() - begun
        out.seek(0)
        errors.seek(0)
        return Run(child.returncode, out.read(), errors.read(), seconds, peak / 1024)


def peak_kib(pid):
    """The most that a process has had resident so far; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


class Failed(Exception):
    """A run that had to succeed did not."""


def checked(command, cache):
    """A run that must succeed."""
    result = run(command, cache)
    if result.status != 0:
        shown = " ".join(str(word) for word in command)[:200]
        raise Failed(f"{shown}: exit {result.status}\n{result.errors[-3000:]}")
    return result


def lines(command, cache):
    """What a run printed, a JSON object a line."""
    return [json.loads(line) for line in checked(command, cache).out.splitlines()]
