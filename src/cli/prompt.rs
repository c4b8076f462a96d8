//! Prompts for user name and password, the latter without echo.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::error::{Context, Error, Result};
use crate::sys::process::signals::Signals;

/// Maximum length of a line in bytes. Tokens of some registries take a few KiB.
const MAX_LINE: usize = 16 << 10;

/// Interval of checks for signals while no input arrives.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Prompts on the terminal for a line, without echo if it is `secret`. If stdin is not a terminal, reads
/// its next line without a prompt.
///
/// # Errors
/// There is no line, or it is too long or not UTF-8.
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

/// Reads a line byte by byte, so that the rest of stdin stays unread. Calls `attend` while no input
/// arrives.
fn read_line(attend: impl Fn() -> Result<()>) -> Result<String> {
    let context = || "cannot read from stdin".to_owned();
    let stdin = std::io::stdin();
    let mut line = Vec::new();
    loop {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut ready, Some(&TICK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {
                attend()?;
                continue;
            }
            other => other.context(context)?,
        };
        let mut byte = [0];
        match rustix::io::read(stdin.as_fd(), &mut byte) {
            Ok(0) if line.is_empty() => return Err(Error::new("end of file")).context(context),
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend(byte),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context(context),
        }
        if line.len() > MAX_LINE {
            return Err(Error::new(format!("the line is longer than {MAX_LINE} bytes")))
                .context(context);
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| Error::new("not valid UTF-8")).context(context)
}

/// A prompt on the terminal. Blocks all signals until the echo is restored.
struct Hidden<'a> {
    prompt: &'a str,
    before: Option<Termios>,
    signals: Signals,
}

impl<'a> Hidden<'a> {
    fn begin(prompt: &'a str, secret: bool) -> Result<Self> {
        let context = || "cannot turn off the echo of the terminal".to_owned();
        // Before the echo is turned off: a signal in between would leave it off.
        let signals = Signals::block(&[])?;
        let before = secret.then(|| tcgetattr(std::io::stdin())).transpose().context(context)?;
        let hidden = Self { prompt, before, signals };
        hidden.show().context(context)?;
        Ok(hidden)
    }

    fn show(&self) -> rustix::io::Result<()> {
        if let Some(before) = &self.before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            quiet.local_modes.insert(LocalModes::ECHONL);
            tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet)?;
        }
        // Without stderr the user may still type.
        std::io::stderr().write_all(self.prompt.as_bytes()).ok();
        Ok(())
    }

    fn restore(&self) {
        if let Some(before) = &self.before {
            tcsetattr(std::io::stdin(), OptionalActions::Now, before).ok();
        }
    }

    /// Restores the terminal and raises a signal that has arrived. Prompts again if the process goes on,
    /// as after Ctrl-Z and `fg`.
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
