#!/usr/bin/env bash
# Builds ssh, sshd and ssh-keygen of OpenSSH as static programs for containers: build-openssh.sh
# DIRECTORY. DIRECTORY/SOURCE lists the sources with checksums.
#
# The source is that of the Debian or Ubuntu release that this machine runs, with all its security
# updates; or the contents of the directory OPENSSH_SOURCE: a Debian source package, or
# openssh-VERSION.tar.gz of the OpenSSH project.
set -euo pipefail

cd "$(dirname "$0")/.."
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    scripts/install-dependencies.sh openssh
fi
mkdir -p "$1"
output=$(realpath "$1")
# Path in the container, independent of the prefix of the installation on the host.
home=/opt/sarus/openssh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
note() { echo "build-openssh: $*" >&2; }
fail() {
    note "$*"
    exit 1
}

# Runs a program and shows its output only if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        tail -n 50 "$work/log" >&2
        fail "this failed: $*"
    }
}

# Gets the source package with package lists of our own, so that the machine's stay as they are.
fetch_from_distribution() {
    local sources=$work/apt/sources file
    mkdir -p "$sources" "$work/apt/lists/partial"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$sources/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -s "$file" ] || sed -n 's/^deb /deb-src /p' "$file" >"$sources/${file##*/}.list"
    done
    local options=(-q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$sources"
        -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
    cd "$work/source"
    if ! {
        apt-get "${options[@]}" update
        apt-get "${options[@]}" source --download-only openssh
    } >"$work/log" 2>&1; then
        tail -n 5 "$work/log" >&2
        fail "no source: let OPENSSH_SOURCE name a directory with it, or leave SSH out by ENABLE_SSH=0"
    fi
}

compiler=${MUSL_CC:-musl-gcc}
start=/usr/lib/$(uname -m)-linux-musl/rcrt1.o
for needed in "$(command -v "$compiler" || echo "$compiler")" "$start"; do
    [ -e "$needed" ] || fail "no $needed, which Debian has in musl-tools: ENABLE_SSH=0 leaves SSH out"
done
mkdir "$work/source"
if [ -n "${OPENSSH_SOURCE-}" ]; then
    cp "$OPENSSH_SOURCE"/openssh[-_]* "$work/source" || fail "no openssh source in $OPENSSH_SOURCE"
else
    note "getting the source of this distribution's OpenSSH"
    fetch_from_distribution
fi
cd "$work/source"
sha256sum -- openssh* >"$work/SOURCE"
if ls ./*.dsc >/dev/null 2>&1; then
    quietly dpkg-source --no-check --extract ./*.dsc "$work/tree"
else
    tarballs=(./openssh*.tar.*z)
    if [ ${#tarballs[@]} != 1 ] || [ ! -f "${tarballs[0]}" ]; then
        fail "not one openssh-VERSION.tar.gz, but this: $(echo openssh*)"
    fi
    mkdir "$work/tree"
    quietly tar --extract --file "${tarballs[0]}" --strip-components=1 --directory "$work/tree"
fi

# This musl has no crypt(3), which only passwords need: no login uses one.
mkdir "$work/stub"
echo 'char *crypt(const char *key, const char *salt) { (void)key; (void)salt; return 0; }' |
    "$compiler" -Os -fPIE -x c -c - -o "$work/stub/crypt.o"
ar rc "$work/stub/libcrypt.a" "$work/stub/crypt.o"

cd "$work/tree"
# Debian's patches leave configure older than its sources, which the Makefile refuses.
touch configure
note "building $(sed -n 's/^#define SSH_VERSION[^"]*"\(.*\)"/\1/p' version.h)"
# gcc's -static-pie links the C library of the host: these flags do the same with musl's start file.
link="-nostartfiles -static -Wl,-pie,--no-dynamic-linker,-z,text $start"
# Without shadow: sshd runs as the user, and an image's /etc/shadow may have locked the account.
# Without OpenSSL there are ed25519 keys, curve25519 and chacha20-poly1305: all that containers need.
quietly ./configure CC="$compiler" CFLAGS="-Os -fPIE" LDFLAGS="$link -L$work/stub" \
    LIBS=-lcrypt --without-pie --without-openssl --without-zlib --without-zlib-version-check \
    --disable-lastlog --disable-utmp --disable-utmpx --disable-wtmp --disable-wtmpx \
    --disable-pkcs11 --disable-security-key --with-sandbox=no --without-shadow \
    --prefix="$home" --sysconfdir="$home/etc" --with-privsep-path="$home/var/empty" \
    --with-default-path=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin
# Since 9.8 sshd executes a helper for each login, since 10.0 two.
mapfile -t helpers < <(grep -oE '^sshd-(session|auth)' Makefile | sort -u)
programs=(ssh sshd ssh-keygen "${helpers[@]}")
quietly make -j"$(nproc)" "${programs[@]}"
for program in "${programs[@]}"; do
    strip "$program"
    if readelf --wide --program-headers --dynamic "$program" | grep -E 'INTERP|NEEDED' >&2 ||
        ! readelf --file-header "$program" | grep -q 'DYN '; then
        fail "$program is not a static, position-independent program"
    fi
done
rm -rf "${output:?}"/{bin,sbin,libexec}
install -D -m 755 -t "$output/bin" ssh ssh-keygen
install -D -m 755 -t "$output/sbin" sshd
[ ${#helpers[@]} = 0 ] || install -D -m 755 -t "$output/libexec" "${helpers[@]}"
install -m 644 LICENCE "$output/LICENCE"
install -m 644 "$work/SOURCE" "$output/SOURCE"
cat "$output/SOURCE"
