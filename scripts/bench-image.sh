#!/usr/bin/env bash
# Makes the image for `make bench`, once: bench-image.sh DIRECTORY
#
# A Debian root file system with python3, numpy, gcc and mpich in three layers, more than 500 MB, as
# big.tar (docker-archive, plain layers) and big-oci.tar (OCI archive, gzip layers).
set -euo pipefail

scripts=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
if [ -e big.tar ] && [ -e big-oci.tar ]; then exit 0; fi

if [ ! -e root ]; then
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    rm -rf root.part
    debootstrap --variant=minbase --include=python3,python3-numpy,gcc,mpich \
        "$codename" root.part >debootstrap.log
    mv root.part root
fi
# Three layers, each on top of the last: base system, libraries and programs, data files.
tar -cf base.tar -C root --exclude='./dev/*' --exclude=./usr/lib --exclude=./usr/share .
tar -cf lib.tar -C root ./usr/lib
tar -cf share.tar -C root ./usr/share
for output in docker-archive:big.tar.part:big:latest oci-archive:big-oci.tar.part:latest; do
    TMPDIR=$PWD "$scripts/make-image.sh" "$output" base.tar lib.tar share.tar -- --config.cmd=bash
done
rm base.tar lib.tar share.tar
mv big.tar.part big.tar
mv big-oci.tar.part big-oci.tar
