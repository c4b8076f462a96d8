#!/usr/bin/env bash
# Measures imports and starts beside other tools, on this machine, in one run.
#
# BENCH_DIR (/var/tmp/sarus-bench) keeps the image that is imported, and the result, results.md.
# BENCH_RUNS (3) is the number of runs of an import. BENCH_PEERS_ONLY=1 leaves Sarus out.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "bench: runc and mounts need root: sudo make bench" >&2
    exit 1
fi
# A mount namespace for this script: mounts that a failure leaves end with it. crun up to 1.8
# refuses a hybrid hierarchy (cgroup v1 with the v2 tree beside it), so the v2 tree is hidden.
if [ -z "${BENCH_ISOLATED-}" ]; then
    BENCH_ISOLATED=1 exec unshare --mount --propagation private "$0"
fi
umount --lazy /sys/fs/cgroup/unified 2>/dev/null || true

export BENCH_IMAGES=${BENCH_DIR:-/var/tmp/sarus-bench}
export BENCH_WORK=$BENCH_IMAGES/work
export BENCH_PREFIX=/opt/sarus-bench-$$
export BENCH_UID=20001
trap 'rm -rf "$BENCH_PREFIX"' EXIT

scripts/install-dependencies.sh bench
scripts/bench-image.sh "$BENCH_IMAGES"
make --no-print-directory all
make --no-print-directory install ENABLE_SSH=0 PREFIX="$BENCH_PREFIX"
"$BENCH_PREFIX/configure_installation.sh" >/dev/null
echo "bench:x:$BENCH_UID:$BENCH_UID::/:/bin/sh" >>"$BENCH_PREFIX/etc/passwd"
# Peers run no hooks.
config=$(jq --arg home "$BENCH_WORK/home" '.localRepositoryBaseDir = $home | del(.OCIHooks)' \
    "$BENCH_PREFIX/etc/sarus.json")
echo "$config" >"$BENCH_PREFIX/etc/sarus.json"

{
    echo "$(nproc) cores, $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)," \
        "load $(cut -d' ' -f1 /proc/loadavg) at the start"
    echo
    scripts/bench-import.sh
    echo
    scripts/bench-start.sh
    echo
    scripts/bench-mpi.sh
} | tee "$BENCH_IMAGES/results.md"
echo "written to $BENCH_IMAGES/results.md" >&2
