#!/usr/bin/env bash
# Lays out the contents of a package: stage-package.sh BINARY DIRECTORY
#
# The program goes to /opt/sarus, with the link /usr/bin/sarus; manual pages and completions go to
# the directories of the system. The package's script configures the rest on the machine.
set -euo pipefail
umask 022

root=$2
prefix=$root/opt/sarus
"$(dirname "$0")/install.sh" "$1" "$prefix" 2>/dev/null
# Files that the package's script makes are not part of the package, so no package manager replaces
# them.
rm "$prefix"/etc/{passwd,group}
mkdir -p "$root/usr/bin"
ln -s ../../opt/sarus/bin/sarus "$root/usr/bin/sarus"
mv "$prefix/share" "$root/usr/share"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
chmod -R go-w "$root"
# The program is setuid in the package, so there is no moment without it in an upgrade.
chmod 4755 "$prefix/bin/sarusbox"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
