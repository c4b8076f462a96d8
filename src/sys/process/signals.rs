//! Signals that a loop takes one by one, instead of handlers that run at any moment. Start at
//! [`Signals::block`]. See sigwaitinfo(2), signal(7).

use crate::error::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::time::Duration;

/// Blocked signals of this process, which [`Signals::next`] takes.
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

/// A signal that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// Signal number.
    pub number: i32,
    /// True if the kernel sent it (SI_KERNEL), as a terminal does on Ctrl-C to its foreground group.
    pub from_kernel: bool,
}

/// Faults of the program itself, which stay unblocked so that it ends where it crashed.
const FAULTS: [i32; 7] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// Signals that nohup(1), and a shell without job control, make a program ignore.
const BACKGROUND: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];

impl Signals {
    /// Blocks every signal that can be passed on, but `except` and those of `BACKGROUND` that this
    /// process ignores.
    pub fn block(except: &[i32]) -> Result<Self> {
        let mut set = empty_set();
        let mut before = empty_set();
        // SAFETY: the sets are initialised, and the calls write to nothing else.
        let answer = unsafe {
            libc::sigfillset(&raw mut set);
            let ignored = BACKGROUND.iter().filter(|signal| is_ignored(**signal));
            for signal in FAULTS.iter().chain(except).chain(ignored) {
                libc::sigdelset(&raw mut set, *signal);
            }
            // If the caller ignores SIGCHLD, the kernel reaps the children itself.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, &raw mut before)
        };
        if answer != 0 {
            return Err(std::io::Error::last_os_error()).context(|| "cannot block signals".into());
        }
        Ok(Self { set, before })
    }

    /// Waits for the next signal; `None` if none came within `patience`.
    pub fn next(&self, patience: Option<Duration>) -> Result<Option<ReceivedSignal>> {
        loop {
            // SAFETY: all-zero is a valid `siginfo_t`, which the kernel fills.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let number = match patience {
                // SAFETY: the kernel reads one set and writes one siginfo.
                None => unsafe { libc::sigwaitinfo(&raw const self.set, &raw mut info) },
                Some(patience) => {
                    let time = libc::timespec {
                        tv_sec: patience.as_secs().try_into().unwrap_or_default(),
                        tv_nsec: patience.subsec_nanos().into(),
                    };
                    // SAFETY: as above, and it reads one timespec.
                    unsafe {
                        libc::sigtimedwait(&raw const self.set, &raw mut info, &raw const time)
                    }
                }
            };
            if number > 0 {
                let from_kernel = info.si_code == libc::SI_KERNEL;
                return Ok(Some(ReceivedSignal { number, from_kernel }));
            }
            let error = std::io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Ok(None),
                _ => return Err(error).context(|| "cannot wait for signals".into()),
            }
        }
    }

    /// Waits for the next signal as [`next`](Self::next) does, but not longer than until `file` is
    /// readable.
    pub fn next_unless(
        &self,
        file: impl AsFd,
        patience: Option<Duration>,
    ) -> Result<Option<ReceivedSignal>> {
        let context = || "cannot wait for signals".to_owned();
        // SAFETY: the kernel reads one set.
        let alarm = unsafe { libc::signalfd(-1, &raw const self.set, libc::SFD_CLOEXEC) };
        if alarm < 0 {
            return Err(std::io::Error::last_os_error()).context(context);
        }
        // SAFETY: the kernel has just made it, and nothing else knows it.
        let alarm = unsafe { OwnedFd::from_raw_fd(alarm) };
        let mut files = [PollFd::new(&alarm, PollFlags::IN), PollFd::new(&file, PollFlags::IN)];
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        match poll(&mut files, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => self.next(Some(Duration::ZERO)),
            Err(error) => Err(error).context(context),
        }
    }

    /// Tells whether one of `numbers`, which are blocked, is pending.
    #[must_use]
    pub fn is_pending(numbers: &[i32]) -> bool {
        let mut waiting = empty_set();
        // SAFETY: the kernel writes one set, and one is read.
        unsafe {
            libc::sigpending(&raw mut waiting);
            numbers.iter().any(|number| libc::sigismember(&raw const waiting, *number) == 1)
        }
    }

    /// Takes signal `number`, if it is pending.
    pub fn forget(number: i32) {
        let mut set = empty_set();
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel reads a set and a time.
        unsafe {
            libc::sigaddset(&raw mut set, number);
            libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now);
        }
    }

    /// Returns the signal mask from before, for a child.
    #[must_use]
    pub fn previous_mask(&self) -> Mask {
        Mask(self.before)
    }
}

/// Signal mask of a process.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    /// Sets it in this process.
    pub fn restore(&self) {
        // SAFETY: the kernel filled the set when it was replaced.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Blocks all signals but [`FAULTS`], and returns the mask from before.
pub(in crate::sys) fn block_all() -> std::io::Result<Mask> {
    let (mut set, mut before) = (empty_set(), empty_set());
    // SAFETY: the sets are initialised, and the calls write to nothing else.
    let answer = unsafe {
        libc::sigfillset(&raw mut set);
        for signal in FAULTS {
            libc::sigdelset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before)
    };
    if answer == 0 { Ok(Mask(before)) } else { Err(std::io::Error::last_os_error()) }
}

/// Unblocks all signals, as a program that is executed expects.
pub(in crate::sys) fn unblock_all() {
    let none = empty_set();
    // SAFETY: the kernel reads an empty set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

pub(in crate::sys) fn is_ignored(number: i32) -> bool {
    // SAFETY: all-zero is a valid `sigaction`, which the kernel fills.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

pub(in crate::sys) fn empty_set() -> libc::sigset_t {
    // SAFETY: all-zero is a valid `sigset_t`, and sigemptyset makes it an empty one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        set
    }
}
