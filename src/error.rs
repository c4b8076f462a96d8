//! The one error type, worded for the person who must act on it.
//!
//! An error reads as one sentence, `cannot <verb> <thing>: <cause>`, may carry a hint and the exit
//! status that it asks for, and is printed in one place, `applets/main.rs`.

use std::fmt;

use crate::log;

/// Everything here fails with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What could not be done, and why: `cannot mount /a on /b: Permission denied`.
#[derive(Debug)]
pub struct Error {
    /// From what the user asked for down to what the kernel answered.
    trace: Vec<String>,
    hint: Option<String>,
    code: u8,
}

impl Error {
    /// An error that starts here: no cause below it. Exit status 1.
    ///
    /// What strangers wrote may be in `text`: it shall not look like another line of ours.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { trace: vec![log::printable(&text.into(), &[])], hint: None, code: 1 }
    }

    /// Several errors, told in lines of their own.
    #[must_use]
    pub fn of_lines(lines: &[String]) -> Self {
        let lines: Vec<_> = lines.iter().map(|line| log::printable(line, &['\n', '\t'])).collect();
        Self { trace: vec![lines.join("\n")], hint: None, code: 1 }
    }

    /// `what` could not be done, because of `cause`. Hint and exit status of the cause stay.
    #[must_use]
    pub fn caused_by(what: impl Into<String>, cause: impl Cause) -> Self {
        let mut error = cause.into_error();
        error.trace.insert(0, log::printable(&what.into(), &[]));
        error
    }

    /// What the reader can do about it, printed on a line of its own.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(log::printable(&text.into(), &[]));
        self
    }

    /// Asks for another exit status.
    #[must_use]
    pub fn exit(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The exit status that this error asks for.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// What to do about it, if anything is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the caller was not let: another could be.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.trace.last().is_some_and(|cause| cause.starts_with("Permission denied"))
    }

    /// The causes, from what was asked for to what failed first.
    #[must_use]
    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, text) in self.trace.iter().enumerate() {
            if depth > 0 {
                f.write_str(": ")?;
            }
            f.write_str(text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What can stand below an [`Error`]: its text, without Rust's `(os error 13)`.
pub trait Cause {
    /// The same failure as an [`Error`] of ours.
    fn into_error(self) -> Error;
}

impl Cause for Error {
    fn into_error(self) -> Error {
        self
    }
}

impl Cause for std::io::Error {
    #[cold]
    fn into_error(self) -> Error {
        let text = self.to_string();
        Error::new(match text.split_once(" (os error ") {
            Some((text, _)) => text,
            None => &text,
        })
    }
}

impl Cause for &str {
    fn into_error(self) -> Error {
        Error::new(self)
    }
}

impl Cause for String {
    fn into_error(self) -> Error {
        Error::new(self)
    }
}

impl Cause for rustix::io::Errno {
    #[cold]
    fn into_error(self) -> Error {
        std::io::Error::from(self).into_error()
    }
}

/// Puts what was being done before why it failed.
pub trait Because<T> {
    /// `what` is built only on failure, and reads `cannot <verb> <thing>`.
    ///
    /// # Errors
    /// The error that it was called on, with `what` in front.
    fn because(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Cause> Because<T> for std::result::Result<T, E> {
    fn because(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::caused_by(what(), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_sentence() {
        let failed: std::result::Result<(), _> = Err(rustix::io::Errno::ACCESS);
        let error = failed.because(|| "cannot open /etc/shadow".into()).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /etc/shadow: Permission denied");
        assert_eq!(error.trace().len(), 2);
    }

    #[test]
    fn strangers_cannot_forge_a_line() {
        let error = Error::new("it says: a\nhint: run this\x1b[2J").hint("b\nc");
        let error = Error::caused_by("cannot\rread", error);
        assert_eq!(error.to_string(), r"cannot\rread: it says: a\nhint: run this\u{1b}[2J");
        assert_eq!(error.advice(), Some(r"b\nc"));
    }
}
