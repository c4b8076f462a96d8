//! What the kernel offers, as far as it tells an ordinary user.

use super::Report;
use crate::container::run::OciRuntime;
use crate::container::run::oci_runtime::Kind;
use crate::site::config::{Config, RamFilesystem};
use crate::squashfs::compression::Compressor;
use flate2::bufread::GzDecoder;
use std::io::Read;
use std::path::Path;

/// More than the configuration of any kernel, or its list of modules.
const MAX_SIZE: u64 = 16 << 20;

/// What every container needs.
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
    match exists("/dev/loop-control") {
        true => report.ok("kernel", "loop devices are there"),
        false => missing_feature(report, "loop"),
    }
    for name in ["squashfs", "overlay"] {
        file_system(report, name);
    }
}

/// What this site's choices need.
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

/// Each OCI runtime has something against some way to mount them.
fn cgroups(report: &mut Report<'_>, runtime: &OciRuntime) {
    let mounted = std::fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut list| list.next().is_some());
    let hybrid = read("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if runtime.makes_cgroups() && !mounted {
        report.error(
            "kernel",
            "no cgroups are mounted at /sys/fs/cgroup, where the OCI runtime wants them",
            "mount them, or let runcPath name crun, which needs none",
        );
    } else if runtime.kind == Kind::Crun && !hybrid.trim().is_empty() {
        report.error(
            "kernel",
            "cgroups of both versions have controllers, which crun refuses",
            "let runcPath name runc, or boot with systemd.unified_cgroup_hierarchy=1",
        );
    }
}

fn file_system(report: &mut Report<'_>, name: &str) {
    let known = read("/proc/filesystems").unwrap_or_default();
    match known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        true => report.ok("kernel", format!("file system {name} is there")),
        false => missing_feature(report, name),
    }
}

/// Mounting loads the modules of file systems, unless the site forbids it.
fn missing_feature(report: &mut Report<'_>, name: &str) {
    let modules = read(&format!("/lib/modules/{}/modules.dep", release())).unwrap_or_default();
    let file = format!("/{name}.ko");
    match modules.lines().any(|line| line.split(':').next().is_some_and(|l| l.contains(&file))) {
        true => report.warning(
            "kernel",
            format!("{name} is a module that is not loaded"),
            &format!("modprobe {name}, and name it in /etc/modules-load.d"),
        ),
        false => report.error(
            "kernel",
            format!("this kernel has no {name}"),
            "install the package with its modules, or use another kernel",
        ),
    }
}

fn compressor(report: &mut Report<'_>, name: Compressor) {
    let option = format!("{}=y", name.kernel_option());
    let packed = std::fs::read("/proc/config.gz").ok().and_then(|bytes| {
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).take(MAX_SIZE).read_to_string(&mut text).ok()?;
        Some(text)
    });
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
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_SIZE).read_to_string(&mut text).ok()?;
    Some(text)
}
