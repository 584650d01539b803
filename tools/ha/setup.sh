#!/usr/bin/env bash
# Makes, or completes, a chroot with a recent Home Assistant: root, a Debian host, the network; some three minutes and 1 GB.
#   tools/ha/setup.sh ROOT
# Home Assistant wants a newer Python than most hosts have, and pins two hundred packages; so it gets a Debian of its own, from
# the mirror that apt uses here. Another pair: HA_SUITE=forky HA_VERSION=2026.11.0 (Python 3.14).
set -euo pipefail
root="${1:?a folder}"
version="${HA_VERSION:-2026.2.3}" suite="${HA_SUITE:-trixie}"
here="$(cd "$(dirname "$0")" && pwd)"
[ -e "$root/.done-$version" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "a chroot needs root: sudo make ha" >&2; exit 1; }
"$here/../apt-install" debootstrap:debootstrap
mkdir -p "$(dirname "$root")"
log="$root.log"
echo "Setting Home Assistant $version up in $root (log: $log)"

if [ ! -e "$root/.base" ]; then
    mirror=$("$here/../debian-mirror")
    rm -rf --one-file-system "$root"
    script=""; [ -e "/usr/share/debootstrap/scripts/$suite" ] || script=sid
    # lru-dict is the one pinned package that comes as source for this Python; Debian has it built.
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,python3-lru-dict \
        "$suite" "$root" "$mirror" $script >"$log" 2>&1
    touch "$root/.base"
fi
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
if [ -e /etc/pip.conf ]; then cp /etc/pip.conf "$root/etc/"; fi

python() { "$here/enter.sh" "$root" /ha/bin/python "$@"; }
install() { python -m pip install --no-cache-dir --prefer-binary "$@" </dev/null; }
{
    "$here/enter.sh" "$root" python3 -m venv --system-site-packages /ha
    install --no-deps --no-compile "homeassistant==$version"
    pinned=$(python -c 'import homeassistant as h; print(h.__path__[0] + "/package_constraints.txt")')
    install -c "$pinned" "homeassistant==$version" paho-mqtt home-assistant-frontend
    # What the integrations want that always start. Two of voice need a compiler, and are left out.
    python - <<'WANTED' >"$root/wanted.txt"
import json
import os

import homeassistant.bootstrap as bootstrap

base = os.path.join(os.path.dirname(bootstrap.__file__), "components")
seen, wanted = set(), {"numpy"}
todo = {*bootstrap.CORE_INTEGRATIONS, *bootstrap.DEFAULT_INTEGRATIONS, "mqtt", "api", "sensor", "binary_sensor", "event", "hassio"}
while todo:
    name = todo.pop()
    seen.add(name)
    manifest = f"{base}/{name}/manifest.json"
    if os.path.exists(manifest):
        read = json.load(open(manifest))
        wanted |= set(read.get("requirements", []))
        todo |= set(read.get("dependencies", [])) - seen
print("\n".join(sorted(wanted)))
WANTED
    while read -r package; do install -c "$pinned" "$package" || echo "left out: $package"; done <"$root/wanted.txt"
} >>"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
rm -f "$root"/.done-*
touch "$root/.done-$version"
