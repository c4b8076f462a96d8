//! Handles of processes: a pidfd (pidfd_open(2), Linux 5.3), which refers to the process itself even
//! after another process got its PID.

use crate::sys::fs::read::read_proc;
use crate::sys::proc::stat::Stat;
use crate::sys::process::{ProcessId, WaitStatus, is_readable, wait_for_forked};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::process::PidfdFlags;

/// A process, by its pidfd where the kernel has such, else by PID and time of start.
#[derive(Debug)]
pub struct Process {
    pid: ProcessId,
    /// Time of the start, in clock ticks since boot: with the PID, it identifies a process where there
    /// is no pidfd. `None` for a process that had ended already.
    started: Option<u64>,
    handle: Option<OwnedFd>,
}

impl Process {
    /// Opens the process that has the PID `pid` now. It must be a child that was not waited for, or its
    /// identity must be proved afterwards.
    #[must_use]
    pub fn from_pid(pid: ProcessId) -> Self {
        Self::open(pid).0
    }

    /// Opens the child of `parent` that has the PID `pid`; if another process has that PID by now, the
    /// result is a process that has ended. `parent` must not have been waited for.
    #[must_use]
    pub fn child_of(pid: ProcessId, parent: ProcessId) -> Self {
        let (found, stat) = Self::open(pid);
        // Read after the pidfd was opened: it is of the same process, or that has ended.
        let is_child = stat.is_some_and(|stat| stat.parent == parent.number());
        if is_child { found } else { found.into_ended() }
    }

    /// Converts it to a process with the same PID that has ended.
    #[must_use]
    pub fn into_ended(self) -> Self {
        Self { started: None, handle: None, ..self }
    }

    /// Takes a pidfd that the kernel handed out.
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

    /// Returns the pidfd, which is readable once the process has ended; `None` before Linux 5.3.
    #[must_use]
    pub fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// Tells whether it has ended, be it waited for or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match &self.handle {
            Some(handle) => is_readable(handle).unwrap_or(true),
            None => self.stat().is_none_or(|stat| stat.is_zombie()),
        }
    }

    /// Tells whether it has ended or begun to: then it may have left its cgroups.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.has_ended() || self.stat().is_none_or(|stat| stat.is_exiting())
    }

    /// Returns the PID that it has or had.
    #[must_use]
    pub fn pid(&self) -> ProcessId {
        self.pid
    }

    /// Tells whether both are the same process.
    pub(in crate::sys) fn is(&self, other: &Self) -> bool {
        self.pid == other.pid && self.started.is_some() && self.started == other.started
    }

    /// Reads its status; `None` once it was waited for.
    pub(in crate::sys) fn stat(&self) -> Option<Stat> {
        let stat = Stat::read(self.pid.number())?;
        (Some(stat.started) == self.started).then_some(stat)
    }

    /// Returns how it ended, if a tracer that does not wait keeps the kernel from telling the parent. The
    /// tracer may be that of the zombie itself, or of another process in its PID namespace, for whose
    /// end the first process of the namespace waits.
    #[must_use]
    pub fn unreported_status(&self) -> Option<WaitStatus> {
        let stat = self.stat()?;
        let is_held = if stat.is_zombie() {
            is_traced(&read_proc(format!("/proc/{}/status", self.pid)).ok()?)
        } else {
            waits_at_its_end(self.pid)
        };
        stat.exit_status.filter(|_| is_held).map(WaitStatus::from_raw)
    }

    /// Returns how it ended, after its parent has waited for it. See PIDFD_GET_INFO of the kernel's
    /// `pidfd.h`; Linux 6.15.
    #[must_use]
    pub fn reported_status(&self) -> Option<WaitStatus> {
        // struct pidfd_info, 64 bytes: the mask comes first, exit_code last.
        let mut info = [PIDFD_INFO_EXIT, 0, 0, 0, 0, 0, 0, 0];
        let handle = self.handle.as_ref()?.as_raw_fd();
        // SAFETY: the kernel reads and writes as many bytes as the number of the request says.
        let answer = unsafe { libc::ioctl(handle, PIDFD_GET_INFO as _, info.as_mut_ptr()) };
        let [known, .., last] = info;
        let [.., a, b, c, d] = last.to_ne_bytes();
        let is_known = answer == 0 && known & PIDFD_INFO_EXIT != 0;
        is_known.then(|| WaitStatus::from_raw(i32::from_ne_bytes([a, b, c, d])))
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
            // A child keeps its PID until this process, which has one thread, waits for it.
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

    /// Sends signal `number` by PID, where there are no pidfds: a traced process keeps its PID. The tracer
    /// is a child that ends at once, with which the kernel detaches it. See PTRACE_SEIZE of ptrace(2),
    /// Linux 3.4.
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

/// Request with 64 bytes, and the bit of the exit status in its mask.
const PIDFD_GET_INFO: u32 = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Tells whether all threads of a process have begun to end, and wait or have ended.
fn waits_at_its_end(pid: ProcessId) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = threads.filter_map(|thread| Stat::read_from(thread.path().join("stat")));
    stats.all(|stat| stat.is_exiting() && matches!(stat.state, 'S' | 'Z' | 'X'))
}

/// Tells whether a process is traced, from the text of `/proc/<pid>/status`.
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
