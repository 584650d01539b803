#!/usr/bin/env python3
"""Acceptance: clapd as a real Home Assistant sees it, with a real broker and the bundled recording.

    tools/ha/accept.py --root CHROOT --clapd BINARY [--shot FILE.png]

Every step prints what it found; the first that fails ends it with status 1.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from home_assistant import HERE, HomeAssistant, wait_for

REPOSITORY = HERE.parent.parent
RECORDING = REPOSITORY / "tests/audio/demo.ogg"
# By the time at which they are heard in the recording: 2.5, 7.6 and 25.5 s after its start.
ROOSTER, DOG, BELL = ("rooster", "a rooster crowing"), ("dog", "a dog barking"), ("bell", "a doorbell ringing")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Broker:
    def __init__(self, folder):
        self.port, self.folder, self.process = free_port(), folder, None
        self.config = folder / "mosquitto.conf"
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\n"
        )

    def start(self):
        self.process = subprocess.Popen(["mosquitto", "-c", self.config], stderr=subprocess.DEVNULL)
        wait_for("the broker listens", lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) == 0, 20)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


class Clapd:
    def __init__(self, binary, folder, node):
        self.binary, self.node, self.process = binary, node, None
        self.folder = folder / node
        self.folder.mkdir()
        self.config = self.folder / "clapd.toml"
        self.log = self.folder / "log"

    def write(self, port, prompts, sources=("mic",)):
        text = f'[node]\nid = "{self.node}"\n[scoring]\nhop_s = 0.5\n'
        for source in sources:
            text += f'[[source]]\nid = "{source}"\nfile = "{RECORDING}"\nloop = true\nrealtime = true\n'
        for name, words in prompts:
            text += f'[[prompt]]\nid = "{name}"\ntext = "{words}"\n'
        text += f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n[outbox]\ndir = "{self.folder}/outbox"\n'
        self.config.write_text(text)

    def start(self):
        environment = os.environ | {"XDG_CACHE_HOME": str(self.folder.parent / "cache"), "RUST_LOG": "info"}
        command = [self.binary, "run", "--config", self.config]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log.open("a"), stderr=subprocess.STDOUT)

    def end(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def restart(self):
        self.end()
        self.start()


class Acceptance:
    def __init__(self, arguments, folder):
        self.shot = arguments.shot
        self.broker = Broker(folder)
        self.home_assistant = HomeAssistant(arguments.root, free_port(), self.broker.port)
        self.kitchen = Clapd(arguments.clapd, folder, "kitchen")
        self.porch = Clapd(arguments.clapd, folder, "porch")

    def close(self):
        for ending in (self.kitchen.end, self.porch.end, self.home_assistant.stop, self.broker.stop):
            ending()

    def expect(self, entity, state, seconds=30):
        """Waits for a state: a text, or what a function of it and its attributes finds right."""
        right = state if callable(state) else lambda seen, _: seen == state
        seen = None, {}

        def look():
            nonlocal seen
            seen = self.home_assistant.state(entity)
            return right(*seen)

        try:
            wait_for("", look, seconds)
        except AssertionError:
            raise AssertionError(f"{entity} is {seen} after {seconds} s, and not {getattr(state, '__name__', state)}")
        return seen

    def say(self, topic, payload):
        topic = f"clapd/{self.kitchen.node}/{topic}"
        subprocess.run(["mosquitto_pub", "-p", str(self.broker.port), "-t", topic, "-m", payload], check=True)

    def available(self, prompt, source="kitchen_mic"):
        self.expect(f"sensor.{source}_{prompt}_score", a_score)
        self.expect(f"binary_sensor.{source}_{prompt}", on_or_off)

    def unavailable(self, prompt, source="kitchen_mic", seconds=30):
        for entity in (f"sensor.{source}_{prompt}_score", f"binary_sensor.{source}_{prompt}", f"event.{source}_{prompt}"):
            self.expect(entity, "unavailable", seconds)

    def wait_until_removed(self, prompt, source="kitchen_mic", seconds=30):
        for entity in (f"sensor.{source}_{prompt}_score", f"binary_sensor.{source}_{prompt}", f"event.{source}_{prompt}"):
            self.expect(entity, None, seconds)

    def hears(self, prompt, seconds=150):
        """A whole event: ON, started, then OFF, ended, with one id."""
        binary, event = f"binary_sensor.kitchen_mic_{prompt}", f"event.kitchen_mic_{prompt}"
        self.expect(binary, "on", seconds)
        started = self.expect(event, is_type("started"), 5)[1]
        score = self.home_assistant.state(f"sensor.kitchen_mic_{prompt}_score")[0]
        self.expect(binary, "off", 30)
        ended = self.expect(event, is_type("ended"), 5)[1]
        assert started["id"] == ended["id"] and ended["duration_s"] >= 0, (started, ended)
        assert score not in ("unknown", "unavailable"), score
        say(f"{prompt}: on (score {score}), off after {ended['duration_s']} s, peak {ended['peak']}")

    # The steps, in their order.

    def entities_have_names_and_states(self):
        self.kitchen.write(self.broker.port, [ROOSTER, DOG])
        self.kitchen.start()
        self.hears("dog")
        names = {entity: state["attributes"]["friendly_name"] for entity, state in self.home_assistant.entities().items()}
        assert names == {
            "binary_sensor.kitchen_mic_dog": "Kitchen mic Dog barking",
            "binary_sensor.kitchen_mic_rooster": "Kitchen mic Rooster crowing",
            "event.kitchen_mic_dog": "Kitchen mic Dog barking event",
            "event.kitchen_mic_rooster": "Kitchen mic Rooster crowing event",
            "sensor.kitchen_mic_events_dropped": "Kitchen mic Events dropped",
            "sensor.kitchen_mic_dog_score": "Kitchen mic Dog barking score",
            "sensor.kitchen_mic_rooster_score": "Kitchen mic Rooster crowing score",
            "sensor.kitchen_mic_status": "Kitchen mic Status",
            "sensor.kitchen_mic_windows_skipped": "Kitchen mic Windows skipped",
        }, names
        self.expect("sensor.kitchen_mic_status", "live")
        attributes = self.home_assistant.state("sensor.kitchen_mic_dog_score")[1]
        assert attributes["state_class"] == "measurement", attributes
        assert self.home_assistant.state("binary_sensor.kitchen_mic_dog")[1]["device_class"] == "sound"
        device = self.home_assistant.device("sensor.kitchen_mic_status")
        say(json.dumps(device))
        assert (device["name"], device["manufacturer"]) == ("Kitchen mic", "clapd"), device
        if self.shot:
            page = f"/config/devices/device/{device['id']}"
            subprocess.run([HERE / "shot.sh", self.home_assistant.root, self.home_assistant.base, self.home_assistant.token, page, self.shot], check=True)
            say(f"{self.shot}: {os.path.getsize(self.shot)} bytes")

    def a_broker_that_restarts(self):
        self.broker.stop()
        self.unavailable("dog")
        time.sleep(2)
        self.broker.start()
        self.available("dog")
        self.hears("dog")

    def a_daemon_that_is_killed(self):
        self.kitchen.end(signal.SIGKILL)
        self.unavailable("dog")
        self.expect("sensor.kitchen_mic_status", "unavailable")
        self.kitchen.start()
        self.available("dog")
        self.hears("dog")

    def a_daemon_that_stops(self):
        self.kitchen.end()
        self.unavailable("dog")
        self.kitchen.start()
        self.available("dog")

    def prompts_come_and_go(self):
        self.kitchen.write(self.broker.port, [DOG, BELL])
        self.kitchen.process.send_signal(signal.SIGHUP)
        self.available("bell")
        self.wait_until_removed("rooster")
        self.available("dog")

    def a_source_that_pauses(self):
        self.say("request/pause", "{}")
        self.expect("sensor.kitchen_mic_status", "paused")
        self.unavailable("dog")
        self.say("request/resume", "{}")
        self.expect("sensor.kitchen_mic_status", "live")
        self.available("dog")

    def a_prompt_that_goes_while_nobody_looks(self):
        self.home_assistant.stop()
        self.kitchen.write(self.broker.port, [DOG])
        self.kitchen.restart()
        time.sleep(5)
        self.home_assistant.start()
        self.wait_until_removed("bell", seconds=60)
        self.available("dog")

    def sources_come_and_go(self):
        self.kitchen.write(self.broker.port, [DOG], ["mic", "yard"])
        self.kitchen.restart()
        self.available("dog", "kitchen_yard")
        names = {self.home_assistant.device(f"binary_sensor.kitchen_{source}_dog")["name"] for source in ("mic", "yard")}
        assert names == {"Kitchen mic", "Kitchen yard"}, names
        self.kitchen.write(self.broker.port, [DOG])
        self.kitchen.restart()
        self.wait_until_removed("dog", "kitchen_yard")
        self.expect("sensor.kitchen_yard_status", None)
        self.available("dog")

    def an_event_of_before_reaches_a_new_device(self):
        """A second node, which Home Assistant has never seen, and whose event waited for the broker."""
        self.porch.write(free_port(), [ROOSTER])
        self.porch.start()
        wait_for("an event", lambda: "rooster crowing\" ended" in self.porch.log.read_text(), 60)
        self.porch.end()
        self.porch.write(self.broker.port, [ROOSTER])
        self.porch.start()
        wait_for("a connection", lambda: "connected to" in self.porch.log.read_text(), 30)
        # Sooner than the recording has its next.
        first = self.expect("event.porch_mic_rooster", is_type("ended"), 3)[1]
        say(f"{first['id']} of {first['started_at']}")
        self.available("rooster", "porch_mic")
        self.porch.end()
        self.unavailable("rooster", "porch_mic")
        self.available("dog")

    def nothing_to_complain_of(self):
        complaints = self.home_assistant.complaints()
        assert not complaints, "\n".join(complaints)

    STEPS = [
        entities_have_names_and_states,
        a_broker_that_restarts,
        a_daemon_that_is_killed,
        a_daemon_that_stops,
        prompts_come_and_go,
        a_source_that_pauses,
        a_prompt_that_goes_while_nobody_looks,
        sources_come_and_go,
        an_event_of_before_reaches_a_new_device,
        nothing_to_complain_of,
    ]

    def run(self):
        self.broker.start()
        self.home_assistant.reset()
        self.home_assistant.start()
        for step in self.STEPS:
            print(step.__name__.replace("_", " "), flush=True)
            began = time.monotonic()
            step(self)
            say(f"ok, {time.monotonic() - began:.0f} s")


def say(text):
    print(f"    {text}", flush=True)


def a_score(state, _):
    try:
        return 0 <= float(state) <= 10
    except (TypeError, ValueError):
        return False


def on_or_off(state, _):
    return state in ("on", "off")


def is_type(kind):
    def is_that(_, attributes):
        return attributes.get("event_type") == kind

    is_that.__name__ = kind
    return is_that


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="the chroot that setup.sh has made")
    parser.add_argument("--clapd", required=True, type=Path)
    parser.add_argument("--shot", help="saves the device's page here (wants chromium)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="clapd-ha-"))
    acceptance = Acceptance(arguments, folder)
    try:
        acceptance.run()
        shutil.rmtree(folder)
    except AssertionError as error:
        print(f"FAILED: {error}\nlogs: {folder}, {acceptance.home_assistant.log}", file=sys.stderr)
        for line in acceptance.home_assistant.complaints()[-10:]:
            print(line[:600], file=sys.stderr)
        sys.exit(1)
    finally:
        acceptance.close()


if __name__ == "__main__":
    main()
