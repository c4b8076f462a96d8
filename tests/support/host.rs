//! What the host shows, for asserting that nothing stays behind.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Waits until no cgroup of a container that is empty now is left so. Those of other tests are empty
/// only while their containers start or end: they are in use soon, or gone.
#[track_caller]
pub fn no_cgroup_stays_empty() {
    no_cgroup_stays_empty_but(&[]);
}

/// As [`no_cgroup_stays_empty`], but for those of `known`, which a start that was killed earlier may have
/// left: the next container of runc removes them when they are a minute old.
#[track_caller]
pub fn no_cgroup_stays_empty_but(known: &[PathBuf]) {
    let mut empty = cgroups();
    empty.retain(|path| !known.contains(path));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        empty.retain(|path| {
            fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
        });
        if empty.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "empty cgroups are left: {empty:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The cgroups of containers that were started in the cgroups of this process, in all hierarchies.
pub fn cgroups() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let folders = own.lines().flat_map(|line| fs::read_dir(cgroup_directory(line)));
    let paths = folders.flatten().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().as_bytes().starts_with(b"container-")).collect()
}

/// The directory that a line of cgroups(7)' `/proc/PID/cgroup` names: `hierarchy:controllers:path`.
fn cgroup_directory(line: &str) -> PathBuf {
    let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    let hierarchy = match controllers.trim_start_matches("name=") {
        "" if Path::new("/sys/fs/cgroup/unified").exists() => "unified",
        name => name,
    };
    Path::new("/sys/fs/cgroup").join(hierarchy).join(path.trim_start_matches('/'))
}
