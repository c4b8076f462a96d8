//! What the host shows, for asserting that nothing stays behind.

use std::fs;
use std::path::PathBuf;

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
