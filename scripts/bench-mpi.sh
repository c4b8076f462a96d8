#!/usr/bin/env bash
# Measures MPI in containers beside the host's own, between two processes; called by bench.sh,
# which prepares the user and an archive of an image with MPICH.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
image=load/library/bench
config=$BENCH_PREFIX/etc/sarus.json
program=$BENCH_WORK/bench-mpi
mkdir -p "$BENCH_WORK/tmp" "$BENCH_WORK/home/bench"
chown "$BENCH_UID" "$BENCH_WORK/home/bench"
chmod 1777 "$BENCH_WORK/tmp"
trap 'rm -rf "$BENCH_WORK"' EXIT
setpriv --reuid="$BENCH_UID" --regid="$BENCH_UID" --clear-groups env USER=bench \
    "$BENCH_PREFIX/bin/sarus" load --temp-dir "$BENCH_WORK/tmp" "$BENCH_IMAGES/big.tar" bench >&2
mpicc.mpich -O2 -o "$program" "$here/bench-mpi.c"

# The host's library and its dependencies without the C library.
library=$(realpath "$(ldconfig -p | sed -n 's/^\tlibmpich\.so\.12 .*=> //p' | head -n 1)")
needed=$(ldd "$library" | awk '$3 ~ "^/" && $3 !~ "/lib[cm]\\.so" { print $3 }' | paste -sd:)
hooks=$(jq --null-input --compact-output --arg hook "$BENCH_PREFIX/bin/mpi_hook" \
    --arg mpi "MPI_LIBS=$library" --arg needed "MPI_DEPENDENCY_LIBS=$needed" \
    '{prestart: [{path: $hook, env: [$mpi, $needed]}]}')
jq --argjson hooks "$hooks" --arg crun "$(command -v crun)" \
    '.OCIHooks = $hooks | .runcPath = $crun' "$config" >"$config.new"
mv "$config.new" "$config"

# spread COMMAND...: the medians of seven runs by two processes, "latency bandwidth". A run that hangs
# is reported and left out.
spread() {
    local values
    values=$(for _ in 1 2 3 4 5 6 7; do
        (cd / && setpriv --reuid="$BENCH_UID" --regid="$BENCH_UID" --clear-groups \
            timeout --kill-after=1 60 mpiexec.mpich -n 2 "$@" </dev/null) || echo "a run failed: $*" >&2
    done)
    for field in 1 2; do
        cut -d' ' -f$field <<<"$values" | sort -n | sed -n 4p
    done | paste -sd' '
}

row() { printf '| %-42s | %10s | %10s |\n' "$@"; }

row "MPI between two processes" "latency us" "MB/s"
row ------------------------------------------ ---------: ---------:
read -r latency bandwidth < <(spread "$program")
row "on the host" "$latency" "$bandwidth"
sarus=("$BENCH_PREFIX/bin/sarus" run "--mount=type=bind,source=$program,destination=/bench-mpi")
read -r latency bandwidth < <(spread "${sarus[@]}" --mpi "$image" /bench-mpi)
row "sarus run --mpi, the host's library" "$latency" "$bandwidth"
read -r latency bandwidth < <(spread "${sarus[@]}" "$image" /bench-mpi)
row "sarus run, the image's library" "$latency" "$bandwidth"
