//! The stderr of the OCI runtime that started a hook, which is the user's: runtimes read what a hook
//! writes to its own stderr, show it when the hook fails, or show it never.

use crate::sys::fs::FileId;
use crate::sys::process::ProcessId;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// Where messages go: to the user, and to the runtime.
#[derive(Debug)]
pub struct UserStderr {
    /// The stderr that the runtime gave us, when we speak with another of its own.
    own: Option<OwnedFd>,
}

impl UserStderr {
    /// Makes the parent's stderr ours, where the kernel lets us have it (pidfd_getfd(2), since
    /// Linux 5.6); else ours stays. `engine` names the descriptor, `/proc/<parent>/fd/<number>`,
    /// where it is not the parent's own stderr.
    ///
    /// It is the very descriptor, with the access that the user has: opening it anew, by `/proc`,
    /// would be done with root's rights. And it is the parent's and no other process's, whatever an
    /// annotation says.
    #[must_use]
    pub fn from_parent(engine: Option<&str>) -> Self {
        let number = ProcessId::parent().and_then(|parent| number(engine?, parent));
        let own = switch(number.unwrap_or(2));
        // The engine's user need not hear it twice.
        Self { own: own.filter(|_| number.is_none()) }
    }

    /// Also tells the runtime, which makes it part of its own report, where nobody may hear us.
    pub fn tell_runtime(&self, text: &str) {
        if let Some(own) = &self.own {
            // One that does not listen is no error.
            rustix::io::write(own, text.as_bytes()).ok();
        }
    }
}

/// The descriptor that `path` names, if it is one of `parent`.
fn number(path: &str, parent: ProcessId) -> Option<RawFd> {
    let (pid, fd) = path.strip_prefix("/proc/")?.split_once("/fd/")?;
    (pid.parse::<ProcessId>().ok() == Some(parent)).then(|| fd.parse().ok())?
}

/// The former stderr, if there is another now.
fn switch(number: RawFd) -> Option<OwnedFd> {
    let pid = ProcessId::parent()?;
    let parent = rustix::process::pidfd_open(pid.as_pid(), PidfdFlags::empty()).ok()?;
    // It may have ended in between, and its number be another's.
    ProcessId::parent().filter(|now| *now == pid)?;
    let theirs = rustix::process::pidfd_getfd(parent, number, PidfdGetfdFlags::empty()).ok()?;
    let stderr = std::io::stderr();
    if FileId::from_fd(&theirs).ok()? == FileId::from_fd(&stderr).ok()? {
        return None;
    }
    let own = rustix::io::fcntl_dupfd_cloexec(&stderr, 3).ok()?;
    // SAFETY: descriptor 2 is nobody's but the standard library's, which names it by its number
    // only.
    let answer = unsafe { libc::dup2(theirs.as_raw_fd(), 2) };
    (answer == 2).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_parents_descriptors_are_taken() {
        let parent = ProcessId::new(7).unwrap();
        for (path, expected) in [
            ("/proc/7/fd/5", Some(5)),
            ("/proc/1/fd/5", None),
            ("/proc/7/fd/", None),
            ("/proc/7/fd/../../1/fd/2", None),
            ("/proc/self/fd/2", None),
            ("5", None),
        ] {
            assert_eq!(number(path, parent), expected, "{path}");
        }
    }
}
