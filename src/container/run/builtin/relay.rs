//! Copies between the caller's terminal and the container's, in the stub, until the program ends.

use crate::sys::process::ProcessId;
use crate::sys::process::pidfd::Process;
use crate::sys::terminal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// Bytes that are on their way in one direction.
const CHUNK: usize = 4096;

/// Pause between two looks for a program that opens its terminal again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Time between two looks at the program where the kernel has no pidfds (before 5.3).
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Bytes that were read and not yet written.
struct Pending {
    bytes: [u8; CHUNK],
    range: std::ops::Range<usize>,
}

impl Pending {
    fn new() -> Self {
        Self { bytes: [0; CHUNK], range: 0..0 }
    }

    fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Reads more; false at the end.
    fn fill(&mut self, from: impl AsFd) -> bool {
        match rustix::io::read(from, &mut self.bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.range = 0..count;
                true
            }
            Err(errno) => matches!(errno, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Writes what it can; false if nobody reads any more.
    fn drain(&mut self, to: impl AsFd) -> bool {
        let bytes = self.bytes.get(self.range.clone()).unwrap_or_default();
        match rustix::io::write(to, bytes) {
            Ok(count) => {
                self.range.start += count;
                true
            }
            Err(errno) => matches!(errno, Errno::AGAIN | Errno::INTR),
        }
    }
}

/// Makes the caller's terminal raw and copies between it and `master` until the process `program`, a
/// child, has ended and everything that it wrote is shown.
pub fn run(master: &OwnedFd, program: ProcessId) {
    let (stdin, stdout) = (terminal::stdin(), terminal::stdout());
    terminal::make_raw(stdin);
    // The program may not read while it writes: neither direction may wait for the other.
    rustix::io::ioctl_fionbio(master, true).ok();
    let program = Process::from_pid(program);
    let (mut typed, mut shown) = (Pending::new(), Pending::new());
    let (mut stdin_open, mut stdout_open) = (true, true);
    loop {
        let has_ended = program.has_ended();
        let ready = wait(&program, master, stdin, stdout, (&typed, &shown), stdin_open, has_ended);
        if ready.typed && typed.is_empty() {
            stdin_open = typed.fill(stdin);
        }
        if !typed.is_empty() && !typed.drain(master) {
            typed.range = 0..0;
        }
        let mut end = false;
        if shown.is_empty() && ready.master {
            end = !shown.fill(master);
        }
        if !shown.is_empty() && (!stdout_open || ready.stdout) {
            stdout_open = stdout_open && shown.drain(stdout);
            if !stdout_open {
                shown.range = 0..0;
            }
        }
        if end && !has_ended {
            // Nobody has the other end open, but somebody may open it again.
            std::thread::sleep(PAUSE);
        }
        // EIO: nobody has the other end open. After the program's end, what is still there is read.
        if has_ended && shown.is_empty() && (end || !ready.master) {
            return;
        }
    }
}

/// What can be done without waiting.
struct Ready {
    typed: bool,
    master: bool,
    stdout: bool,
}

fn wait(
    program: &Process,
    master: &OwnedFd,
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    (typed, shown): (&Pending, &Pending),
    stdin_open: bool,
    has_ended: bool,
) -> Ready {
    let flag = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
    let of_master = flag(shown.is_empty(), PollFlags::IN) | flag(!typed.is_empty(), PollFlags::OUT);
    let mut files = vec![
        PollFd::new(master, of_master),
        PollFd::from_borrowed_fd(stdout, flag(!shown.is_empty(), PollFlags::OUT)),
    ];
    if stdin_open && typed.is_empty() {
        files.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
    }
    let handle = program.handle().filter(|_| !has_ended);
    if let Some(handle) = &handle {
        files.push(PollFd::new(handle, PollFlags::IN));
    }
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let patience = match (has_ended, handle.is_some()) {
        (true, _) if shown.is_empty() => Some(&now),
        (_, false) => Some(&LOOK),
        _ => None,
    };
    if poll(&mut files, patience).is_err() {
        return Ready { typed: false, master: false, stdout: false };
    }
    let can = |at: usize| files.get(at).is_some_and(|file| !file.revents().is_empty());
    let has_stdin = stdin_open && typed.is_empty();
    Ready { master: can(0), stdout: can(1), typed: has_stdin && can(2) }
}
