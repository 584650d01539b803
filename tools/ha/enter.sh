#!/usr/bin/env bash
# Runs a command in the chroot: tools/ha/enter.sh ROOT COMMAND...
# In a mount namespace of its own, so that nothing stays mounted; the network is the host's.
set -euo pipefail
# shellcheck disable=SC2016 # expanded by the inner shell
exec unshare --mount bash -c '
    mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && mount --bind /sys "$0/sys"
    exec chroot "$0" env -u PIP_FIND_LINKS HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' "$@"
