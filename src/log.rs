//! Messages of the program itself, in the manual's format:
//! `[<UNIX time>] [<host>-<pid>] [<subsystem>] [<LEVEL>] <text>`.
//!
//! They go to stderr: stdout belongs to what a command prints and to the container. Nothing here
//! panics; a closed stderr loses the message and nothing else.

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Severity of a message; the numbers are those of the annotation `com.hooks.logging.level`, which
/// hooks read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Details for developers, with `--debug`.
    Debug = 0,
    /// Progress, with `--verbose`.
    Info = 1,
    /// A possible problem; always shown.
    Warn = 2,
    /// A failure; always shown.
    Error = 3,
}

impl Level {
    /// Converts a number that hooks and `launch` are told; [`Level::Warn`] for any other.
    #[must_use]
    pub fn from_number(number: Option<u8>) -> Self {
        match number {
            Some(0) => Self::Debug,
            Some(1) => Self::Info,
            // 4 is the FATAL of the C++ engine (1.x).
            Some(3 | 4) => Self::Error,
            _ => Self::Warn,
        }
    }
}

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Warn as u8);

/// Shows messages of `level` and above from now on.
pub fn set_threshold(level: Level) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
}

/// The lowest level that is shown, as the number that hooks are told.
#[must_use]
pub fn threshold() -> u8 {
    THRESHOLD.load(Ordering::Relaxed)
}

/// Tells whether messages of `level` are shown.
#[must_use]
pub fn shows(level: Level) -> bool {
    level as u8 >= threshold()
}

/// Writes one message of `subsystem` if its level is shown.
pub fn write(level: Level, subsystem: &str, text: &str) {
    if !shows(level) {
        return;
    }
    let line = line(level, subsystem, text);
    // One write, so that lines of several ranks do not mix; a closed stderr is not our problem.
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// The message as it is printed, newline included.
#[must_use]
pub fn line(level: Level, subsystem: &str, text: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let pid = std::process::id();
    let level = match level {
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    };
    let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
    let text = printable(text, &[]);
    format!("[{seconds}.{nanoseconds:09}] [{host}-{pid}] [{subsystem}] [{level}] {text}\n")
}

/// Escapes control characters of `text` but those of `allowed`: untrusted text must neither control a
/// terminal nor forge a message.
#[must_use]
pub fn printable(text: &str, allowed: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() && !allowed.contains(&letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Text of a message: a string, or a closure that builds it if the message is shown.
pub trait Message {
    /// Builds the text.
    fn text(self) -> String;
}

impl Message for &str {
    fn text(self) -> String {
        self.to_owned()
    }
}

impl Message for &String {
    fn text(self) -> String {
        self.clone()
    }
}

impl<F: FnOnce() -> String> Message for F {
    fn text(self) -> String {
        self()
    }
}

fn message(level: Level, subsystem: &str, message: impl Message) {
    if shows(level) {
        write(level, subsystem, &message.text());
    }
}

/// Writes a [`Level::Debug`] message.
pub fn debug(subsystem: &str, text: impl Message) {
    message(Level::Debug, subsystem, text);
}

/// Writes a [`Level::Info`] message.
pub fn info(subsystem: &str, text: impl Message) {
    message(Level::Info, subsystem, text);
}

/// Writes a [`Level::Warn`] message.
pub fn warn(subsystem: &str, text: impl Message) {
    message(Level::Warn, subsystem, text);
}

/// Prints a line on stdout. A reader that has ended (`sarus images | head -1`) is not an error.
pub fn print(text: &str) {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes()).ok();
}
