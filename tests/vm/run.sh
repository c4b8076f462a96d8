#!/usr/bin/env bash
# Runs cgroups.sh in a virtual machine, for what this machine's kernel may not show: run.sh BINARY
#
# ACCEL names an accelerator of QEMU, such as kvm; without it the machine is emulated.
#
# Its kernel is the one of the distribution, with cgroups of version 2 alone; its root is in memory and
# holds an installation of BINARY, runc and crun. Everything lies in target/vm; nothing is installed.
set -euo pipefail
binary=$(realpath "$1")
cd "$(dirname "$0")/../.."
vm=${CARGO_TARGET_DIR:-target}/vm
mkdir -p "$vm"
vm=$(realpath "$vm")

# Unpacks the kernel package that the distribution's own one depends on.
get_kernel() {
    local name
    name=$(apt-cache depends "linux-image-$(dpkg --print-architecture)" | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p')
    rm -rf "$vm/kernel.new" && mkdir "$vm/kernel.new"
    (cd "$vm/kernel.new" && apt-get download -q "$name" && dpkg-deb -x ./*.deb . && rm ./*.deb)
    mv "$vm/kernel.new" "$vm/kernel"
}

# Copies programs with the libraries that they are linked with.
copy_programs() {
    local program
    for program in "$@"; do
        { echo "$program" && ldd "$program" | grep -o '/[^ ]*'; } 2>/dev/null | sort -u |
            xargs -I{} cp --dereference --parents {} "$root"
    done
}

# Copies modules and what they need, in the order in which they are loaded.
copy_modules() {
    local modules release module
    modules=$(echo "$vm"/kernel/lib/modules/*)
    release=${modules##*/}
    depmod -b "$vm/kernel" "$release"
    for module in "$@"; do
        modprobe -d "$vm/kernel" -S "$release" --show-depends "$module" | sed -n 's/^insmod //p'
    done | awk '!seen[$1]++ {print $1}' >"$vm/modules"
    mkdir -p "$root/modules"
    xargs -a "$vm/modules" cp -t "$root/modules"
    sed 's|.*/||' "$vm/modules" >"$root/modules/order"
}

[ -d "$vm/kernel" ] || get_kernel
root=$(mktemp -d "$vm/root.XXXXXX")
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc,proc,sys,dev,tmp,run,new,home/alice,opt/images}
cp /bin/busybox "$root/bin/"
copy_programs "$(command -v runc)" "$(command -v crun)" "$(command -v setpriv)"
copy_modules loop squashfs overlay
OPENSSH='' scripts/install.sh "$binary" "$root/opt/sarus"
for file in etc/passwd opt/sarus/etc/passwd; do
    printf 'root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n' >"$root/$file"
done
for file in etc/group opt/sarus/etc/group; do printf 'root:x:0:\ntty:x:5:\nalice:x:1000:\n' >"$root/$file"; done
cat >"$root/opt/sarus/etc/sarus.json" <<JSON
{
    "securityChecks": true, "OCIBundleDir": "/opt/sarus/var/OCIBundleDir", "rootfsFolder": "rootfs",
    "prefixDir": "/opt/sarus", "tempDir": "/tmp", "localRepositoryBaseDir": "/home",
    "runcPath": "RUNTIME", "ramFilesystemType": "tmpfs"
}
JSON
chown -R 0:0 "$root/opt" && chmod 4755 "$root/opt/sarus/bin/sarusbox" && chown 1000:1000 "$root/home/alice"
scripts/busybox-rootfs.sh "$vm/busybox.$$"
scripts/make-image.sh "docker-archive:$root/opt/images/box.tar:box:latest" "$vm/busybox.$$" --
rm -rf "$vm/busybox.$$"
install -m 755 tests/vm/init tests/vm/start tests/vm/cgroups.sh "$root/"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$vm/initrd"

case $(uname -m) in
aarch64) qemu=(qemu-system-aarch64 -machine virt -cpu max) console=ttyAMA0 ;;
*) qemu=(qemu-system-x86_64 -cpu max) console=ttyS0 ;;
esac
timeout 600 "${qemu[@]}" -accel "${ACCEL:-tcg}" -m 1500 -smp 2 -nographic -nodefaults -no-reboot -serial stdio -nic none \
    -kernel "$(echo "$vm"/kernel/boot/vmlinuz-*)" -initrd "$vm/initrd" \
    -append "console=$console quiet panic=-1 random.trust_cpu=on" </dev/null 2>&1 | tee "$vm/log"
grep -q '^all passed' "$vm/log"
