//! Inherited file descriptors: closed, kept, or moved to the numbers that a container expects.

use crate::error::{Context, Result};
use rustix::fd::{FromRawFd, OwnedFd, RawFd};

/// Closes every descriptor above 2, except those of `keep`. This process must not use what is closed: it
/// calls this before it opens anything, or when it gives up its rights.
///
/// # Errors
/// If the kernel has neither close_range(2) nor `/proc/self/fd`.
pub fn close_descriptors(keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.retain(|fd| *fd > 2);
    keep.sort_unstable();
    let mut first = 3;
    for end in keep.iter().copied().chain([u32::MAX]) {
        // SAFETY: the caller promises not to use what is closed.
        if first < end && unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) } != 0 {
            return close_one_by_one(&keep);
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

/// Serves before Linux 5.9.
fn close_one_by_one(keep: &[u32]) -> Result<()> {
    let open: Vec<u32> = std::fs::read_dir("/proc/self/fd")
        .context(|| "cannot list the open descriptors".into())?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        // SAFETY: as above. The directory's own descriptor is closed already, and refused.
        unsafe { libc::close(fd.cast_signed()) };
    }
    Ok(())
}

/// Tells whether `fd`, as a variable such as `PMI_FD` names it, is an open descriptor.
#[must_use]
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD changes nothing.
    fd >= 0 && unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1
}

/// Moves a descriptor that nothing in this program owns to the number `to`, which must be free, and
/// clears its close-on-exec flag.
pub fn move_descriptor(fd: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: nothing else in this program knows `fd` or `to`, as the caller promises.
    let answer = unsafe {
        if fd == to {
            libc::fcntl(fd, libc::F_SETFD, 0)
        } else {
            libc::dup2(fd, to).min(libc::close(fd))
        }
    };
    if answer < 0 {
        return Err(std::io::Error::last_os_error())
            .context(|| format!("cannot keep descriptor {fd}"));
    }
    Ok(())
}

/// Takes ownership of the inherited descriptor `number`, and sets its close-on-exec flag.
///
/// # Errors
/// `EBADF` if it is not open, or not above 2.
pub fn take(number: RawFd) -> std::io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and was inherited for this: it belongs to nothing else in this program.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Copies stdin, stdout and stderr to the three numbers from `first` on, which must be free. Children
/// inherit them: an OCI runtime hands the copies on untouched, and replaces its own three.
///
/// # Errors
/// If one of the numbers is taken, or too large for this process.
pub fn copy_streams(first: RawFd) -> Result<()> {
    for number in 0..3 {
        // SAFETY: takes numbers; std opened /dev/null where the caller closed one of the three.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD, first + number) };
        if copy != first + number {
            let why = if copy < 0 { last_error() } else { std::io::ErrorKind::ResourceBusy.into() };
            return Err(why).context(|| format!("cannot hand on descriptor {number}"));
        }
    }
    Ok(())
}

/// Moves the three descriptors from `first` on to stdin, stdout and stderr: undoes [`copy_streams`].
///
/// # Errors
/// If one of them is not open.
pub fn take_streams(first: RawFd) -> Result<()> {
    for number in 0..3 {
        // SAFETY: these were inherited for this, and belong to nothing in this program.
        let answer = unsafe {
            let answer = libc::dup2(first + number, number);
            libc::close(first + number);
            answer
        };
        if answer < 0 {
            return Err(last_error()).context(|| format!("cannot take descriptor {number}"));
        }
    }
    Ok(())
}

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}
