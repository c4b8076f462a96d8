//! Mounts, made by descriptor: no path is looked up again after it was checked.
//!
//! New calls (`open_tree`, `mount_setattr`, `move_mount`: Linux 5.2 and 5.12) are tried first and
//! `mount_compat` serves where the kernel does not know them. See mount(2), mount_setattr(2).

use crate::error::{Context, Error, Result};
use crate::sys::fs::mount_compat;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    mount_remount, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;
use std::path::{Path, PathBuf};

/// What a mount forbids. `nosuid` is not among them: every mount of a container has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// No writing.
    pub readonly: bool,
    /// No device files.
    pub nodev: bool,
    /// No programs.
    pub noexec: bool,
}

/// Gives this process a mount namespace of its own, from which nothing gets out to the host.
/// What the host mounts later still comes in.
///
/// # Errors
/// When the kernel refuses, as it does without root.
pub fn private_namespace() -> Result<()> {
    // SAFETY: of all that `unshare` can take apart, only CLONE_FILES would break Rust's idea of
    // descriptors; this is not it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .context(|| "cannot make a mount namespace".into())?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context(|| "cannot cut the mount namespace off from the host's".into())
}

/// Enters the mount namespace that `namespace` stands for: root and working directory are its own
/// from now on.
///
/// # Errors
/// When the kernel refuses, as it does without root.
pub fn enter_namespace(namespace: impl AsFd) -> Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::Mount;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
        .context(|| "cannot enter a mount namespace".into())
}

/// A mount namespace, and the root directory that this process has in it.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
    root: OwnedFd,
}

impl Namespace {
    /// The one that this process is in.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        let open = |path: &str, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("cannot open {path}"))
        };
        let file = open("/proc/self/ns/mnt", OFlags::RDONLY)?;
        Ok(Self { file, root: open("/", OFlags::PATH | OFlags::DIRECTORY)? })
    }

    /// Moves this process there, to the root directory that it had: the one of the namespace is
    /// another for who was started by chroot(1).
    ///
    /// # Errors
    /// When the kernel refuses, as it does without root.
    pub fn enter(&self) -> Result<()> {
        enter_namespace(&self.file)?;
        rustix::process::fchdir(&self.root)
            .and_then(|()| rustix::process::chroot("."))
            .context(|| "cannot return to the root directory".into())
    }

    /// Text that tells it from others, as `/proc/PID/ns/mnt` has it.
    #[must_use]
    pub fn name(&self) -> Option<PathBuf> {
        std::fs::read_link(proc_path(self.file.as_fd())).ok()
    }
}

/// The number of the mount that `file` is on, in this mount namespace.
///
/// # Errors
/// When neither statx(2) (since Linux 5.8) nor `/proc` tells it.
pub fn id_of(file: impl AsFd) -> Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    match statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(status) if status.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(status.stx_mnt_id),
        _ => mount_compat::mount_id(file.as_fd()),
    }
}

/// Mounts a file system of type `kind` on the directory `target`, always `nosuid`.
///
/// # Errors
/// With the kernel's reason.
pub fn filesystem(
    kind: &str,
    source: &str,
    target: impl AsFd,
    restrictions: Restrictions,
    options: &str,
) -> Result<()> {
    let mut flags = MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, restrictions.readonly);
    flags.set(MountFlags::NODEV, restrictions.nodev);
    flags.set(MountFlags::NOEXEC, restrictions.noexec);
    let options =
        std::ffi::CString::new(options).map_err(|_| Error::new("NUL in mount options"))?;
    mount(source, proc_path(target.as_fd()), kind, flags, options.as_c_str())
        .context(|| format!("cannot mount {kind}"))
}

/// Leaves the mount whose root is `mount`, and all below it, out of binds of what is above it.
///
/// # Errors
/// With the kernel's reason.
pub fn hide_from_binds(mount: impl AsFd) -> Result<()> {
    mount_change(proc_path(mount.as_fd()), MountPropagationFlags::UNBINDABLE)
        .context(|| "cannot hide a mount from binds".into())
}

/// Forbids set-user-id programs and device files on the mount at `directory`, and reads back that
/// it is so.
///
/// # Errors
/// With the kernel's reason, or when a restriction did not take effect.
pub fn confine(directory: &Path) -> Result<()> {
    let cannot = || format!("cannot confine {}", directory.display());
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(directory, flags, c"").context(cannot)?;
    if is_confined(directory).context(cannot)? {
        Ok(())
    } else {
        Err(Error::caused_by(cannot(), "the kernel did not restrict it"))
    }
}

/// Whether neither set-user-id programs nor device files work on the mount at `directory`.
///
/// # Errors
/// With the kernel's reason.
pub fn is_confined(directory: &Path) -> Result<bool, Errno> {
    let confined = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    Ok(rustix::fs::statvfs(directory)?.f_flag.contains(confined))
}

/// The flags of the mount that `file` is on.
///
/// # Errors
/// With the kernel's reason.
pub fn flags(file: impl AsFd) -> Result<StatVfsMountFlags, Errno> {
    Ok(rustix::fs::fstatvfs(file)?.f_flag)
}

/// Shows `source` and everything mounted below it at `target` too: recursive, private, `nosuid`.
/// The restrictions hold for every mount below as well; those that a mount has already stay.
///
/// # Errors
/// With the kernel's reason; then nothing is mounted.
pub fn bind(source: impl AsFd, target: impl AsFd, restrictions: Restrictions) -> Result<()> {
    let (source, target) = (source.as_fd(), target.as_fd());
    match detached_copy(source, restrictions) {
        Ok(tree) => attach(tree, target),
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
            mount_compat::bind(source, target, restrictions)
        }
        Err(errno) => Err(errno).context(|| "cannot copy the mount".into()),
    }
}

/// A copy of the mounts at and below `source` that hangs nowhere yet, restricted before anyone can
/// see it.
fn detached_copy(source: BorrowedFd<'_>, restrictions: Restrictions) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags)?;
    set_attributes(tree.as_fd(), restrictions)?;
    Ok(tree)
}

fn attach(tree: OwnedFd, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags).context(|| "cannot attach the mount".into())
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// mount_setattr(2), which neither rustix nor the C library wraps: `nosuid`, private and what
/// `restrictions` say, on a whole tree of mounts at once.
fn set_attributes(tree: BorrowedFd<'_>, restrictions: Restrictions) -> Result<(), Errno> {
    let mut set = MOUNT_ATTR_NOSUID;
    for (wanted, bit) in [
        (restrictions.readonly, MOUNT_ATTR_RDONLY),
        (restrictions.nodev, MOUNT_ATTR_NODEV),
        (restrictions.noexec, MOUNT_ATTR_NOEXEC),
    ] {
        set |= if wanted { bit } else { 0 };
    }
    let attr = MountAttr { set, clear: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the descriptor is open, the path is an empty C string, and the kernel reads as many
    // bytes from `attr` as it has.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
    Err(Errno::from_raw_os_error(errno))
}

/// How a descriptor is named where the kernel takes only paths: a magic link, not looked up anew.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
