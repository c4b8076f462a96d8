#!/usr/bin/env bash
# Removes the files of install.sh and configure_installation.sh: uninstall.sh DIRECTORY
#
# Images of users and other files stay; so does sarus.json, which is the site's.
set -euo pipefail

cd -P "$1"
if [ ! -e bin/sarusbox ]; then
    echo "uninstall: $PWD is not an installation of Sarus: it has no bin/sarusbox" >&2
    exit 1
fi
if [ -e usr ]; then
    echo "uninstall: $PWD is the root of a system, whose etc/passwd is needed: remove bin/sarusbox by hand" >&2
    exit 1
fi
find bin -maxdepth 1 -lname sarusbox -delete
rm -f bin/sarusbox configure_installation.sh etc/sarus.schema.json \
    etc/templates/{sarus.json,passwd,group} etc/container/nsswitch.conf etc/passwd etc/group
rm -f share/man/man1/sarus.1 share/man/man1/sarus-*.1 share/man/man5/sarus.json.5 share/man/man8/hooks.8 \
    share/bash-completion/completions/sarus share/zsh/site-functions/_sarus \
    share/fish/vendor_completions.d/sarus.fish
rm -rf openssh share/doc/sarus
[ ! -e etc/sarus.json ] || echo "uninstall: $PWD/etc/sarus.json stays: it is yours to remove"
# Removes directories that are empty now.
for folder in bin etc/templates etc/container var/OCIBundleDir share/man/man{1,5,8} \
    share/doc share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d; do
    [ ! -d "$folder" ] || rmdir --parents --ignore-fail-on-non-empty "$folder"
done
rmdir --ignore-fail-on-non-empty "$PWD"
