#!/usr/bin/env bash
# Packs an installation that runs anywhere below: dist.sh BINARY VERSION DIRECTORY
#
# The archive is the same, byte for byte, whenever and wherever it is packed from the same files.
set -euo pipefail
umask 022

binary=$1
name=sarus-$2-$(uname -m)
mkdir -p "$3"
dist=$(realpath "$3")
work=$(mktemp -d "$dist/.dist.XXXXXX")
trap 'rm -rf "$work"' EXIT

# What depends on the machine, setuid bit included, is for configure_installation.sh to do there. Users
# and groups are made by it, so unpacking a new version over an old one leaves them alone.
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
