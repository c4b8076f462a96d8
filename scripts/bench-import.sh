#!/usr/bin/env bash
# Measures imports of one large image, from archives and from a registry on this machine; called by
# bench.sh, which exports the variables.
#
# Each import runs BENCH_RUNS times (3) in a fresh directory: medians. One more run, on a file system
# of its own where unlinked files count too, gives the temporary space: the peak of used space,
# minus the image.
# shellcheck disable=SC2016 # snippets are expanded where they run
set -euo pipefail
: "${BENCH_IMAGES:?}" "${BENCH_WORK:?}" "${BENCH_PREFIX:?}" "${BENCH_UID:?}"
runs=${BENCH_RUNS:-3}
log=$BENCH_WORK.log

# Imports as snippets for bash: $ARCHIVE is their input, $TRANSPORT its name for skopeo.
as_user="setpriv --reuid=$BENCH_UID --regid=$BENCH_UID --clear-groups --"
sarus="$as_user $BENCH_PREFIX/bin/sarus load --temp-dir $BENCH_WORK/tmp --compression"
pull="$as_user $BENCH_PREFIX/bin/sarus pull --temp-dir $BENCH_WORK/tmp --compression"
chain='skopeo --insecure-policy copy --quiet --src-tls-verify=false $TRANSPORT:$ARCHIVE oci:oci:image
       umoci unpack --image oci:image bundle
       mksquashfs bundle/rootfs image.squashfs -no-progress'
podman='podman --root store --runroot run load --quiet --input $ARCHIVE'
podman_pull='podman --root store --runroot run pull --quiet --tls-verify=false $IMAGE'
image_bytes='find . -name "*.squashfs" -printf %s'
store_bytes='du -sb store | cut -f1'

# Empties the current directory and makes the directories of the imports.
prepare() {
    rm -rf -- "${BENCH_WORK:?}"/*
    mkdir -p home/bench
    mkdir -m 1777 tmp
    chown "$BENCH_UID" home/bench
    sync
}

# Prints the peak of the disk space of the import $1, in bytes.
peak_space() {
    mount -t tmpfs -o size=90% tmpfs "$BENCH_WORK"
    cd "$BENCH_WORK"
    prepare
    bash -euc "$1" >"$log.out" 2>&1 &
    local peak=0 used
    while kill -0 $! 2>/dev/null; do
        used=$(df --block-size=1 --output=used . | tail -n 1)
        [ "$used" -le "$peak" ] || peak=$used
        sleep 0.02
    done
    wait $!
    cd /
    umount "$BENCH_WORK"
    echo "$peak"
}

# Prints one row: measure NAME BYTES-SNIPPET IMPORT-SNIPPET. Ratios refer to the first row after
# `input`.
measure() {
    local name=$1 bytes seconds cpu memory peak
    echo "measuring: $name" >&2
    : >"$log"
    for ((run = 0; run < runs; run++)); do
        prepare
        /usr/bin/time --append --output="$log" --format='%e %U %S %M' bash -euc "$3" >"$log.out" 2>&1 ||
            { cat "$log.out" >&2 && return 1; }
    done
    bytes=$(bash -euc "$2")
    peak=$(peak_space "$3")
    read -r seconds cpu memory < <(awk '{print $1, $2 + $3, $4}' "$log" | sort -n | sed -n "$(((runs + 1) / 2))p")
    : "${base:=$seconds}"
    awk -v name="$name" -v s="$seconds" -v cpu="$cpu" -v kib="$memory" -v bytes="$bytes" -v peak="$peak" \
        -v base="$base" 'BEGIN { space = peak - bytes; if (space < 0) space = 0
        printf "| %-40s | %6.2f | %6.1f | %6.2f | %6.0f | %6.0f | %6.0f |\n",
            name, s, s / base, cpu, kib / 1024, space / 1e6, bytes / 1e6 }'
}

input() {
    base=
    export TRANSPORT=$1 ARCHIVE=$2
    export TMPDIR=$BENCH_WORK/tmp # where podman and skopeo put what they need for a while
}

# Starts Debian's registry on a free port of the loopback, with the image.
serve() {
    local folder=$BENCH_IMAGES/registry
    mkdir -p "$folder"
    cat >"$folder/config.yml" <<END
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $folder/store}}
http: {addr: "127.0.0.1:0"}
END
    docker-registry serve "$folder/config.yml" >"$folder/log" 2>&1 &
    registry=$!
    trap 'kill "$registry"' EXIT
    local port
    until port=$(sed -n 's/.*listening on 127.0.0.1:\([0-9]*\).*/\1/p' "$folder/log") && [ -n "$port" ]; do
        kill -0 "$registry" || { cat "$folder/log" >&2 && return 1; }
        sleep 0.1
    done
    export IMAGE=127.0.0.1:$port/bench/big:1
    TMPDIR=$BENCH_IMAGES skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
        "oci-archive:$BENCH_IMAGES/big-oci.tar" "docker://$IMAGE"
}

mkdir -p "$BENCH_WORK"
cd "$BENCH_WORK"
cat <<'END'
| import                                   | wall s |  ratio |  CPU s | mem MB | tmp MB | img MB |
| ---------------------------------------- | -----: | -----: | -----: | -----: | -----: | -----: |
END
input docker-archive "$BENCH_IMAGES/big.tar"
if [ -z "${BENCH_PEERS_ONLY-}" ]; then
    measure "sarus load, plain layers, zstd" "$image_bytes" "$sarus zstd \$ARCHIVE bench"
    measure "sarus load, plain layers, gzip" "$image_bytes" "$sarus gzip \$ARCHIVE bench"
fi
measure "skopeo + umoci + mksquashfs, plain" "$image_bytes" "$chain"
measure "podman load, plain layers" "$store_bytes" "$podman"
input oci-archive "$BENCH_IMAGES/big-oci.tar"
if [ -z "${BENCH_PEERS_ONLY-}" ]; then
    measure "sarus load, gzip layers, zstd" "$image_bytes" "$sarus zstd \$ARCHIVE bench"
    measure "sarus load, gzip layers, gzip" "$image_bytes" "$sarus gzip \$ARCHIVE bench"
fi
measure "skopeo + umoci + mksquashfs, gzip layers" "$image_bytes" "$chain"
measure "podman load, gzip layers" "$store_bytes" "$podman"
serve
input docker "//$IMAGE"
if [ -z "${BENCH_PEERS_ONLY-}" ]; then
    measure "sarus pull, gzip layers, zstd" "$image_bytes" "$pull zstd \$IMAGE"
fi
measure "skopeo + umoci + mksquashfs, registry" "$image_bytes" "$chain"
measure "podman pull, gzip layers" "$store_bytes" "$podman_pull"
cd /
rm -rf "$BENCH_WORK" "$log" "$log.out"
