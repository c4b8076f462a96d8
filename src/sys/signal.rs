//! Signals, taken one by one by a loop instead of by handlers that run at any moment.
//! Start at [`Signals::take_over`]. See sigwaitinfo(2), signal(7).

use crate::error::{Because, Result};
use std::time::Duration;

/// All signals of this process, blocked and waiting for [`Signals::next`].
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

/// A signal that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// Whether the kernel itself sent it, as a terminal does on Ctrl-C to every process of its
    /// foreground group.
    pub from_kernel: bool,
}

/// Faults of the program itself: to block them would only hide where it crashed.
const FAULTS: [i32; 7] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

impl Signals {
    /// Blocks every signal that can be passed on, from now on. `except`
    /// keep what they do.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over(except: &[i32]) -> Result<Self> {
        let mut set = empty_set();
        let mut before = empty_set();
        // SAFETY: the sets are initialised, and the calls write to nothing else.
        let answer = unsafe {
            libc::sigfillset(&raw mut set);
            for signal in FAULTS.iter().chain(except) {
                libc::sigdelset(&raw mut set, *signal);
            }
            // A caller that ignores it would have the kernel reap our children, and us wait for ever.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, &raw mut before)
        };
        if answer != 0 {
            return Err(std::io::Error::last_os_error()).because(|| "cannot block signals".into());
        }
        Ok(Self { set, before })
    }

    /// Waits for the next signal; `None` when none came within `patience`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn next(&self, patience: Option<Duration>) -> Result<Option<Arrived>> {
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
                return Ok(Some(Arrived { number, from_kernel }));
            }
            let error = std::io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Ok(None),
                _ => return Err(error).because(|| "cannot wait for signals".into()),
            }
        }
    }

    /// The mask that was there before, for a child.
    #[must_use]
    pub fn mask_before(&self) -> Mask {
        Mask(self.before)
    }
}

/// Which signals a process has blocked.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    /// Blocks these and no others in this process.
    pub fn restore(&self) {
        // SAFETY: the set was filled by the kernel in `take_over`.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: all-zero is a valid `sigset_t`, and sigemptyset makes it an empty one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        set
    }
}
