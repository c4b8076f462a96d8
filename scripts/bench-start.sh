#!/usr/bin/env bash
# Measures starts of a container of the large image; called by bench.sh, which exports the variables.
#
# Programs: `true`, whose time is the engine's, and Python importing numpy, which reads many files:
# medians of hyperfine with the 10th and the 90th percentile, in milliseconds. Then 128 starts of
# `true`, 8 at once, in milliseconds per start; and the memory in use while 16 containers read the
# same 200 MB of the image.
set -euo pipefail
: "${BENCH_IMAGES:?}" "${BENCH_WORK:?}" "${BENCH_PREFIX:?}" "${BENCH_UID:?}"

here=$(cd "$(dirname "$0")" && pwd)
config=$BENCH_PREFIX/etc/sarus.json
image=load/library/bench
numpy=(python3 -c "import numpy")

as_user=(setpriv --reuid="$BENCH_UID" --regid="$BENCH_UID" --clear-groups -- env USER=bench)
user() { "${as_user[@]}" "$@"; }

# Prints median, 10th and 90th percentile of starting "${@:2}" in ms, $1 is `user` or `env` (root).
# hyperfine itself runs as that user, so that only the start is measured.
spread() {
    "$1" hyperfine --shell none --warmup 3 --min-runs 20 --style none \
        --export-json "$BENCH_WORK/tmp/times.json" "$(printf '%q ' "${@:2}")" >"$BENCH_WORK/tmp/out" 2>&1 ||
        { cat "$BENCH_WORK/tmp/out" >&2 && return 1; }
    jq -r '.results[0].times | sort | [.[length / 2 | floor], .[length / 10 | floor],
        .[length * 9 / 10 | floor]] | map(. * 1e4 | round / 10) | "\(.[0]) [\(.[1])-\(.[2])]"' \
        "$BENCH_WORK/tmp/times.json"
    rm -f "$BENCH_WORK/tmp/times.json"
}

row() { printf '| %-42s | %18s | %18s | %9s | %8s |\n' "$@"; }

# Prints the milliseconds per start of 128 starts of `true` by "${@:2}", 8 at once.
crowd() {
    local start
    start=$(date +%s%N)
    seq 128 | "$1" xargs -P 8 -I{} "${@:2}" true
    echo "$((($(date +%s%N) - start) / 1280000))" | sed 's/..$/.&/; s/^\./0./'
}

used() { awk '/^MemTotal/ { total = $2 } /^MemFree/ { print int((total - $2) / 1024) }' /proc/meminfo; }

# Prints the growth of the memory in use, in MB, while 16 containers by "${@:2}" have read 200 MB each.
# One pipe tells when they have; they live until the other one is closed.
crowd_memory() {
    local said=$BENCH_WORK/tmp/said hold=$BENCH_WORK/tmp/hold before after
    mkfifo -m 666 "$said" "$hold"
    exec 8<>"$said" 9<>"$hold"
    sync
    echo 3 >/proc/sys/vm/drop_caches
    before=$(used)
    for _ in $(seq 16); do
        # shellcheck disable=SC2016 # the container's shell expands it
        "$1" "${@:2}" sh -c 'cat $(find /usr/lib -name "*.so*" -size +100k -type f | sort) |
            head -c 200000000 >/dev/null; echo done; cat' <"$hold" >"$said" 8>&- 9>&- &
    done
    head -n 16 <&8 >/dev/null
    after=$(used)
    exec 8>&- 9>&-
    wait
    rm "$said" "$hold"
    echo $((after - before))
}

# measure NAME USER COMMAND...: the program to run is appended to the command.
measure() {
    echo "measuring: $1" >&2
    local of_true of_numpy of_crowd memory
    of_true=$(spread "${@:2}" true)
    of_numpy=$(spread "${@:2}" "${numpy[@]}")
    of_crowd=$(crowd "${@:2}")
    memory=$(crowd_memory "${@:2}")
    row "$1" "$of_true" "$of_numpy" "$of_crowd" "$memory"
}

