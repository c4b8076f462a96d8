//! What the host shows, for asserting that nothing stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::Output;

/// Mount points of this mount namespace, in the order of mounting.
pub fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Loop devices in use with the files that they serve, of all mount namespaces.
pub fn loop_devices() -> Vec<(PathBuf, PathBuf)> {
    let mut devices = vec![];
    for entry in fs::read_dir("/sys/block").unwrap().map(Result::unwrap) {
        // Read at once: a device that is being detached loses the file at any time.
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            devices.push((PathBuf::from("/dev").join(entry.file_name()), file.trim_end().into()));
        }
    }
    devices
}

/// Pid and command line of the processes that have `uid` among their user ids.
pub fn processes_of(uid: u32) -> Vec<(u32, String)> {
    let mut processes = vec![];
    for entry in fs::read_dir("/proc").unwrap().map(Result::unwrap) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // A process that ended meanwhile is none.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        if ids.split_whitespace().any(|id| id.parse() == Ok(uid)) {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            processes.push((pid, command.replace('\0', " ").trim_end().to_owned()));
        }
    }
    processes
}

/// The cgroups of containers on this machine, in all hierarchies.
pub fn cgroups() -> BTreeSet<PathBuf> {
    let find = ["/sys/fs/cgroup", "-name", "container-????????????????", "-type", "d"];
    let found = Output::of(Command::new("find").args(find)).stdout;
    found.lines().map(PathBuf::from).collect()
}

/// What there was before the first [`Installation`](super::Installation) of this program.
static BEFORE: OnceLock<BTreeSet<PathBuf>> = OnceLock::new();

/// Has [`empty_cgroups`] leave out what is there now, if this is the first time.
pub fn remember_cgroups() {
    BEFORE.get_or_init(cgroups);
}

/// Those cgroups of containers of this program that hold no process: when no container is being started
/// or ends, they were left.
pub fn empty_cgroups() -> Vec<PathBuf> {
    let is_empty = |path: &PathBuf| {
        fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
    };
    let before = BEFORE.get().unwrap();
    cgroups().difference(before).filter(|path| is_empty(path)).cloned().collect()
}
