#!/usr/bin/env bash
# Lays out what packages install: stage-package.sh BINARY DIRECTORY
#
# The program goes to /opt/sarus, as everywhere, and is found as /usr/bin/sarus; manual pages and
# completions go where the system has them. The package's script does the rest on the machine.
set -euo pipefail
umask 022

root=$2
prefix=$root/opt/sarus
"$(dirname "$0")/install.sh" "$1" "$prefix" 2>/dev/null
# Made on the machine, not part of the package: so no package manager ever replaces them.
rm "$prefix"/etc/{passwd,group}
mkdir -p "$root/usr/bin"
ln -s ../../opt/sarus/bin/sarus "$root/usr/bin/sarus"
mv "$prefix/share" "$root/usr/share"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
chmod -R go-w "$root"
# Setuid in the package already: an upgrade leaves no moment without it.
chmod 4755 "$prefix/bin/sarusbox"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
