//! A pseudoterminal of the container's own devpts, made without a path of the container's.
//! See pts(4), ioctl_tty(2).

use crate::error::{Context, Result};
use crate::sys::terminal::WindowSize;
use crate::user::User;
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

/// Both ends of a pseudoterminal.
#[derive(Debug)]
pub struct Pty {
    /// The end of the engine.
    pub master: OwnedFd,
    /// The end of the program.
    pub slave: OwnedFd,
}

impl Pty {
    /// Opens a pseudoterminal of `size` for `user` in the devpts whose root directory is `devpts`.
    ///
    /// # Errors
    /// Those of open(2) and ioctl_tty(2); TIOCGPTPEER is there since Linux 4.13.
    pub fn open(devpts: impl AsFd, size: WindowSize, user: &User) -> Result<Self> {
        let context = || "cannot make the container's terminal".to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let master = rustix::fs::openat(&devpts, "ptmx", flags, Mode::empty()).context(context)?;
        let slave = match peer(&master) {
            // Kernels before 4.13.
            Err(error)
                if [libc::ENOTTY, libc::EINVAL].map(Some).contains(&error.raw_os_error()) =>
            {
                by_number(&devpts, &master)
            }
            slave => slave,
        };
        let slave = slave.context(context)?;
        rustix::fs::fchown(&slave, Some(user.uid), None).context(context)?;
        size.set_on(&slave);
        Ok(Self { master, slave })
    }
}

/// `TIOCSPTLCK` and `TIOCGPTPEER` of `asm-generic/ioctls.h`.
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGPTPEER: u32 = 0x5441;
const TIOCGPTN: u32 = 0x8004_5430;

/// Unlocks the pseudoterminal of `master`, and opens its other end.
fn peer(master: &OwnedFd) -> std::io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the kernel reads one number, and gives a descriptor that is nobody else's.
    unsafe {
        let master = master.as_raw_fd();
        if libc::ioctl(master, TIOCSPTLCK as _, &raw const unlocked) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        match libc::ioctl(master, TIOCGPTPEER as _, flags) {
            -1 => Err(std::io::Error::last_os_error()),
            slave => Ok(OwnedFd::from_raw_fd(slave)),
        }
    }
}

/// Opens the other end of `master` by its number in `devpts`, where only the kernel makes names.
fn by_number(devpts: impl AsFd, master: &OwnedFd) -> std::io::Result<OwnedFd> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes one number.
    if unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTN as _, &raw mut number) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(devpts, number.to_string(), flags, Mode::empty())?)
}

/// Makes `slave` the controlling terminal of this process, a session leader, and its stdin, stdout
/// and stderr.
///
/// # Errors
/// Those of ioctl_tty(2) and dup2(2).
pub fn take(slave: &OwnedFd) -> Result<()> {
    let context = || "cannot enter the container's terminal".to_owned();
    rustix::process::ioctl_tiocsctty(slave).context(context)?;
    for number in 0..3 {
        // SAFETY: replaces what std takes for stdin, stdout and stderr by an open descriptor.
        if unsafe { libc::dup2(slave.as_raw_fd(), number) } < 0 {
            return Err(std::io::Error::last_os_error()).context(context);
        }
    }
    Ok(())
}