# Makes a bundle for `true` and one for numpy with umoci, and measures $1 with both.
measure_bundle() {
    echo "measuring: $1 run" >&2
    local program time times=()
    for program in '["true"]' '["python3", "-c", "import numpy"]'; do
        mkdir -p "$BENCH_WORK/bundle-$1"
        jq --argjson args "$program" --arg root "$BENCH_WORK/bundle/rootfs" \
            '.process.args = $args | .process.terminal = false | .root.path = $root' \
            "$BENCH_WORK/bundle/config.json" >"$BENCH_WORK/bundle-$1/config.json"
        time=$(spread env "$1" run --bundle "$BENCH_WORK/bundle-$1" "bench-$1")
        times+=("$time")
    done
    row "$1 run of an unpacked bundle" "${times[@]}" "" ""
}

use_runtime() { sed -i "s|\(\"runcPath\": \)\"[^\"]*\"|\1\"$1\"|" "$config"; }

measure_sarus() {
    user "$BENCH_PREFIX/bin/sarus" load --temp-dir "$BENCH_WORK/tmp" "$BENCH_IMAGES/big.tar" bench >&2
    for runtime in runc crun; do
        use_runtime "$(command -v $runtime)"
        measure "sarus run with $runtime" user "$BENCH_PREFIX/bin/sarus" run "$image"
        "${as_user[@]}" "$BENCH_PREFIX/bin/sarus" run --init "$image" sleep 600 &
        local sleeper=$!
        sleep 1
        row "... while another uses the image" \
            "$(spread user "$BENCH_PREFIX/bin/sarus" run "$image" true)" \
            "$(spread user "$BENCH_PREFIX/bin/sarus" run "$image" "${numpy[@]}")" "" ""
        kill $sleeper
        wait $sleeper || true
    done
    echo "measuring: the share of the engine" >&2
    rustc --edition 2024 -O -C target-feature=+crt-static -o "$BENCH_PREFIX/bin/runtime" "$here/bench-share.rs"
    cp "$BENCH_PREFIX/bin/runtime" "$BENCH_PREFIX/bin/bench-share"
    use_runtime "$BENCH_PREFIX/bin/runtime"
    local share alone
    share=$(user "$BENCH_PREFIX/bin/bench-share" "$BENCH_PREFIX/bin/sarus" run "$image" true)
    alone=$(user "$BENCH_PREFIX/bin/bench-share" "$BENCH_PREFIX/bin/runtime")
    row "sarus run until its OCI runtime runs" "$share" "" "" ""
    row "... that runtime started without sarus" "$alone" "" "" ""
}

rm -rf "$BENCH_WORK"
mkdir -p "$BENCH_WORK/tmp" "$BENCH_WORK/home/bench"
chown "$BENCH_UID" "$BENCH_WORK/home/bench"
chmod 1777 "$BENCH_WORK/tmp"
cd "$BENCH_WORK"
echo "preparing the image for each engine" >&2
skopeo --insecure-policy copy --quiet "oci-archive:$BENCH_IMAGES/big-oci.tar" oci:oci:image
umoci unpack --image oci:image bundle
chmod 755 bundle
podman=(podman --root "$BENCH_WORK/store" --runroot "$BENCH_WORK/run")
TMPDIR=$BENCH_WORK/tmp "${podman[@]}" load --quiet --input "$BENCH_IMAGES/big.tar" >&2

row start "true, ms" "numpy, ms" "128, ms" "16, MB"
row "------------------------------------------" "-----------------:" "-----------------:" "--------:" "-------:"
[ -n "${BENCH_PEERS_ONLY-}" ] || measure_sarus
measure_bundle runc
measure_bundle crun
measure "charliecloud, from a directory" user ch-run "$BENCH_WORK/bundle/rootfs" --
measure "podman run" env "${podman[@]}" run --interactive --rm --network=none --cgroups=disabled \
    --ulimit nofile=20000:20000 --ulimit nproc=10000:10000 big:latest
# Layers stay mounted below that directory until podman removes them.
"${podman[@]}" rmi --all --force >&2 || true
cd /
umount --recursive "$BENCH_WORK/store/overlay" 2>/dev/null || true
rm -rf "$BENCH_WORK"
