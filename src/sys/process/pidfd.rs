//! Processes that signals are sent to: by a pidfd (pidfd_open(2), Linux 5.3), which stands for the
//! process itself, whoever gets its number next.

use crate::sys::fs::read::read_proc;
use crate::sys::proc::stat::Stat;
use crate::sys::process::{ProcessId, WaitStatus, is_readable, wait_for_forked};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::process::PidfdFlags;

/// A process that signals are sent to.
#[derive(Debug)]
pub struct Process {
    pid: ProcessId,
    /// Time of its start: with the number, it tells processes apart where there is no handle. None
    /// for a process that had ended when it was looked for.
    started: Option<u64>,
    handle: Option<OwnedFd>,
}

impl Process {
    /// The process that has the number `pid` now: one that cannot end unseen, such as a child that
    /// was not waited for, or one whose identity is proved afterwards.
    #[must_use]
    pub fn from_pid(pid: ProcessId) -> Self {
        Self::open(pid).0
    }

    /// The child of `parent` that has the number `pid`; if another process has that number by now, a
    /// process that has ended. `parent` must not have been waited for.
    #[must_use]
    pub fn child_of(pid: ProcessId, parent: ProcessId) -> Self {
        let (found, stat) = Self::open(pid);
        // Looked at after the handle was made: either the answer is of the same process, or that has
        // ended.
        match stat.is_some_and(|stat| stat.parent == parent.number()) {
            true => found,
            false => found.gone(),
        }
    }

    /// A process that has ended and had the same number.
    #[must_use]
    pub fn gone(self) -> Self {
        Self { started: None, handle: None, ..self }
    }

    /// The process behind a pidfd that the kernel handed out.
    #[must_use]
    pub fn from_pidfd(pid: ProcessId, handle: OwnedFd) -> Self {
        Self {
            pid,
            started: Stat::read(pid.number()).map(|stat| stat.started),
            handle: Some(handle),
        }
    }

    fn open(pid: ProcessId) -> (Self, Option<Stat>) {
        let handle = rustix::process::pidfd_open(pid.as_pid(), PidfdFlags::empty()).ok();
        let stat = Stat::read(pid.number());
        (Self { pid, started: stat.as_ref().map(|stat| stat.started), handle }, stat)
    }

    /// Descriptor that is readable when the process has ended, where the kernel has such.
    #[must_use]
    pub fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// Whether it has ended; its parent need not have waited for it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match &self.handle {
            Some(handle) => is_readable(handle).unwrap_or(true),
            None => self.stat().is_none_or(|stat| stat.is_zombie()),
        }
    }

    /// Whether it has ended, or begun to: then it has left its cgroups already.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.has_ended() || self.stat().is_none_or(|stat| stat.is_exiting())
    }

    /// The number that it has or had.
    #[must_use]
    pub fn pid(&self) -> ProcessId {
        self.pid
    }

    /// Whether both are the same process.
    pub(in crate::sys) fn is(&self, other: &Self) -> bool {
        self.pid == other.pid && self.started.is_some() && self.started == other.started
    }

    /// State of the process as long as it has its number.
    pub(in crate::sys) fn stat(&self) -> Option<Stat> {
        let stat = Stat::read(self.pid.number())?;
        (Some(stat.started) == self.started).then_some(stat)
    }

    /// How it ended, if its parent is not told because of a tracer that does not wait: that of a zombie,
    /// or of one in its PID namespace, which the first process there waits for as it ends.
    #[must_use]
    pub fn unreported_status(&self) -> Option<WaitStatus> {
        let stat = self.stat()?;
        let is_held = match stat.is_zombie() {
            true => is_traced(&read_proc(format!("/proc/{}/status", self.pid)).ok()?),
            false => waits_at_its_end(self.pid),
        };
        stat.exit_status.filter(|_| is_held).map(WaitStatus::of_status)
    }

    /// How it ended, after its parent has waited for it. See PIDFD_GET_INFO in the kernel's `pidfd.h`;
    /// Linux 6.15.
    #[must_use]
    pub fn reported_status(&self) -> Option<WaitStatus> {
        // Of 64 bytes: what is asked for or known, eight numbers that are not looked at, and the status.
        let mut info = [PIDFD_INFO_EXIT, 0, 0, 0, 0, 0, 0, 0];
        let handle = self.handle.as_ref()?.as_raw_fd();
        // SAFETY: the kernel reads and writes as many bytes as the number of the request says.
        let answer = unsafe { libc::ioctl(handle, PIDFD_GET_INFO as _, info.as_mut_ptr()) };
        let [known, .., last] = info;
        // The last one of sixteen numbers of 32 bits.
        let [.., a, b, c, d] = last.to_ne_bytes();
        let is_known = answer == 0 && known & PIDFD_INFO_EXIT != 0;
        is_known.then(|| WaitStatus::of_status(i32::from_ne_bytes([a, b, c, d])))
    }

    /// Sends signal `number`. A process that has just ended is not an error.
    pub fn send(&self, number: i32) {
        match &self.handle {
            // SAFETY: passes numbers, and no further information.
            Some(handle) => unsafe {
                let handle = handle.as_raw_fd();
                libc::syscall(libc::SYS_pidfd_send_signal, handle, number, 0usize, 0u32);
            },
            None if self.has_ended() => {}
            // A child keeps its number until it was waited for, which nobody does meanwhile.
            None if self
                .stat()
                .is_some_and(|stat| stat.parent == ProcessId::current().number()) =>
            {
                // SAFETY: passes numbers.
                unsafe { libc::kill(self.pid.number(), number) };
            }
            None => self.send_traced(number),
        }
    }

    /// Sends signal `number` by the number of the process, where there are no pidfds: while it is
    /// traced, nobody else can get that. The tracer is a child that ends at once, and the kernel lets
    /// the process go with that. See PTRACE_SEIZE of ptrace(2), Linux 3.4.
    fn send_traced(&self, number: i32) {
        // SAFETY: this program has one thread, and the child makes a few system calls.
        match unsafe { libc::fork() } {
            // SAFETY: passes numbers, and ends the child at once.
            0 => unsafe {
                let seized =
                    libc::ptrace(libc::PTRACE_SEIZE, self.pid.number(), 0usize, 0usize) == 0;
                if seized && self.stat().is_some() {
                    libc::kill(self.pid.number(), number);
                }
                libc::_exit(0)
            },
            child => wait_for_forked(child),
        }
    }
}

/// Request with 64 bytes, and the bit that stands for the status.
const PIDFD_GET_INFO: u32 = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Whether all threads of a process have ended but for those that have begun to, and wait.
fn waits_at_its_end(pid: ProcessId) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = threads.filter_map(|thread| Stat::read_from(thread.path().join("stat")));
    stats.all(|stat| stat.is_exiting() && matches!(stat.state, 'S' | 'Z' | 'X'))
}

/// Whether a process is traced, from the text of `/proc/<pid>/status`.
fn is_traced(status: &str) -> bool {
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracer_is_found_in_the_status() {
        assert!(is_traced("State:\tZ\nTracerPid:\t12\n") && !is_traced("TracerPid:\t0\n"));
    }

    #[test]
    fn a_number_alone_is_not_a_process() {
        let own = Process::from_pid(ProcessId::current());
        assert!(own.is(&Process::from_pid(ProcessId::current())) && !own.has_ended());
        // Not a child of itself.
        let nobody = Process::child_of(ProcessId::current(), ProcessId::current());
        assert!(nobody.has_ended() && !nobody.is(&own) && nobody.handle().is_none());
    }
}
