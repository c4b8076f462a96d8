#!/usr/bin/env bash
# Fuzzes the parsers of outside data: fuzz.sh [SECONDS [TARGET...]], 60 s for each by default.
# `fuzz.sh build` builds the fuzzers only.
#
# Uses libFuzzer on the ordinary toolchain; target/fuzz/corpus keeps the corpus, and target/fuzz
# gets an input that fails. Needs a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1-60}
shift || true
if [ $# -gt 0 ]; then
    targets=("$@")
else
    mapfile -t targets < <(sed -n 's/^    ("\([a-z]*\)", .*/\1/p' tests/fuzz/src/main.rs)
fi
out=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR-target}/fuzz")
mkdir -p "$out/corpus"

# Flags of cargo-fuzz; an explicit target keeps them away from build scripts.
host=$(rustc --print host-tuple)
export RUSTFLAGS="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
-C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
-C codegen-units=1 --cfg fuzzing"
cargo build --quiet --locked --release --manifest-path tests/fuzz/Cargo.toml --target "$host" --target-dir "$out"
[ "$seconds" != build ] || exit 0

# Seeds of the corpus, from files of this machine.
seed() {
    mkdir -p "$out/corpus/$1"
    cat >"$out/corpus/$1/seed-$2"
}
printf '{"ociVersion":"1.0.2","id":"x","status":"created","pid":7,"bundle":"/b","annotations":{"a":"b"}}' |
    seed state 1
printf '{"process":{"user":{"uid":1,"gid":2,"additionalGids":[3]},"env":["A=b"]},"root":{"path":"rootfs"},
"linux":{"uidMappings":[{"containerID":0,"hostID":1,"size":2}]},"annotations":{"a":"b"}}' | seed spec 1
seed elf 1 <"$(ldconfig -p | sed -n 's/.* => \(.*libdl\.so\.2\)$/\1/p' | head -n 1)"
head --bytes 100000 /etc/ld.so.cache | seed ldcache 1
# Small images in each format, which mutate faster.
mkdir -p "$out/root/lib" "$out/root/lib/glibc-hwcaps/x86-64-v2" "$out/root/etc"
for place in lib lib/glibc-hwcaps/x86-64-v2; do
    cp "$out/corpus/elf/seed-1" "$out/root/$place/libdl.so.2"
done
for format in new compat old; do
    ldconfig -X -r "$out/root" -f /dev/null -C /etc/cache -c "$format"
    seed ldcachewrite "$format" <"$out/root/etc/cache"
done
tar --create --format=pax --file - scripts/fuzz.sh | seed tar 1
# Truncated archive, from a file, since tar itself must not fail.
tar --create --format=gnu --sparse --file "$out/seed.tar" Makefile scripts
head --bytes 60000 "$out/seed.tar" | seed tar 2
mksquashfs etc "$out/seed.squashfs" -noappend -quiet -no-progress
seed squashfs 1 <"$out/seed.squashfs"
# A compressor, then files: kind, parent, size, place of the data, mode, length of the name, name.
printf 'z\2\0\0\0\7\0d\0\1\3\4\6\3file\3\0\2\0\7\3link\6\1\0\0\0\1h2\5\0\5\1\7\3hole' | seed squashwriter 1
printf 'quay.io:5000/a/b/c:tag@sha256:%064d' 7 | seed reference 1
printf 'type=bind,source=/a,destination=/b,readonly' | seed mount 1
seed mountinfo 1 </proc/self/mountinfo
sed 's/@[A-Z_]*@/x/g' etc/templates/sarus.json | seed config 1
printf '{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[{"architecture":"SCMP_ARCH_X86_64",
"subArchitectures":null}],"flags":[],"syscalls":[{"names":["read","clone"],"action":"SCMP_ACT_TRACE","args":
[{"index":0,"value":9,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"caps":[],"arches":["amd64"],
"minKernel":"4.8"},"excludes":{"caps":["CAP_X"]},"comment":"","errno":"EPERM","errnoRet":1}]}' | seed seccomp 1

fuzz() {
    local target=$1 log=$out/$1.log
    if SARUS_FUZZ=$target "$out/$host/release/sarus-fuzz" -max_total_time="$seconds" -timeout=5 \
        -rss_limit_mb=1024 -max_len=200000 -artifact_prefix="$out/$target-" \
        "$out/corpus/$target" >"$log" 2>&1; then
        sed -n "s/^Done \([0-9]* runs in [0-9]* second.*\)/$target: \1/p" "$log"
    else
        tail -n 40 "$log" >&2
        echo "fuzz: $target failed; its input lies in $out" >&2
        return 1
    fi
}

# One on each processor.
export -f fuzz
export out host seconds
printf '%s\n' "${targets[@]}" | xargs --max-procs "$(nproc)" -I{} bash -c 'fuzz {}'
