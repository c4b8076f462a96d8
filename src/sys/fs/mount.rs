//! Mounts, made by descriptor: no path is looked up again after it was checked.
//!
//! New calls (`fsopen`, `open_tree`, `move_mount`: Linux 5.2; `mount_setattr`: 5.12) are tried first;
//! `mount_compat` serves where the kernel does not know them. See fsopen(2), mount(2),
//! mount_setattr(2).

use crate::error::{Cause, Context, Error, Result};
use crate::sys::fs::mount_compat;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount_change, mount_remount, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;
use std::path::{Path, PathBuf};

/// Restrictions of a mount. Every mount of a container is also `nosuid`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// `ro`: nothing can be written.
    pub readonly: bool,
    /// `nodev`: device files cannot be opened.
    pub nodev: bool,
    /// `noexec`: programs cannot be executed.
    pub noexec: bool,
}

/// Moves this process into a new mount namespace, as a slave of the host's: mounts do not propagate to
/// the host, and later mounts of the host still appear.
pub fn unshare_namespace() -> Result<()> {
    // SAFETY: of all that `unshare` can take apart, only CLONE_FILES would break Rust's idea of
    // descriptors; this is not it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .context(|| "cannot make a mount namespace".into())?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context(|| "cannot make the mount namespace a slave of the host's".into())
}

/// Enters the mount namespace that `namespace` refers to. Root and working directory become its root.
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
    /// Opens the mount namespace that this process is in.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        let open = |path: &str, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("cannot open {path}"))
        };
        let file = open("/proc/self/ns/mnt", OFlags::RDONLY)?;
        Ok(Self { file, root: open("/", OFlags::PATH | OFlags::DIRECTORY)? })
    }

    /// Moves this process there, to the root directory that it had: for a process started by chroot(1),
    /// the root of the namespace is another.
    pub fn enter(&self) -> Result<()> {
        enter_namespace(&self.file)?;
        rustix::process::fchdir(&self.root)
            .and_then(|()| rustix::process::chroot("."))
            .context(|| "cannot return to the root directory".into())
    }

    /// Identifies the namespace, by the text of `/proc/PID/ns/mnt`.
    #[must_use]
    pub fn name(&self) -> Option<PathBuf> {
        std::fs::read_link(proc_path(self.file.as_fd())).ok()
    }
}

/// Returns the mount ID of the mount that `file` is on.
///
/// # Errors
/// If neither statx(2) (Linux 5.8) nor `/proc` tells it.
pub fn id_of(file: impl AsFd) -> Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    match statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(status) if status.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(status.stx_mnt_id),
        _ => mount_compat::mount_id(file.as_fd()),
    }
}

/// Mounts a file system of type `kind` on the directory `target`, always `nosuid`. `options` are
/// separated by commas.
///
/// # Errors
/// If the kernel refuses, with its own message where it has one.
pub fn filesystem(
    kind: &str,
    source: &str,
    target: impl AsFd,
    restrictions: Restrictions,
    options: &str,
) -> Result<()> {
    let target = target.as_fd();
    let context = || format!("cannot mount {kind}");
    let configuration = match fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(configuration) => configuration,
        Err(Errno::NOSYS | Errno::PERM) => {
            return mount_compat::filesystem(kind, source, target, restrictions, options)
                .context(context);
        }
        Err(errno) => return Err(errno).context(context),
    };
    configure(&configuration, source, restrictions.readonly, options)
        .and_then(|()| {
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            fsmount(&configuration, flags, attributes(restrictions))
        })
        .map_err(|errno| explain(errno, &configuration))
        .and_then(|mount| attach(mount, target))
        .context(context)
}

/// Configures and creates the superblock.
fn configure(
    configuration: &OwnedFd,
    source: &str,
    readonly: bool,
    options: &str,
) -> Result<(), Errno> {
    fsconfig_set_string(configuration, "source", source)?;
    if readonly {
        fsconfig_set_flag(configuration, "ro")?;
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(configuration, key, value)?,
            None => fsconfig_set_flag(configuration, option)?,
        }
    }
    fsconfig_create(configuration)
}

fn attributes(restrictions: Restrictions) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, restrictions.readonly);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, restrictions.nodev);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, restrictions.noexec);
    attributes
}

/// Maximum number of messages of a file system that are shown, and of bytes of one.
const MAX_MESSAGES: usize = 8;
const MAX_MESSAGE: usize = 1024;

/// Error of `errno` with the messages that the file system left in its configuration, each behind a
/// letter for its level (`e` for an error) and a blank.
fn explain(errno: Errno, configuration: &OwnedFd) -> Error {
    let mut buffer = [0; MAX_MESSAGE];
    let mut messages = Vec::new();
    for _ in 0..MAX_MESSAGES {
        let Ok(length) = rustix::io::read(configuration, &mut buffer) else { break };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        messages.extend(text.strip_prefix("e ").map(|text| text.trim_end().to_owned()));
    }
    let error = errno.into_error();
    if messages.is_empty() {
        return error;
    }
    let kind = error.kind();
    Error::new(format!("{error} (kernel: {})", messages.join("; "))).with_kind(kind)
}

/// Makes the mount whose root is `mount` unbindable: recursive binds of its parent leave it out, with
/// all mounts below it.
pub fn make_unbindable(mount: impl AsFd) -> Result<()> {
    mount_change(proc_path(mount.as_fd()), MountPropagationFlags::UNBINDABLE)
        .context(|| "cannot make a mount unbindable".into())
}

/// Remounts the mount at `directory` with `nosuid` and `nodev`, and reads the flags back.
///
/// # Errors
/// If the kernel refuses, or a restriction did not take effect.
pub fn confine(directory: &Path) -> Result<()> {
    let context = || format!("cannot confine {}", directory.display());
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(directory, flags, c"").context(context)?;
    if is_confined(directory).context(context)? {
        Ok(())
    } else {
        Err(Error::caused_by(context(), "the kernel did not restrict it"))
    }
}

/// Tells whether the mount at `directory` is `nosuid` and `nodev`.
pub fn is_confined(directory: &Path) -> Result<bool, Errno> {
    let confined = StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    Ok(rustix::fs::statvfs(directory)?.f_flag.contains(confined))
}

/// Returns the flags of the mount that `file` is on.
pub fn flags(file: impl AsFd) -> Result<StatVfsMountFlags, Errno> {
    Ok(rustix::fs::fstatvfs(file)?.f_flag)
}

/// Binds `source` and all mounts below it to `target`: recursive, private, `nosuid`. The restrictions
/// hold for every mount of the copy, beside those that a mount has already.
///
/// # Errors
/// If the kernel refuses; then nothing is mounted.
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

/// Copies the mounts at and below `source`, not attached anywhere yet: they are restricted before
/// another process can see them.
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

/// Path of a descriptor for system calls that take only paths: a magic link, which resolves no name anew.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
