//! Process IDs.

use crate::error::{Error, Result};
use rustix::process::Pid;
use std::fmt;
use std::process::Child;
use std::str::FromStr;

/// A process ID (`pid_t`), above 0. The kernel gives it to another process once its own was waited
/// for: [`Process`](crate::sys::process::pidfd::Process) tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId(Pid);

impl ProcessId {
    /// PID of this process.
    #[must_use]
    pub fn current() -> Self {
        Self(rustix::process::getpid())
    }

    /// PID of the parent; `None` if that is in another PID namespace.
    #[must_use]
    pub fn parent() -> Option<Self> {
        rustix::process::getppid().map(Self)
    }

    /// Converts a number; `None` if it is not above 0.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        if number > 0 { Pid::from_raw(number).map(Self) } else { None }
    }

    /// PID of a child.
    #[must_use]
    pub fn from_child(child: &Child) -> Self {
        Self(Pid::from_child(child))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    pub(in crate::sys) fn as_pid(self) -> Pid {
        self.0
    }
}

impl From<Pid> for ProcessId {
    fn from(pid: Pid) -> Self {
        Self(pid)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl FromStr for ProcessId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.parse().ok().and_then(Self::new);
        number.ok_or_else(|| Error::new(format!("invalid process ID '{text}'")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_above_0_are_process_ids() {
        assert_eq!("7".parse::<ProcessId>().unwrap().to_string(), "7");
        assert_eq!(ProcessId::current().number().unsigned_abs(), std::process::id());
        for text in ["", "0", "-1", "2147483648", "self", "7 "] {
            assert!(text.parse::<ProcessId>().is_err(), "{text}");
        }
    }
}
