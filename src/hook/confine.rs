//! The engine's own hook: it makes the root file system of a container `nosuid` and `nodev` before any
//! other hook runs, and verifies the mounts that root relies on after all of them. Start at [`run`].
//!
//! Some OCI runtimes, such as crun, bind the root file system anew without its restrictions: device
//! files of an image of the user's would be devices of the host. And the kernel detaches a mount, with
//! all below it, when its mount point is removed in another namespace (`detach_mounts`): then root
//! would open, as `/dev/null`, a file that a user has put there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::Container;
use super::container_root::enter_mount_namespace;
use super::state::State;
use crate::error::{Context, Error, Result};
use crate::rootfs::root_dir::open_directory;
use crate::sys::fs::FileId;
use crate::sys::fs::mount;
use crate::sys::fs::read::read_text_at_most;
use crate::sys::process::ProcessId;
use crate::sys::process::limits::CallerLimits;

/// The file that the hook creates in the bundle when it has verified the container.
pub const VERIFIED: &str = "verified";

/// Work of the hook, by its stage and its position among the other hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfineStep {
    /// First hook of the stage `prestart` or `createRuntime`: enters the container's mount namespace,
    /// and confines the root.
    Enter,
    /// First hook of the stage `createContainer`, which runtimes run in that namespace: confines the
    /// root.
    Confine,
    /// Last hook of the stage `createContainer`: confines the root, and verifies the mounts.
    Verify,
}

impl FromStr for ConfineStep {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "enter" => Ok(Self::Enter),
            "confine" => Ok(Self::Confine),
            "verify" => Ok(Self::Verify),
            _ => Err(Error::new(format!("invalid step '{text}' of confine_hook"))),
        }
    }
}

/// Root file system and limits as the engine made them.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The container's root directory.
    pub rootfs: &'a Path,
    /// Identity of the root directory.
    pub root: FileId,
    /// Identity of `/dev`.
    pub dev: FileId,
    /// Resource limits of the caller.
    pub limits: CallerLimits,
}

/// Does `step` for the container of `state`.
///
/// # Errors
/// If the root cannot be confined, or a mount is not the one that engine or runtime made: then the
/// container must not start.
pub fn run(step: ConfineStep, state: &State, expected: &Expected<'_>) -> Result<()> {
    if step == ConfineStep::Enter {
        enter_mount_namespace(state)?;
    }
    mount::confine(expected.rootfs)?;
    if step == ConfineStep::Verify {
        verify(expected).context(|| "cannot start in this container".into())?;
        limit_parent(expected)?;
        let path = state.bundle.join(VERIFIED);
        std::fs::write(&path, b"").context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// `PROC_SUPER_MAGIC` and `SYSFS_MAGIC` of `linux/magic.h`.
const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;

/// Devices of every container, which an OCI runtime opens as root or binds elsewhere: name, major and
/// minor number. "Default Devices" of the OCI runtime specification.
pub const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Compares a device of the container with its numbers, if the runtime has created it by now.
fn expect_device(dev: &OwnedFd, (name, major, minor): (&str, u32, u32)) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = format!("/dev/{name}");
    let device = match rustix::fs::openat(dev, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        device => device.context(|| format!("cannot open the container's {path}"))?,
    };
    let status = rustix::fs::fstat(&device).context(|| format!("cannot stat {path}"))?;
    let is_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
    let number = rustix::fs::makedev(major, minor);
    expect(is_device && status.st_rdev == number, &path)
}

/// Compares the mounts at `/`, `/dev`, `/proc` and `/sys` with those that engine and runtime made.
fn verify(expected: &Expected<'_>) -> Result<()> {
    let root = open_directory(expected.rootfs)?;
    expect(FileId::from_fd(&root)? == expected.root, "/")?;
    let dev = below(&root, "dev")?;
    expect(FileId::from_fd(&dev)? == expected.dev, "/dev")?;
    DEVICES.iter().try_for_each(|device| expect_device(&dev, *device))?;
    for (name, magic) in [("proc", PROC), ("sys", SYSFS)] {
        let mounted = below(&root, name)?;
        let path = format!("/{name}");
        let found = rustix::fs::fstatfs(&mounted).context(|| format!("cannot stat {path}"))?;
        let flags = mount::flags(&mounted).context(|| format!("cannot stat {path}"))?;
        expect(found.f_type as u64 == magic && flags.contains(StatVfsMountFlags::NOSUID), &path)?;
    }
    Ok(())
}

/// Gives the container's first process, which runs this hook, the limits of the caller.
fn limit_parent(expected: &Expected<'_>) -> Result<()> {
    let context = || "cannot find the process that runs this hook".to_owned();
    let parent = ProcessId::parent().ok_or("it has ended").context(context)?;
    // The number is one of the container's PID namespace, as is its /proc.
    let proc = below(&open_directory(expected.rootfs)?, "proc")?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&proc, format!("{parent}/statm"), flags, Mode::empty());
    let file = std::fs::File::from(file.context(context)?);
    let text = read_text_at_most(file, MAX_STATM).context(context)?;
    let used = memory(&text).ok_or("malformed statm in the container's /proc").context(context)?;
    expected.limits.apply_to(parent, used)
}

/// Maximum size of `/proc/PID/statm` in bytes.
const MAX_STATM: u64 = 256;

/// Address space and data of a process in bytes, from the text of `/proc/PID/statm` (proc(5)).
fn memory(statm: &str) -> Option<(u64, u64)> {
    let page = rustix::param::page_size() as u64;
    let field = |number| statm.split_whitespace().nth(number)?.parse::<u64>().ok();
    Some((field(0)?.checked_mul(page)?, field(5)?.checked_mul(page)?))
}

fn below(root: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(root, name, flags, Mode::empty())
        .context(|| format!("cannot open the container's /{name}"))
}

fn expect(is_right: bool, path: &str) -> Result<()> {
    if is_right {
        return Ok(());
    }
    Err(Error::new(format!("the mount on {path} is not the one that was made"))
        .with_hint("a hook of sarus.json lets users into the container, or changes its mounts"))
}

/// Reads the container's state from stdin.
///
/// # Errors
/// If it is malformed.
pub fn receive() -> Result<State> {
    Container::receive_state()
}
