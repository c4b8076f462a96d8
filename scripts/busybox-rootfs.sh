#!/usr/bin/env bash
# Makes the root file system of a small image from Debian's busybox-static:
# busybox-rootfs.sh DIRECTORY
set -euo pipefail

root=$1
busybox=$(command -v busybox)
mkdir -p "$root"/{bin,dev,etc,home,proc,root,sys,usr/bin,var}
mkdir -p "$root/tmp" && chmod 1777 "$root/tmp"
install -m 755 "$busybox" "$root/bin/busybox"
# Its own shell makes some three hundred links without starting as many programs.
# shellcheck disable=SC2016 # that shell expands it
"$busybox" sh -c 'cd "$1" && for name in $(./busybox --list); do
    [ "$name" = busybox ] || ln -sf busybox "$name"
done' sh "$root/bin"
cp -L /etc/os-release "$root/etc/os-release"
echo "root:x:0:0:root:/root:/bin/sh" >"$root/etc/passwd"
echo "root:x:0:" >"$root/etc/group"
