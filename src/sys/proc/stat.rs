//! `/proc/<pid>/stat`: state of a process. See proc_pid_stat(5).

use crate::sys::fs::read;
use std::path::Path;

/// Fields of the status of a process or a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3, a letter: `R` is running, `S` sleeping, `Z` zombie, `X` dead.
    pub state: char,
    /// Field 4, the PID of the parent.
    pub parent: i32,
    /// Field 9, the kernel's flags.
    flags: u32,
    /// Field 20, the number of threads.
    threads: u32,
    /// Field 22, the time of the start, in clock ticks since boot.
    pub started: u64,
    /// Field 52, the status as waitpid(2) gives it; since Linux 3.5.
    pub exit_status: Option<i32>,
}

/// `PF_EXITING` of the kernel's `sched.h`.
const EXITING: u32 = 4;

impl Stat {
    /// Reads the status of the process that has the number `pid` now; `None` if there is none.
    #[must_use]
    pub fn read(pid: i32) -> Option<Self> {
        Self::read_from(format!("/proc/{pid}/stat"))
    }

    /// Reads a file `stat` of a process or of one of its threads.
    #[must_use]
    pub fn read_from(path: impl AsRef<Path>) -> Option<Self> {
        Self::parse(&read::read_proc(path).ok()?)
    }

    /// Parses the fields behind the name, which stands in parentheses and may hold any letter.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next()?.chars().next()?, fields.next()?.parse().ok()?);
        let flags = fields.nth(4)?.parse().ok()?;
        let threads = fields.nth(10)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        let exit_status = fields.nth(29).and_then(|status| status.parse().ok());
        Some(Self { state, parent, flags, threads, started, exit_status })
    }

    /// Tells whether all threads have ended. If only the first one has, its state is `Z` too.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }

    /// Tells whether the process, or this thread of it, has begun to end.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.flags & EXITING != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let fields = |state: char, threads: u32| {
            let zeroes = "0 ".repeat(29);
            format!("{state} 5 7 7 0 -1 68 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 {zeroes} 768 7")
        };
        for (name, state, threads, is_zombie) in
            [("7 (sh)", 'S', 1, false), ("7 (a) S 1 (b))", 'Z', 1, true), ("7 ()", 'Z', 2, false)]
        {
            let text = format!("{name} {}", fields(state, threads));
            let found = Stat::parse(&text).unwrap();
            let (parent, flags, started, exit_status) = (5, 68, 99, Some(768));
            let expected = Stat { state, parent, flags, threads, started, exit_status };
            assert_eq!((&found, found.is_zombie()), (&expected, is_zombie), "{text}");
            assert!(found.is_exiting());
        }
        for text in ["7 (sh", "7 (sh) S", "7 (sh) S 5 7", ""] {
            assert_eq!(Stat::parse(text), None, "{text}");
        }
    }
}
