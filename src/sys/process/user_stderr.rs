//! The user's stderr, for hooks: that of the OCI runtime, their parent. Of what a hook writes to its own
//! stderr, runtimes show some if the hook fails, or nothing.

use crate::sys::fs::FileId;
use crate::sys::process::ProcessId;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// Destination of messages: the user, and the OCI runtime.
#[derive(Debug)]
pub struct UserStderr {
    /// The stderr that the runtime gave this process, if stderr is the runtime's own now.
    own: Option<OwnedFd>,
}

impl UserStderr {
    /// Replaces stderr by the parent's, by pidfd_getfd(2) (Linux 5.6); else stderr stays. `engine` names
    /// another descriptor of the parent, as `/proc/<parent>/fd/<number>`.
    ///
    /// The descriptor is the same, with the user's access: opening it anew by `/proc` would use root's
    /// rights. It is the parent's and no other process's, whatever an annotation says.
    #[must_use]
    pub fn from_parent(engine: Option<&str>) -> Self {
        let number = ProcessId::parent().and_then(|parent| number(engine?, parent));
        let own = switch(number.unwrap_or(2));
        // The engine shows it already.
        Self { own: own.filter(|_| number.is_none()) }
    }

    /// Writes `text` to the stderr that the runtime gave this process too: the runtime reports that.
    pub fn tell_runtime(&self, text: &str) {
        if let Some(own) = &self.own {
            // A runtime that does not read is not an error.
            rustix::io::write(own, text.as_bytes()).ok();
        }
    }
}

/// Returns the descriptor that `path` names, if it is one of `parent`.
fn number(path: &str, parent: ProcessId) -> Option<RawFd> {
    let (pid, fd) = path.strip_prefix("/proc/")?.split_once("/fd/")?;
    (pid.parse::<ProcessId>().ok() == Some(parent)).then(|| fd.parse().ok())?
}

/// Replaces stderr by descriptor `number` of the parent; returns the former one if they differ.
fn switch(number: RawFd) -> Option<OwnedFd> {
    let pid = ProcessId::parent()?;
    let parent = rustix::process::pidfd_open(pid.as_pid(), PidfdFlags::empty()).ok()?;
    // The parent may have ended in between, and its PID be another's.
    ProcessId::parent().filter(|now| *now == pid)?;
    let theirs = rustix::process::pidfd_getfd(parent, number, PidfdGetfdFlags::empty()).ok()?;
    let stderr = std::io::stderr();
    if FileId::from_fd(&theirs).ok()? == FileId::from_fd(&stderr).ok()? {
        return None;
    }
    let own = rustix::io::fcntl_dupfd_cloexec(&stderr, 3).ok()?;
    // SAFETY: only the standard library uses descriptor 2, and by its number.
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
