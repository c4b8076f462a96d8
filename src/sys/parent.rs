//! The stderr of the OCI runtime that started a hook, which is the user's: runtimes read what a hook
//! writes to its own stderr, show it when the hook fails, or show it never.

use rustix::fd::{AsFd, OwnedFd, RawFd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// Where messages go: to the user, and to the runtime.
#[derive(Debug)]
pub struct Voice {
    /// The stderr that the runtime gave us, when we speak with another.
    own: Option<OwnedFd>,
}

impl Voice {
    /// Makes the parent's descriptor `stderr` ours, where the kernel lets us have it
    /// (pidfd_getfd(2), since Linux 5.6); else ours stays.
    ///
    /// It is the very descriptor, with the access that the user has: opening it anew, by `/proc`,
    /// would be done with root's rights.
    #[must_use]
    pub fn of_parent(stderr: RawFd) -> Self {
        Self { own: switch(stderr) }
    }

    /// Also tells the runtime, which makes it part of its own report.
    pub fn tell_runtime(&self, text: &str) {
        if let Some(own) = &self.own {
            // One that does not listen is no error.
            rustix::io::write(own, text.as_bytes()).ok();
        }
    }
}

/// The former stderr, if there is another now.
fn switch(stderr: RawFd) -> Option<OwnedFd> {
    let parent = rustix::process::getppid()?;
    let parent = rustix::process::pidfd_open(parent, PidfdFlags::empty()).ok()?;
    let theirs = rustix::process::pidfd_getfd(parent, stderr, PidfdGetfdFlags::empty()).ok()?;
    let ours = std::io::stderr();
    let identity = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).map(|s| (s.st_dev, s.st_ino));
    if identity(&theirs).ok()? == identity(&ours).ok()? {
        return None;
    }
    let own = rustix::io::fcntl_dupfd_cloexec(&ours, 3).ok()?;
    // SAFETY: descriptor 2 is nobody's but the standard library's, which names it by its number
    // only.
    let answer = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&theirs), 2) };
    (answer == 2).then_some(own)
}
