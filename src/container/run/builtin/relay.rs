//! Copies between the caller's terminal and the container's, in a child of the stub that has the IDs of
//! the user: where the caller's stdout leads to a file of the kernel's, the rights of the process that
//! writes count.

use crate::container::plan::Plan;
use crate::error::{Context, Result};
use crate::sys::process::container_child::fork_as_user;
use crate::sys::process::{self, ProcessId};
use crate::sys::terminal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::io::{PipeReader, PipeWriter};
use std::time::Duration;

/// Size of the buffer for each direction, in bytes.
const CHUNK: usize = 4096;

/// Pause before another attempt to read from a terminal that another process group has now, or that no
/// process of the container has open.
const PAUSE: Duration = Duration::from_millis(20);

/// The process that copies.
pub struct Relay {
    child: ProcessId,
    /// End of file tells the child that the program has ended.
    program: PipeWriter,
}

impl Relay {
    /// Makes the caller's terminal raw, and starts to copy between it and `master`.
    ///
    /// # Errors
    /// Those of pipe(2) and fork(2).
    pub fn start(master: OwnedFd, plan: &Plan) -> Result<Self> {
        let (ended, program) = std::io::pipe().context(|| "cannot make a pipe".into())?;
        let keep = [master.as_raw_fd(), ended.as_raw_fd()];
        let work = || Copy::new(&master, &ended).run();
        let child = fork_as_user(&plan.user, &plan.process.limits, &keep, work)?;
        Ok(Self { child, program })
    }

    /// Waits until the output of the program, which has ended, is written.
    pub fn finish(self) {
        drop(self.program);
        process::wait(self.child);
    }
}

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

    fn discard(&mut self) {
        self.range = 0..0;
    }

    /// Reads the next bytes; the number of them, 0 at the end of file.
    fn fill(&mut self, from: impl AsFd) -> rustix::io::Result<usize> {
        let count = rustix::io::read(from, &mut self.bytes)?;
        self.range = 0..count;
        Ok(count)
    }

    /// Writes as many bytes as the file takes; false if it takes none any more.
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

/// State of the copy.
struct Copy<'a> {
    master: &'a OwnedFd,
    /// Readable when the program has ended.
    ended: &'a PipeReader,
    input: Pending,
    output: Pending,
    has_input: bool,
    has_output: bool,
}

/// Descriptors that are ready.
#[derive(Default)]
struct Ready {
    ended: bool,
    input: bool,
    master: bool,
    output: bool,
}

impl<'a> Copy<'a> {
    fn new(master: &'a OwnedFd, ended: &'a PipeReader) -> Self {
        let (input, output) = (Pending::new(), Pending::new());
        Self { master, ended, input, output, has_input: true, has_output: true }
    }

    /// Copies until the program has ended and its output is written.
    fn run(mut self) {
        terminal::make_raw(terminal::stdin());
        // The program may not read while it writes: neither direction may wait for the other.
        rustix::io::ioctl_fionbio(self.master, true).ok();
        let mut has_ended = false;
        loop {
            let ready = self.wait(has_ended);
            if ready.input {
                self.read_input();
            }
            if !self.input.is_empty() && !self.input.drain(self.master) {
                self.input.discard();
            }
            let closed = ready.master && self.output.is_empty() && !self.read_output(has_ended);
            if ready.output {
                self.has_output = self.output.drain(terminal::stdout());
            }
            if !self.has_output {
                self.output.discard();
            }
            // What the program wrote before its end is there at the first look after that.
            if has_ended && self.output.is_empty() && (closed || !ready.master) {
                return;
            }
            has_ended |= ready.ended;
        }
    }

    fn read_input(&mut self) {
        match self.input.fill(terminal::stdin()) {
            Ok(0) => self.has_input = false,
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            // Another process group has the terminal for the moment: tty_ioctl(4), job control.
            Err(Errno::IO) => std::thread::sleep(PAUSE),
            Err(_) => self.has_input = false,
        }
    }

    /// Reads output of the program; false if no process has the container's terminal open.
    fn read_output(&mut self, has_ended: bool) -> bool {
        match self.output.fill(self.master) {
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => true,
            Ok(0) | Err(_) => {
                if !has_ended {
                    // A process may open it again.
                    std::thread::sleep(PAUSE);
                }
                false
            }
        }
    }

    /// Waits until something can be read or written; after the end of the program only looks.
    fn wait(&self, has_ended: bool) -> Ready {
        let (stdin, stdout) = (terminal::stdin(), terminal::stdout());
        let flag = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let wants_input = self.has_input && self.input.is_empty();
        let wants_output = !self.output.is_empty();
        let of_master =
            flag(!wants_output, PollFlags::IN) | flag(!self.input.is_empty(), PollFlags::OUT);
        // poll(2) reports hang-ups of every descriptor that it is given.
        let mut files = vec![PollFd::new(self.master, of_master)];
        if !has_ended {
            files.push(PollFd::new(self.ended, PollFlags::IN));
        }
        if wants_input {
            files.push(PollFd::new(&stdin, PollFlags::IN));
        }
        if wants_output {
            files.push(PollFd::new(&stdout, PollFlags::OUT));
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let patience = (has_ended && !wants_output).then_some(&now);
        if poll(&mut files, patience).is_err() {
            return Ready::default();
        }
        let mut ready = files.iter().map(|file| !file.revents().is_empty());
        let mut next = |is_there: bool| is_there && ready.next().unwrap_or_default();
        Ready {
            master: next(true),
            ended: next(!has_ended),
            input: next(wants_input),
            output: next(wants_output),
        }
    }
}
