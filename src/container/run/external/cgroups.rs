//! Paths of cgroups, from the texts of `/proc/PID/cgroup` and `/proc/PID/mountinfo`. See cgroups(7).

use crate::sys::fs::read::read_proc;
use crate::sys::proc::mountinfo::MountInfo;
use crate::sys::process::ProcessId;
use std::path::{Path, PathBuf};

/// Mount point of cgroups, where OCI runtimes expect it.
pub const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Text of `/proc/self/mountinfo`.
pub fn mountinfo() -> String {
    read_proc("/proc/self/mountinfo").unwrap_or_default()
}

/// Text of `/proc/PID/cgroup`; that of this process without `pid`. Empty on a kernel without cgroups.
pub fn memberships(pid: Option<ProcessId>) -> String {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    read_proc(format!("/proc/{process}/cgroup")).unwrap_or_default()
}

/// True if version 2 is the only hierarchy that OCI runtimes use, by their own criterion.
#[must_use]
pub fn is_unified() -> bool {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    rustix::fs::statfs(MOUNT_POINT).is_ok_and(|found| found.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

/// Paths at which a runtime may make a cgroup `name`: beside that of this process in each hierarchy,
/// or below it.
pub fn candidates(name: &str) -> Vec<PathBuf> {
    let (mounts, own) = (mountinfo(), memberships(None));
    let mut paths = Vec::new();
    for (point, root, options) in mounts.lines().filter_map(hierarchy) {
        for (_, path) in
            own.lines().filter_map(membership).filter(|(names, _)| has_all(options, names))
        {
            // The mount may show a part of the hierarchy only, as in a container.
            let below = path.strip_prefix(root).unwrap_or(path);
            let own = Path::new(point).join(below.trim_start_matches('/'));
            paths.extend(own.parent().map(|parent| parent.join(name)));
            paths.push(own.join(name));
        }
    }
    paths
}

/// Devices that the cgroup of this process allows, as the text of `devices.list` of version 1: a
/// cgroup below can allow no others. All devices in version 2, where the programs (BPF) of each
/// cgroup above decide, too.
pub fn allowed_devices() -> String {
    // From the end: the path of the own cgroup comes behind that of its parent.
    let mut lists = candidates("devices.list").into_iter().rev();
    let list = lists.find_map(|path| read_proc(path).ok());
    list.unwrap_or_else(|| "a *:* rwm".to_owned())
}

/// Mount point, root and, in version 1, options (controllers among them) of a line of mountinfo, if
/// that is of a cgroup hierarchy.
pub fn hierarchy(line: &str) -> Option<(&str, &str, Option<&str>)> {
    let mount = MountInfo::parse(line.as_bytes())?;
    let text = |field| std::str::from_utf8(field).ok();
    let (point, root) = (text(mount.mount_point)?, text(mount.root)?);
    match mount.fs_type {
        b"cgroup2" => Some((point, root, None)),
        b"cgroup" => Some((point, root, Some(text(mount.super_options)?))),
        _ => None,
    }
}

/// True if the hierarchy with `options` has all of the controllers `names`.
fn has_all(options: Option<&str>, names: &str) -> bool {
    match options {
        None => names.is_empty(),
        Some(options) => names.split(',').all(|name| options.split(',').any(|one| one == name)),
    }
}

/// Controllers and path of a line of `/proc/PID/cgroup`.
pub fn membership(line: &str) -> Option<(&str, &str)> {
    line.split_once(':')?.1.split_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_and_memberships_are_matched() {
        let v1 =
            "34 25 0:29 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,seclabel,cpu,cpuacct";
        let named = "35 25 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        let v2 = "36 25 0:31 /job /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let memberships = ["cpu,cpuacct", "name=systemd", "", "cpu", "cpuset"];
        for (line, point, root, expected) in [
            (v1, "/sys/fs/cgroup/cpu", "/", &["cpu,cpuacct", "cpu"][..]),
            (named, "/sys/fs/cgroup/systemd", "/", &["name=systemd"]),
            (v2, "/sys/fs/cgroup", "/job", &[""]),
        ] {
            let found = hierarchy(line).unwrap();
            assert_eq!((found.0, found.1), (point, root));
            let matching = memberships.iter().filter(|names| has_all(found.2, names));
            assert_eq!(matching.copied().collect::<Vec<_>>(), expected, "{line}");
        }
        assert_eq!(hierarchy("22 1 0:5 / /proc rw - proc proc rw"), None);
        assert_eq!(membership("4:cpu,cpuacct:/a:b"), Some(("cpu,cpuacct", "/a:b")));
        assert_eq!(membership("0::/"), Some(("", "/")));
    }
}
