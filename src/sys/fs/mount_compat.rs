//! Mounts by mount(2). Bind mounts before Linux 5.12 can be restricted only one at a time: binds
//! recursively, then finds each mount of the copy in `/proc/self/mountinfo` and remounts it.
//!
//! The copy is visible in the engine's mount namespace meanwhile, where no process of the user exists
//! yet. See proc(5), `/proc/pid/mountinfo`.

use crate::error::{Cause, Context, Error, Result};
use crate::sys::fs::mount::{Restrictions, proc_path};
use crate::sys::fs::read::{MAX_PROC, read_at_most, read_proc};
use crate::sys::proc::mountinfo::MountInfo;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change, mount_remount,
};
use std::ffi::CString;
use std::path::PathBuf;

/// Does the same as [`filesystem`](crate::sys::fs::mount::filesystem), by mount(2).
pub(in crate::sys) fn filesystem(
    kind: &str,
    source: &str,
    target: BorrowedFd<'_>,
    restrictions: Restrictions,
    options: &str,
) -> Result<()> {
    let mut flags = MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, restrictions.readonly);
    flags.set(MountFlags::NODEV, restrictions.nodev);
    flags.set(MountFlags::NOEXEC, restrictions.noexec);
    let options = CString::new(options).map_err(|_| Error::new("NUL in mount options"))?;
    mount(source, proc_path(target), kind, flags, options.as_c_str()).map_err(Cause::into_error)
}

/// Does the same as [`bind`](crate::sys::fs::mount::bind).
pub(in crate::sys) fn bind(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    restrictions: Restrictions,
) -> Result<()> {
    let before = mounts()?;
    mount_bind_recursive(proc_path(source), proc_path(target))
        .context(|| "cannot bind the mount".into())?;
    // What is there now and was not before is the copy: nobody else mounts in this namespace, but
    // what the host mounts meanwhile comes in, and gets restricted with the rest.
    let mut copies = mounts()?;
    copies.retain(|new| before.iter().all(|old| old.id != new.id));
    copies.iter().try_for_each(|copy| restrict(copy, &copies, restrictions))
}

fn restrict(copy: &Mount, copies: &[Mount], restrictions: Restrictions) -> Result<()> {
    let context = || format!("cannot restrict the mount on {}", copy.point.display());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = rustix::fs::open(&copy.point, flags, Mode::empty()).context(context)?;
    if mount_id(point.as_fd())? != copy.id {
        // Either another mount of the copy lies on top of this one and nobody can reach it, or
        // the path was changed under our hands.
        let is_covered =
            copies.iter().any(|other| other.parent == copy.id && other.point == copy.point);
        return if is_covered {
            Ok(())
        } else {
            Err(Error::caused_by(context(), "the path leads to another mount now"))
        };
    }
    let mut flags = copy.flags | MountFlags::BIND | MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, flags.contains(MountFlags::RDONLY) || restrictions.readonly);
    flags.set(MountFlags::NODEV, flags.contains(MountFlags::NODEV) || restrictions.nodev);
    flags.set(MountFlags::NOEXEC, flags.contains(MountFlags::NOEXEC) || restrictions.noexec);
    let path = proc_path(point.as_fd());
    mount_change(&path, MountPropagationFlags::PRIVATE).context(context)?;
    mount_remount(&path, flags, c"").context(context)
}

/// A mount of this namespace.
struct Mount {
    id: u64,
    /// Mount ID of the parent mount.
    parent: u64,
    point: PathBuf,
    flags: MountFlags,
}

fn mounts() -> Result<Vec<Mount>> {
    let context = || "cannot read /proc/self/mountinfo".to_owned();
    let file = std::fs::File::open("/proc/self/mountinfo").context(context)?;
    let text = read_at_most(file, MAX_PROC).context(context)?;
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| parse(line).ok_or_else(|| Error::caused_by(context(), "malformed line")))
        .collect()
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mount = MountInfo::parse(line)?;
    let flags = mount.options.split(|byte| *byte == b',').fold(MountFlags::empty(), |all, word| {
        all | match word {
            b"ro" => MountFlags::RDONLY,
            b"nosuid" => MountFlags::NOSUID,
            b"nodev" => MountFlags::NODEV,
            b"noexec" => MountFlags::NOEXEC,
            b"noatime" => MountFlags::NOATIME,
            b"nodiratime" => MountFlags::NODIRATIME,
            b"relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        }
    });
    Some(Mount { id: mount.id, parent: mount.parent, point: mount.path(), flags })
}

/// Returns the mount ID of the mount that a descriptor is on.
pub(in crate::sys) fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    use rustix::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = read_proc(&path).context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| Error::new(format!("cannot find the mount ID in {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_understood() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134 ro,noexec,relatime master:1 - ext3 /dev/root rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(mount.point, PathBuf::from("/a b\\"));
        let flags = MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::RELATIME;
        assert_eq!(mount.flags, flags);
        assert!(parse(b"x").is_none());
    }
}
