#!/usr/bin/env bash
# Lays out an installation: install.sh BINARY DIRECTORY [PREFIX]
#
# With PREFIX, where DIRECTORY will be found at run time, sarus.json is filled in from its template.
# What a site may have changed (sarus.json, the passwd and group caches) is never overwritten.
set -euo pipefail

binary=$(realpath "$1")
mkdir -p "$2"
root=$(realpath "$2")
prefix=${3-}
cd "$(dirname "$0")/.."

# Installs $1 as $2 unless the site has one.
install_once() { [ -e "$root/$2" ] || install -m 644 "$1" "$root/$2"; }

install -d -m 755 "$root" "$root"/{bin,etc,etc/templates,etc/container,var,var/OCIBundleDir}
install -m 755 scripts/configure_installation.sh "$root"
install -m 644 etc/sarus.schema.json "$root/etc"
install -m 644 etc/templates/sarus.json "$root/etc/templates"
install_once etc/container/nsswitch.conf etc/container/nsswitch.conf
install_once etc/passwd etc/passwd
install_once etc/group etc/group
if [ -n "$prefix" ]; then
    filled=$(mktemp)
    trap 'rm -f "$filled"' EXIT
    sed -e "s|@INSTALL_PREFIX@|$prefix|g" -e "s|@RUNC_PATH@|/usr/bin/runc|" \
        -e "s|@SQUASHFS_COMPRESSION@|zstd|" etc/templates/sarus.json >"$filled"
    install_once "$filled" etc/sarus.json
fi

# Replaced by rename, so that running containers keep the file that they started from.
install -m 755 "$binary" "$root/bin/.sarusbox.new"
if [ "$(id -u)" = 0 ]; then
    chmod 4755 "$root/bin/.sarusbox.new"
else
    echo "install: not root, so not setuid yet: run configure_installation.sh as root" >&2
fi
mv -f "$root/bin/.sarusbox.new" "$root/bin/sarusbox"
# Relative, so that the tree can be moved. The binary lists what it can be called: "   NAME: ABOUT".
"$binary" | sed -n 's/^   \([a-z_]*\): .*/\1/p' | while read -r applet; do
    ln -sfn sarusbox "$root/bin/$applet"
done
