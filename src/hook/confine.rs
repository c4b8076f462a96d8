//! The engine's own hook: it confines the root file system of a container before anybody else has a
//! turn, and makes sure of the mounts that root relies on after everybody had one. Start at [`run`].
//!
//! Some OCI runtimes bind the root file system anew and lift its restrictions with that, as crun
//! does: device files of an image of the user's own making would be devices of the host. And a mount
//! vanishes with all below it when somebody removes its mount point elsewhere (`detach_mounts` of
//! the kernel): then root would open, as `/dev/null`, whatever a user has put there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::Container;
use super::files::directory;
use super::state::State;
use crate::container::run::external::hooks::VERIFIED;
use crate::error::{Context, Error, Result};
use crate::sys::fs::FileId;
use crate::sys::fs::mount;
use crate::sys::fs::read::read_text_at_most;
use crate::sys::process::ProcessId;
use crate::sys::process::limits::CallerLimits;

/// One part of the hook's work, by stage and place among the other hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `prestart` or `createRuntime`: enters the container's mount namespace and confines its root.
    Enter,
    /// `createContainer`, where the runtime runs hooks in that namespace: confines the root.
    Confine,
    /// `createContainer`, last of all: confines the root and verifies the mounts.
    Verify,
}

impl FromStr for Step {
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

/// The container's tree as the engine made it.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The root directory.
    pub rootfs: &'a Path,
    /// Identity of the root directory.
    pub root: FileId,
    /// The identity of its `/dev`.
    pub dev: FileId,
    /// The limits of the caller.
    pub limits: CallerLimits,
}

/// Does `step` for the container of `state`.
///
/// # Errors
/// When the root cannot be confined, or a mount is not as the engine and the runtime made it: then
/// the container must not start.
pub fn run(step: Step, state: &State, expected: &Expected<'_>) -> Result<()> {
    if step == Step::Enter {
        super::enter_mount_namespace(state)?;
    }
    mount::confine(expected.rootfs)?;
    if step == Step::Verify {
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

/// Devices that the OCI runtime opens as root in the container or binds elsewhere, by name, major and
/// minor number: "Default Devices" of the OCI runtime specification.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Insists that a device is itself, if the runtime has made it by now.
fn expect_device(dev: &OwnedFd, (name, major, minor): (&str, u32, u32)) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = format!("/dev/{name}");
    let device = match rustix::fs::openat(dev, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        device => device.context(|| format!("cannot open the container's {path}"))?,
    };
    let status = rustix::fs::fstat(&device).context(|| format!("cannot look at {path}"))?;
    let is_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
    let number = rustix::fs::makedev(major, minor);
    expect(is_device && status.st_rdev == number, &path)
}

/// Compares the mounts at `/`, `/dev`, `/proc` and `/sys` with what they must be.
fn verify(expected: &Expected<'_>) -> Result<()> {
    let root = directory(expected.rootfs)?;
    expect(FileId::from_fd(&root)? == expected.root, "/")?;
    let dev = below(&root, "dev")?;
    expect(FileId::from_fd(&dev)? == expected.dev, "/dev")?;
    DEVICES.iter().try_for_each(|device| expect_device(&dev, *device))?;
    for (name, magic) in [("proc", PROC), ("sys", SYSFS)] {
        let mounted = below(&root, name)?;
        let path = format!("/{name}");
        let found = rustix::fs::fstatfs(&mounted).context(|| format!("cannot look at {path}"))?;
        let flags = mount::flags(&mounted).context(|| format!("cannot look at {path}"))?;
        expect(found.f_type as u64 == magic && flags.contains(StatVfsMountFlags::NOSUID), &path)?;
    }
    Ok(())
}

/// Gives the container's first process, which runs this hook, the limits of the caller.
fn limit_parent(expected: &Expected<'_>) -> Result<()> {
    let cannot = || "cannot find the process that runs this hook".to_owned();
    let parent = ProcessId::parent().ok_or("it has ended").context(cannot)?;
    // The container's own /proc has it by the number that it has here.
    let proc = below(&directory(expected.rootfs)?, "proc")?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&proc, format!("{parent}/statm"), flags, Mode::empty());
    let text =
        read_text_at_most(std::fs::File::from(file.context(cannot)?), MAX_STATM).context(cannot)?;
    let used = memory(&text).ok_or("its /proc tells no memory").context(cannot)?;
    expected.limits.apply_to(parent, used)
}

/// Most that `/proc/PID/statm` has, in bytes.
const MAX_STATM: u64 = 256;

/// Bytes of address space and of data in the text of `/proc/PID/statm`. See proc(5).
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

/// Reads the container's state from stdin, as each hook must.
///
/// # Errors
/// When there is none.
pub fn receive() -> Result<State> {
    Container::receive_state()
}
