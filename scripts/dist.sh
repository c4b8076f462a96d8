#!/usr/bin/env bash
# Packs a relocatable installation: dist.sh BINARY VERSION DIRECTORY
#
# The same files give the same archive, byte for byte, at any time on any machine.
set -euo pipefail
umask 022

binary=$1
name=sarus-$2-$(uname -m)
mkdir -p "$3"
dist=$(realpath "$3")
work=$(mktemp -d "$dist/.dist.XXXXXX")
trap 'rm -rf "$work"' EXIT

# configure_installation.sh does the steps that depend on the machine, setuid bit included. It also
# writes users and groups, which are not packed, so a new version over an old one leaves them unchanged.
"$(dirname "$0")/install.sh" "$binary" "$work/$name" 2>/dev/null
chmod u-s "$work/$name/bin/sarusbox"
rm "$work/$name"/etc/{passwd,group}
(cd "$work/$name" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum) >"$work/sums"
install -m 644 "$work/sums" "$work/$name/SHA256SUMS"

tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --format=gnu --directory "$work" "$name" | gzip -9n >"$work/archive"
mv "$work/archive" "$dist/$name.tar.gz"
(cd "$dist" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$dist/$name.tar.gz"
