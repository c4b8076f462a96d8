//! Asking the user, with the echo off for what nobody shall see.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::error::{Context, Error, Result};
use crate::sys::process::signals::Signals;

/// Longest name or password: tokens of some registries take a few KiB.
const MAX_LINE: usize = 16 << 10;

/// How often signals are looked for while nobody types.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Asks on the terminal for a line, without showing what is typed if it is `secret`. Where stdin is
/// no terminal, the line is its next, and nothing is asked.
///
/// # Errors
/// When there is no line, or it is too long or no UTF-8.
pub fn ask(prompt: &str, secret: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        return read_line(|| Ok(()));
    }
    let hidden = Hidden::begin(prompt, secret)?;
    let line = read_line(|| hidden.attend());
    hidden.end();
    line
}

/// Reads byte by byte, so that what follows the line stays for others; calls `attend` while there
/// is nothing to read.
fn read_line(attend: impl Fn() -> Result<()>) -> Result<String> {
    let about = || "cannot read from stdin".to_owned();
    let stdin = std::io::stdin();
    let mut line = Vec::new();
    loop {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut ready, Some(&TICK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {
                attend()?;
                continue;
            }
            other => other.context(about)?,
        };
        let mut byte = [0];
        match rustix::io::read(stdin.as_fd(), &mut byte) {
            Ok(0) if line.is_empty() => return Err(Error::new("it ended")).context(about),
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend(byte),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context(about),
        }
        if line.len() > MAX_LINE {
            return Err(Error::new(format!("a line longer than {MAX_LINE} bytes"))).context(about);
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| Error::new("it is not UTF-8")).context(about)
}

/// A prompt that stands, with the echo as it should be and all signals held back until the echo is
/// as it was.
struct Hidden<'a> {
    prompt: &'a str,
    before: Option<Termios>,
    signals: Signals,
}

impl<'a> Hidden<'a> {
    fn begin(prompt: &'a str, secret: bool) -> Result<Self> {
        let about = || "cannot turn off the echo of the terminal".to_owned();
        // Before the echo is off, or a signal between the two would leave it so.
        let signals = Signals::block(&[])?;
        let before = match secret {
            true => Some(tcgetattr(std::io::stdin()).context(about)?),
            false => None,
        };
        let hidden = Self { prompt, before, signals };
        hidden.show().context(about)?;
        Ok(hidden)
    }

    fn show(&self) -> rustix::io::Result<()> {
        if let Some(before) = &self.before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            quiet.local_modes.insert(LocalModes::ECHONL);
            tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet)?;
        }
        // Without stderr nobody sees it, and whoever knows what to type still can.
        std::io::stderr().write_all(self.prompt.as_bytes()).ok();
        Ok(())
    }

    fn restore(&self) {
        if let Some(before) = &self.before {
            tcsetattr(std::io::stdin(), OptionalActions::Now, before).ok();
        }
    }

    /// Lets a signal that came do what it does, on a terminal that is as it was. If we are still
    /// here then, as after Ctrl-Z and `fg`, asks again.
    fn attend(&self) -> Result<()> {
        let Some(signal) = self.signals.next(Some(Duration::ZERO))? else { return Ok(()) };
        self.restore();
        self.signals.previous_mask().restore();
        crate::sys::process::raise(signal.number);
        Signals::block(&[])?;
        self.show().context(|| "cannot turn off the echo of the terminal".into())
    }

    fn end(self) {
        self.restore();
        self.signals.previous_mask().restore();
    }
}
