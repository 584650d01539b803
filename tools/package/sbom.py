"""Writes what clapd's program is made of as CycloneDX 1.5: crates with versions, licences and checksums, and the model's sources.

    python3 tools/package/sbom.py TARGET >clapd.cdx.json

TARGET is a Rust target triple. Cargo.lock has the checksums, and `cargo tree` the crates that are linked into `clapd` for that target.
The same commit gives the same bytes: the serial number is made of the commit, and the time is that of the commit.

Why not cargo-cyclonedx 0.5.9: it asks `cargo metadata`, which joins the features of the whole workspace and follows dependencies that
only a feature of claptune's or a test's turns on. The graph that it follows has 256 crates for clapd, where 200 are linked in: zlib-rs, tungstenite and
borsh among those that are in no build of clapd, and procedural macros, which it can't leave out. It also writes a file beside each
member's Cargo.toml, with the path of the working tree in it.
"""

import json
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def crates(target):
    """Names, versions and licences of the crates that are linked in, clapd's own first."""
    lines = run("cargo", "tree", "--locked", "-p", "clapd", "--edges", "normal,no-proc-macro", "--prefix", "none", "--target", target,
                "--format", "{p}|{l}").splitlines()
    found = {}
    for line in lines:
        # "name v1.2.3|licence", with the path between them for a crate of the workspace.
        package, licence = line.removesuffix(" (*)").split("|")
        name, version = package.split(" ")[:2]
        found[name, version.removeprefix("v")] = licence
    return found


def component(name, version, licence, checksum):
    """A crate as CycloneDX has it; the crates of the workspace have no checksum."""
    made = {"type": "library", "bom-ref": f"pkg:cargo/{name}@{version}", "name": name, "version": version,
            "purl": f"pkg:cargo/{name}@{version}", "licenses": [{"expression": licence.replace("/", " OR ")}]}
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


def model():
    """The packages that the default model's weights came from, as the table in its card has them."""
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+?) \| `([0-9a-f]{64})` \|$", (ROOT / "models/mini/README.md").read_text(), re.M)
    if not rows:
        raise SystemExit("models/mini/README.md names no sources")
    return [{"type": "machine-learning-model", "bom-ref": f"pkg:pypi/{name}@{version}", "name": name, "version": version,
             "purl": f"pkg:pypi/{name}@{version}", "licenses": [{"expression": licence}],
             "hashes": [{"alg": "SHA-256", "content": checksum}]} for name, version, licence, checksum in rows]


def main():
    target = sys.argv[1]
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    (own, own_licence), *others = crates(target).items()
    missing = [name for (name, _), licence in others if not licence]
    if missing:
        raise SystemExit(f"no licence is stated by {', '.join(missing)}")
    commit = run("git", "log", "-1", "--format=%H %ct").split()
    time = datetime.fromtimestamp(int(commit[1]), timezone.utc).isoformat().replace("+00:00", "Z")
    json.dump({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'clapd {target} {commit[0]}')}",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": component(*own, own_licence, None) | {"type": "application", "description": f"clapd for {target}"},
        },
        "components": [component(*crate, licence, checksums.get(crate)) for crate, licence in sorted(others)] + model(),
    }, sys.stdout, indent=1)
    print()


main()
