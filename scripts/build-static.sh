#!/usr/bin/env bash
# Builds sarusbox as one static file that runs on any machine of this architecture, and prints its
# path: $CARGO_TARGET_DIR/sarusbox. Does nothing if nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(uname -m)-unknown-linux-musl
output=${CARGO_TARGET_DIR:-target}
note() { echo "build-static: $*" >&2; }
is_root() { [ "$(id -u)" = 0 ]; }
has_prebuilt_std() { [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; }
has_std_source() { [ -f "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.toml" ]; }
# zstd and libdeflate are C, and must be compiled against musl's headers.
use_musl_cc() { export "CC_${target//-/_}=${MUSL_CC:-musl-gcc}"; }

# Makes the binary independent of builder and build directory: removes the paths of the sources,
# which the cargo $1 fetches, from its messages.
hide_paths() {
    local sources
    "$1" fetch --quiet --locked
    for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
        RUSTFLAGS="${RUSTFLAGS-} --remap-path-prefix=$sources="
    done
    export RUSTFLAGS
}

# Builds with rustup: musl's start files, libc and std come with the target.
build_with_rustup() {
    use_musl_cc
    hide_paths cargo
    cargo build --release --locked --bin sarusbox --target "$target"
}

# Builds with Debian's packages, which have no musl target but the source of std: std is compiled
# for size, too. std needs an unwinder for backtraces; a stripped program without unwind tables has
# none, so a stub that finds no frame is linked.
build_with_std_source() {
    local musl_libs shim
    musl_libs=/usr/lib/$(uname -m)-linux-musl
    mkdir -p "$output/shim"
    shim=$(realpath "$output/shim")
    use_musl_cc
    if [ ! -e "$shim/libunwind.a" ]; then
        echo 'int _Unwind_Backtrace(void) { return 5; } unsigned long _Unwind_GetIP(void) { return 0; }' |
            "${MUSL_CC:-musl-gcc}" -Os -fPIC -x c -c - -o "$shim/unwind.o"
        ar rc "$shim/libunwind.a" "$shim/unwind.o"
    fi
    RUSTC=/usr/bin/rustc hide_paths /usr/bin/cargo
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS="$RUSTFLAGS -C force-unwind-tables=no -C link-self-contained=no -C link-arg=-B$musl_libs
            -L native=$musl_libs -L native=$shim -C link-arg=-lgcc" \
        /usr/bin/cargo build --release --locked --bin sarusbox --target "$target" \
        -Z build-std=std,panic_abort -Z build-std-features=optimize_for_size
}

if has_prebuilt_std; then
    build_with_rustup
elif has_std_source || { is_root && scripts/install-dependencies.sh build; }; then
    build_with_std_source
elif timeout 120 rustup target add "$target" >&2; then
    build_with_rustup
else
    note "no way to build for $target: add it with rustup, or run scripts/install-dependencies.sh build as root"
    exit 1
fi

built=$output/$target/release/sarusbox
if readelf --wide --program-headers --dynamic "$built" | grep -E 'INTERP|NEEDED' >&2 ||
    ! readelf --file-header "$built" | grep -q 'DYN '; then
    note "$built is not a static, position-independent program"
    exit 1
fi
ln -f "$built" "$output/sarusbox"
touch "$output/sarusbox"
echo "$output/sarusbox"
