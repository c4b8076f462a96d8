//! A process that stays as the parent of a daemon that a hook started in a container.
//!
//! The kernel gives children of a hook that has ended to the OCI runtime. runc waits for the
//! container's first process alone when a start fails, and that cannot end as long as there is
//! another of its PID namespace for which nobody has waited.

use std::io::PipeWriter;

use super::{descriptors, process};
use rustix::fd::AsRawFd;

/// What the process that stays is, and how it tells the other that all is well.
#[derive(Debug)]
pub struct Keeper {
    report: PipeWriter,
}

impl Keeper {
    /// Goes on in a child. This process ends when the child has called [`Keeper::stay`], or ended.
    ///
    /// # Errors
    /// When the kernel makes no child.
    pub fn go_on() -> std::io::Result<Self> {
        let (answer, report) = std::io::pipe()?;
        // SAFETY: this program has one thread, so the child may go on as it likes.
        let child = match unsafe { libc::fork() } {
            -1 => return Err(std::io::Error::last_os_error()),
            0 => return Ok(Self { report }),
            child => child.unsigned_abs(),
        };
        drop(report);
        let stays = rustix::io::read(&answer, &mut [0u8]) == Ok(1);
        if !stays {
            // It has said why.
            process::wait_for(child);
        }
        std::process::exit(i32::from(!stays))
    }

    /// Waits for the child `daemon` to end, with nothing open, and ends then. It stays root's, so
    /// that no user can signal it.
    pub fn stay(self, daemon: Option<u32>) -> ! {
        // What is left open by a kernel that does not close it harms nobody.
        descriptors::close_descriptors(Some(self.report.as_raw_fd())).ok();
        for stream in [0, 1, 2] {
            // SAFETY: nothing is written or read any more. Runtimes wait for these to close.
            unsafe { libc::close(stream) };
        }
        // The other may have been killed.
        rustix::io::write(&self.report, &[0]).ok();
        if let Some(daemon) = daemon {
            process::wait_for(daemon);
        }
        std::process::exit(0)
    }
}
