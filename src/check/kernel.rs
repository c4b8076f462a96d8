//! Checks of the kernel, as far as it tells an ordinary user.

use super::Report;
use crate::container::plan::oci_runtime::{OciRuntime, RuntimeKind};
use crate::site::config::{Config, RamFilesystem};
use crate::squashfs::compression::Compressor;
use crate::sys::fs::read::read_text_at_most;
use flate2::bufread::GzDecoder;
use std::io::BufReader;
use std::path::Path;

/// Maximum size, in bytes, of a kernel's configuration or list of modules.
const MAX_SIZE: u64 = 16 << 20;

/// Checks all that every container needs.
pub(super) fn always(report: &mut Report<'_>) {
    let release = release();
    let missing = ["mnt", "pid"].iter().find(|kind| !exists(&format!("/proc/self/ns/{kind}")));
    match missing {
        None => report.ok("kernel", format!("Linux {release} has mount and PID namespaces")),
        Some(kind) => report.error(
            "kernel",
            format!("Linux {release} has no namespaces of kind {kind}, or /proc is not mounted"),
            "use a kernel with CONFIG_NAMESPACES and CONFIG_PID_NS",
        ),
    }
    if exists("/dev/loop-control") {
        report.ok("kernel", "loop devices are available");
    } else {
        missing_feature(report, "loop");
    }
    for name in ["squashfs", "overlay"] {
        file_system(report, name);
    }
}

/// Checks all that this configuration needs.
pub(super) fn configured(report: &mut Report<'_>, config: &Config, runtime: Option<&OciRuntime>) {
    file_system(
        report,
        match config.ram_filesystem {
            RamFilesystem::Tmpfs => "tmpfs",
            RamFilesystem::Ramfs => "ramfs",
        },
    );
    compressor(report, config.compression.compressor());
    if let Some(runtime) = runtime {
        cgroups(report, runtime);
    }
}

/// Checks that the OCI runtime supports the mounts of cgroups.
fn cgroups(report: &mut Report<'_>, runtime: &OciRuntime) {
    let mounted = std::fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut list| list.next().is_some());
    let hybrid = read("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if runtime.makes_cgroups() && !mounted {
        report.error(
            "kernel",
            "no cgroups are mounted at /sys/fs/cgroup, where the OCI runtime needs them",
            "mount them, or set runcPath to crun, which needs none",
        );
    } else if runtime.kind == RuntimeKind::Crun && !hybrid.trim().is_empty() {
        report.error(
            "kernel",
            "hybrid cgroup hierarchy, which crun does not support",
            "set runcPath to runc, or boot with systemd.unified_cgroup_hierarchy=1",
        );
    }
}

fn file_system(report: &mut Report<'_>, name: &str) {
    let known = read("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        report.ok("kernel", format!("file system {name} is available"));
    } else {
        missing_feature(report, name);
    }
}

/// Reports a file system that is missing. A mount loads its module, unless the site forbids that.
fn missing_feature(report: &mut Report<'_>, name: &str) {
    let modules = read(&format!("/lib/modules/{}/modules.dep", release())).unwrap_or_default();
    let file = format!("/{name}.ko");
    if modules.lines().any(|line| line.split(':').next().is_some_and(|l| l.contains(&file))) {
        report.warning(
            "kernel",
            format!("{name} is a module that is not loaded"),
            &format!("modprobe {name}, and name it in /etc/modules-load.d"),
        );
    } else {
        report.error(
            "kernel",
            format!("this kernel has no {name}"),
            "install the package with its modules, or use another kernel",
        );
    }
}

fn compressor(report: &mut Report<'_>, name: Compressor) {
    let option = format!("{}=y", name.kernel_option());
    let packed = std::fs::File::open("/proc/config.gz")
        .ok()
        .and_then(|file| read_text_at_most(GzDecoder::new(BufReader::new(file)), MAX_SIZE).ok());
    let options = packed.or_else(|| read(&format!("/boot/config-{}", release())));
    match options.map(|text| text.lines().any(|line| line == option)) {
        Some(true) => report.ok("kernel", format!("squashfs reads images in {name}")),
        Some(false) => report.error(
            "kernel",
            format!("squashfs does not read images in {name}, which squashfsCompression asks for"),
            "set squashfsCompression to gzip, remove images, and import them again",
        ),
        None => report.unknown(
            "kernel",
            &format!(
                "whether squashfs reads images in {name}: the kernel's options are not readable"
            ),
            "configure_installation.sh tries it; or look for an option CONFIG_SQUASHFS_... =y",
        ),
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn read(path: &str) -> Option<String> {
    read_text_at_most(std::fs::File::open(path).ok()?, MAX_SIZE).ok()
}
