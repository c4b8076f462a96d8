#!/usr/bin/env bash
# Installs the missing packages for a purpose: install-dependencies.sh build|openssh|test|vm|demo|bench
#
# Installs on Debian and Ubuntu, as root. Elsewhere it only prints the list, and the next step fails
# without them.
set -euo pipefail

# Cargo uses TLS, and the smallest Debian has no certificate authorities.
build=(rustc-web cargo-web rust-web-src musl-tools gcc ca-certificates)
openssh=(musl-tools gcc make dpkg-dev)
images=(skopeo umoci busybox-static)
case ${1-} in
build) packages=("${build[@]}") ;;
openssh) packages=("${openssh[@]}") ;;
demo) packages=("${images[@]}" runc) ;;
test)
    packages=("${images[@]}" "${openssh[@]}" runc crun tini squashfs-tools debootstrap buildah strace shellcheck
        docker-registry apache2-utils openssl curl time g++ mpich libmpich-dev
        slurmctld slurmd slurm-client munge podman openssh-client iproute2
        rpm man-db zsh fish python3 bindfs squashfs-tools-ng)
    command -v cargo-clippy >/dev/null || packages+=("${build[@]}" rust-web-clippy rustfmt-web)
    ;;
vm)
    packages=("${images[@]}" runc crun kmod cpio)
    command -v "qemu-system-$(uname -m)" >/dev/null || packages+=(qemu-system-x86 qemu-system-arm)
    ;;
bench)
    packages=("${images[@]}" runc crun squashfs-tools debootstrap docker-registry podman charliecloud
        hyperfine strace jq time mpich libmpich-dev)
    ;;
*) echo "usage: ${0##*/} build|openssh|test|vm|demo|bench" >&2 && exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "note: $1 needs what Debian calls ${packages[*]}" >&2
    exit 0
fi
missing=()
for package in "${packages[@]}"; do
    # shellcheck disable=SC2016 # dpkg-query expands it
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' ||
        missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "${0##*/}: $1 needs ${missing[*]}: install them first" >&2
    exit 1
fi
echo "installing for $1: ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
