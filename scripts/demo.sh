#!/usr/bin/env bash
# Demonstrates the engine on a fresh Debian machine, as root: builds it, installs it into a separate
# prefix, makes a small image, and imports and runs it as an ordinary user.
#
# DEMO_PREFIX (/opt/sarus-demo) is the prefix. It stays until the next demo.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${DEMO_PREFIX:-/opt/sarus-demo}
user=demo
uid=20001
home=$prefix/home/$user

say() { printf '\n# %s\n' "$*"; }

# Prints a command as the user would type it, then runs it as that user, who has no
# privilege and no account on this machine, only an entry in the passwd file of the prefix.
as_user() {
    printf '$ %s\n' "$*"
    (cd "$home" && setpriv --reuid=$uid --regid=$uid --clear-groups -- \
        env -i HOME="$home" USER=$user PATH="$prefix/bin:/usr/bin:/bin" "$@")
}

if [ "$(id -u)" != 0 ]; then
    echo "demo: the engine is installed setuid root, so this needs root: sudo make demo" >&2
    exit 1
fi
if [ -e "$prefix" ] && [ ! -e "$prefix/.made-by-demo" ]; then
    echo "demo: $prefix is in use: set DEMO_PREFIX to another path" >&2
    exit 1
fi
rm -rf "$prefix"

say "Build one static binary"
scripts/install-dependencies.sh demo
make --no-print-directory all
ls -sh "${CARGO_TARGET_DIR:-target}/sarusbox"

say "Install and configure it below $prefix"
make --no-print-directory install ENABLE_SSH=0 PREFIX="$prefix"
"$prefix/configure_installation.sh"
touch "$prefix/.made-by-demo"
mkdir -p "$home"
chown $uid:$uid "$home"
echo "$user:x:$uid:$uid::$home:/bin/sh" >>"$prefix/etc/passwd"
echo "$user:x:$uid:" >>"$prefix/etc/group"
sed -i "s|\(\"localRepositoryBaseDir\": \)\"[^\"]*\"|\1\"$prefix/home\"|" "$prefix/etc/sarus.json"

say "Make an image of Debian's busybox with umoci and skopeo"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scripts/busybox-rootfs.sh "$work/rootfs"
scripts/make-image.sh "docker-archive:$home/busybox.tar:busybox:latest" "$work/rootfs" -- --config.cmd=sh
ls -sh "$home/busybox.tar"

say "Import it and run it, as user $uid without any privilege"
as_user sarus load busybox.tar busybox
as_user sarus images
as_user sarus run load/library/busybox cat /etc/os-release
as_user sarus run load/library/busybox id
as_user sarus run load/library/busybox grep -e Cap -e NoNewPrivs /proc/self/status

say "Look around with PATH=$prefix/bin:\$PATH; remove it all with: rm -r $prefix"
