#!/usr/bin/env bash
# Wraps root file systems as a container image, with umoci and skopeo:
#
#   make-image.sh OUTPUT LAYER... [-- UMOCI-CONFIG-OPTION...]
#
# OUTPUT is the result as named by skopeo (docker-archive:FILE:NAME:TAG, oci-archive:FILE, oci:DIR);
# a LAYER is a directory or a plain tar. docker-archive gets plain layers, the OCI forms gzip ones.
# Example: make-image.sh docker-archive:box.tar:box:latest rootfs -- --config.cmd=sh
set -euo pipefail

output=$1
shift
work=$(mktemp -d "${TMPDIR:-/tmp}/make-image.XXXXXX")
trap 'rm -rf "$work"' EXIT

umoci init --layout "$work/oci"
umoci new --image "$work/oci:image"
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    layer=$1
    if [ -d "$layer" ]; then
        tar --create --sort=name --numeric-owner --file "$work/layer.tar" --directory "$layer" .
        layer=$work/layer.tar
    fi
    umoci raw add-layer --image "$work/oci:image" "$layer"
    shift
done
[ $# -le 1 ] || umoci config --image "$work/oci:image" "${@:2}"
skopeo --insecure-policy copy --quiet "oci:$work/oci:image" "$output"
