#!/bin/sh
# Makes the installation that this script lies in ready for use on this machine: sets sarusbox
# setuid root, caches the passwd and group databases, and fills etc/sarus.json from its template.
# Keeps an existing etc/sarus.json as etc/sarus.json.bak. May be run again at any time: with --keep,
# existing etc/sarus.json, etc/passwd and etc/group stay as they are; with --users, only the last
# two are refreshed.
set -eu

prefix=$(cd -P "$(dirname "$0")" && pwd)
umask 022

fail() {
    echo "configure_installation.sh: $*" >&2
    exit 1
}

# Prints the OCI runtime to use: one of the site beside sarusbox takes precedence over the system's.
find_runtime() {
    search=$prefix/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
    while [ -n "$search" ]; do
        # Includes the names of release files, such as runc.amd64.
        for name in runc runc.amd64 runc.arm64 crun; do
            [ ! -x "${search%%:*}/$name" ] || { readlink -f "${search%%:*}/$name" && return; }
        done
        case $search in *:*) search=${search#*:} ;; *) search= ;; esac
    done
    fail "no OCI runtime found: install runc or crun, or copy one of them to $prefix/bin"
}

# A squashfs of one file in zstd, which kernels before 4.14, or built without it, do not mount:
# yes 'zstd works' | head -n 400 >d/zstd; mksquashfs d image -comp zstd -no-exports -no-xattrs -nopad
zstd_image() {
    base64 -d <<END
aHNxcwIAAAAAAAAAAAACAAEAAAAGABEAQAIBAAQAAAAgAAAAAAAAAO8AAAAAAAAA5wAAAAAAAAD//////////30AAAAAAAAA
rQAAAAAAAADZAAAAAAAAAP//////////KLUv/WAwEJ0AAFh6c3RkIHdvcmtzCgEAIuG+eAEuACi1L/0gQC0BAMgCAKQBAAEA
MBEAAAEAwAEAAhsAAAADAAAABACvESA7QGIXaAEYgAAAAAAAAAAAAQAAAAAAAAACAAMAenN0ZBCAYAAAAAAAAAAdAAAAAAAA
AMcAAAAAAAAABIAAAAAA4QAAAAAAAAA=
END
}

# Prints the best squashfs compression that the running kernel mounts, by mounting it. The mount
# is private to its namespace and ends with it, also after an error.
find_compression() {
    work=$(mktemp -d)
    zstd_image >"$work/image"
    truncate -s 4096 "$work/image" # loop devices end at whole sectors
    mkdir "$work/mnt"
    # shellcheck disable=SC2016 # expanded by the inner shell
    if unshare --mount --propagation private sh -c \
        'mount -t squashfs -o loop,ro "$1/image" "$1/mnt" && grep -q works "$1/mnt/zstd"' sh "$work" \
        >/dev/null 2>&1; then
        echo zstd
    else
        echo "note: zstd squashfs images cannot be mounted here: new images get gzip" >&2
        echo gzip
    fi
    rm -rf "$work"
}

# Fills the database cache etc/$1, which replaces name services that containers cannot query.
cache() {
    # The files of install.sh have no users yet.
    if $keep && [ -e "etc/$1" ] && ! cmp -s "etc/$1" "etc/templates/$1"; then
        echo "Keeping etc/$1"
        return
    fi
    echo "Creating cached $1 database"
    if command -v getent >/dev/null; then
        getent "$1"
    else
        echo "note: without getent, only the users of /etc/$1 are known in containers" >&2
        cat "/etc/$1"
    fi >"etc/.$1.new"
    mv -f "etc/.$1.new" "etc/$1"
    echo "Successfully created cached $1 database"
}

keep=false
users_only=false
case ${1-} in
'') ;;
--keep) keep=true ;;
--users) users_only=true ;;
*) fail "unknown option '$1': --keep leaves the files of etc/ as they are, --users renews users and groups" ;;
esac
for needed in bin/sarusbox etc/templates/sarus.json etc/sarus.schema.json; do
    [ -f "$prefix/$needed" ] || fail "$prefix is not an installation of Sarus: it has no $needed"
done
[ "$(id -u)" = 0 ] || fail "only root can set $prefix/bin/sarusbox setuid root: run this as root"
cd "$prefix"
if $users_only; then
    cache passwd
    cache group
    exit
fi
$keep && [ -e etc/sarus.json ] || runtime=$(find_runtime)

echo "Setting Sarus as SUID root"
mkdir -p var/OCIBundleDir
set -- . bin bin/sarusbox etc etc/sarus.* etc/templates etc/templates/* etc/container \
    etc/container/* var var/OCIBundleDir configure_installation.sh
chown root:root "$@"
# chown -h changes the links, too.
chown -h root:root bin/*
chmod go-w "$@"
# The same for OpenSSH of containers, and for completions, which the shells of administrators read.
for tree in openssh share; do
    [ ! -d "$tree" ] || { chown -R root:root "$tree" && chmod -R go-w "$tree"; }
done
chmod 4755 bin/sarusbox
echo "Successfully set Sarus as SUID root"

cache passwd
cache group

if $keep && [ -e etc/sarus.json ]; then
    echo "Keeping etc/sarus.json"
else
    echo "Configuring etc/sarus.json"
    [ ! -e etc/sarus.json ] || cp -p etc/sarus.json etc/sarus.json.bak
    sed -e "s|@INSTALL_PREFIX@|$prefix|g" -e "s|@RUNC_PATH@|$runtime|" \
        -e "s|@SQUASHFS_COMPRESSION@|$(find_compression)|" etc/templates/sarus.json >etc/.sarus.json.new
    mv -f etc/.sarus.json.new etc/sarus.json
    echo "Successfully configured etc/sarus.json."
fi

echo "To execute sarus commands run first:"
echo "export PATH=$prefix/bin:\${PATH}"
echo "To persist that for future sessions, consider adding the previous line to your .bashrc or equivalent file"
