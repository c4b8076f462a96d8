#!/usr/bin/env bash
# Unpacks packages of a Debian release with their dependencies as a root file system, without
# running package scripts: debian-rootfs.sh DIRECTORY RELEASE PACKAGE...
#
# Example: debian-rootfs.sh rootfs bullseye busybox-static libmpich12
set -euo pipefail

root=$1
release=$2
shift 2
work=$(mktemp -d "${TMPDIR:-/tmp}/debian-rootfs.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Configuration of a separate apt: lists and packages of the machine stay as they are.
mkdir -p "$work"/{lists/partial,archives/partial}
touch "$work/status"
# Mirror of the machine's own packages.
# shellcheck disable=SC2016 # apt-get expands it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' |
    awk '!/security/ && !found { print; found = 1 }')
if [ -z "$mirror" ]; then
    echo "${0##*/}: this machine has no lists of packages: run apt-get update first" >&2
    exit 1
fi
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" \
    >"$work/sources.list"
options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status"
    -o "Dir::Cache=$work" -o "Dir::Cache::Archives=$work/archives" -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Debug::NoLocking=true)
if ! {
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install --yes --download-only --no-install-recommends "$@"
} >"$work/log" 2>&1; then
    cat "$work/log" >&2
    exit 1
fi
mkdir -p "$root"
for package in "$work"/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
mkdir -p "$root"/{dev,etc,home,proc,root,sys,tmp,var}
chmod 1777 "$root/tmp"
ldconfig -r "$root"
