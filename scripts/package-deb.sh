#!/usr/bin/env bash
# Makes a Debian package: package-deb.sh BINARY VERSION DIRECTORY
set -euo pipefail
umask 022

version=$2
mkdir -p "$3"
dist=$(realpath "$3")
architecture=$(dpkg --print-architecture)
work=$(mktemp -d "$dist/.deb.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
scripts=$(dirname "$0")

"$scripts/stage-package.sh" "$1" "$root"
# Debian has another directory for completions of zsh.
mkdir -p "$root/usr/share/zsh/vendor-completions"
mv "$root/usr/share/zsh/site-functions/_sarus" "$root/usr/share/zsh/vendor-completions"
rmdir "$root/usr/share/zsh/site-functions"
mv "$root/usr/share/doc/sarus/LICENSE" "$root/usr/share/doc/sarus/copyright"

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<END
Package: sarus
Version: $version
Architecture: $architecture
Section: admin
Priority: optional
Maintainer: The Sarus developers <sarus@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: runc | crun
Description: OCI container engine for HPC systems
 Runs images of containers on the nodes of an HPC system, as the user who calls
 it, with the MPI and the devices of the host. One static setuid program, and
 an OCI runtime.
END
echo /opt/sarus/etc/container/nsswitch.conf >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
[ "$1" != configure ] || /opt/sarus/configure_installation.sh --keep >/dev/null
END
cat >"$root/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
case $1 in
remove) rm -f /opt/sarus/etc/passwd /opt/sarus/etc/group ;;
purge) rm -f /opt/sarus/etc/sarus.json /opt/sarus/etc/sarus.json.bak ;;
esac
# Removes empty directories; images of users stay.
rmdir /opt/sarus/etc/container /opt/sarus/etc /opt/sarus/var/OCIBundleDir /opt/sarus/var \
    /opt/sarus 2>/dev/null || true
END
chmod 755 "$root"/DEBIAN/post*
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --build "$root" "$dist/sarus_${version}_$architecture.deb" >/dev/null
echo "$dist/sarus_${version}_$architecture.deb"
