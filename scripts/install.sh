#!/usr/bin/env bash
# Lays out an installation: install.sh BINARY DIRECTORY [PREFIX]
#
# With PREFIX, where DIRECTORY will be found at run time, sarus.json is filled in from its template.
# OPENSSH, if set, is the directory of build-openssh.sh, which is installed as DIRECTORY/openssh.
# Files that a site may have changed (sarus.json, the passwd and group caches) are never overwritten.
set -euo pipefail
umask 022

binary=$(realpath "$1")
mkdir -p "$2"
root=$(realpath "$2")
prefix=${3-}
[ -z "${OPENSSH-}" ] || openssh=$(realpath "$OPENSSH")
cd "$(dirname "$0")/.."

# Installs $1 as $2 unless the site has one.
install_once() { [ -e "$root/$2" ] || install -m 644 "$1" "$root/$2"; }

# Replaces the file $2 by $1 in one step; processes that have the old file open, such as running
# containers, keep it.
replace() {
    install -m "$3" "$1" "$2.new"
    mv -f "$2.new" "$2"
}

install -d -m 755 "$root" "$root"/{bin,etc,etc/templates,etc/container,var,var/OCIBundleDir}
replace scripts/configure_installation.sh "$root/configure_installation.sh" 755
replace etc/sarus.schema.json "$root/etc/sarus.schema.json" 644
for name in sarus.json passwd group; do
    replace "etc/templates/$name" "$root/etc/templates/$name" 644
done
install_once etc/container/nsswitch.conf etc/container/nsswitch.conf
install_once etc/templates/passwd etc/passwd
install_once etc/templates/group etc/group
if [ -n "$prefix" ]; then
    filled=$(mktemp)
    trap 'rm -f "$filled"' EXIT
    sed -e "s|@INSTALL_PREFIX@|$prefix|g" -e "s|@RUNC_PATH@|/usr/bin/runc|" \
        -e "s|@SQUASHFS_COMPRESSION@|zstd|" etc/templates/sarus.json >"$filled"
    install_once "$filled" etc/sarus.json
fi

# Manual pages and completions, if `make` has made them.
share=$(dirname "$binary")/share
if [ -d "$share" ]; then
    install -d -m 755 "$root/share"
    cp -r "$share/." "$root/share"
fi

if [ -n "${OPENSSH-}" ]; then
    install -d -m 755 "$root"/openssh/{,etc,etc/userkeys,var,var/empty}
    for folder in bin sbin libexec; do
        [ ! -d "$openssh/$folder" ] ||
            install -D -m 755 -t "$root/openssh/$folder" "$openssh/$folder"/*
    done
    install -m 644 etc/openssh/* "$root/openssh/etc"
    # Since 9.8 a failed login blocks all other users of its address; older releases lack the option.
    [ ! -e "$openssh/libexec/sshd-session" ] ||
        echo "PerSourcePenalties no" >>"$root/openssh/etc/sshd_config"
    install -m 644 "$openssh/SOURCE" "$openssh/LICENCE" "$root/openssh"
fi

mode=4755
if [ "$(id -u)" != 0 ]; then
    mode=755
    echo "install: not root, so not setuid yet: run configure_installation.sh as root" >&2
fi
replace "$binary" "$root/bin/sarusbox" "$mode"
# Links are relative, so that the tree can be moved. The binary lists its names: "   NAME: ABOUT".
"$binary" | sed -n 's/^   \([a-z_]*\): .*/\1/p' | while read -r applet; do
    # A correct link stays, so it is never missing.
    [ "$(readlink "$root/bin/$applet")" = sarusbox ] || ln -sfn sarusbox "$root/bin/$applet"
done
