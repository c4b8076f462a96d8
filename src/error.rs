//! The error type of the crate, worded for the person who must act on it.
//!
//! An error reads as one sentence, `cannot <verb> <thing>: <cause>`. It has a kind, may have a hint
//! and an exit code, and is printed in one place, `applets/main.rs`.

use std::fmt;

use crate::log;

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of an error, for code that decides by it. Texts are for people alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorKind {
    /// The caller lacks a right that another user may have (`EACCES`, `EPERM`).
    Denied,
    /// A file, an image or a program does not exist (`ENOENT`).
    NotFound,
    /// A file system or a quota is full (`ENOSPC`, `EDQUOT`).
    NoSpace,
    /// Another try may succeed.
    Transient,
    /// A host cannot be found or does not answer.
    Unreachable,
    /// A host does not speak TLS.
    NotTls,
    /// Data is malformed, or does not have its digest.
    Corrupt,
    /// The words of a command are wrong.
    Usage,
    /// A system call failed for another reason.
    System,
    /// None of the above.
    #[default]
    Other,
}

/// A failure, from what was asked for down to its first cause:
/// `cannot mount /a on /b: Permission denied`.
#[derive(Debug)]
pub struct Error {
    /// From the user's request down to the answer of the kernel.
    trace: Vec<String>,
    kind: ErrorKind,
    hint: Option<String>,
    exit_code: Option<u8>,
}

impl Error {
    /// Creates an error without a cause. Control characters of `text`, which may quote untrusted data,
    /// are escaped: they cannot forge another line.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self::printable(log::printable(&text.into(), &[]))
    }

    /// Creates an error of several faults, each on a line of its own.
    #[must_use]
    pub fn from_lines(lines: &[String]) -> Self {
        let lines: Vec<_> = lines.iter().map(|line| log::printable(line, &['\n', '\t'])).collect();
        Self::printable(lines.join("\n"))
    }

    fn printable(text: String) -> Self {
        Self { trace: vec![text], kind: ErrorKind::Other, hint: None, exit_code: None }
    }

    /// Puts `context`, which reads `cannot <verb> <thing>`, before `cause`. Kind, hint and exit
    /// code of the cause stay.
    #[must_use]
    pub fn caused_by(context: impl Into<String>, cause: impl Cause) -> Self {
        let mut error = cause.into_error();
        error.trace.insert(0, log::printable(&context.into(), &[]));
        error
    }

    /// Sets the kind.
    #[must_use]
    pub fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// Sets the kind unless one is known.
    #[must_use]
    pub fn or_kind(self, kind: ErrorKind) -> Self {
        match self.kind {
            ErrorKind::Other => self.with_kind(kind),
            _ => self,
        }
    }

    /// Sets a remedy, printed on a line of its own.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(log::printable(&text.into(), &[]));
        self
    }

    /// Sets the hint unless there is one.
    #[must_use]
    pub fn or_hint(self, text: impl Into<String>) -> Self {
        match self.hint {
            None => self.with_hint(text),
            Some(_) => self,
        }
    }

    /// Sets the exit code of the program.
    #[must_use]
    pub fn with_exit_code(self, code: u8) -> Self {
        Self { exit_code: Some(code), ..self }
    }

    /// Sets the exit code unless there is one.
    #[must_use]
    pub fn or_exit_code(self, code: u8) -> Self {
        Self { exit_code: self.exit_code.or(Some(code)), ..self }
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The exit code that this error asks for, 1 by default.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code.unwrap_or(1)
    }

    /// Remedy, if one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The contexts and the first cause, from what was asked for to what failed first.
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

/// An error that can stand below an [`Error`].
pub trait Cause {
    /// Converts it; an errno becomes the system's text and a kind.
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
        Error::new(system_text(&self)).with_kind(match self.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => ErrorKind::Denied,
            Some(libc::ENOENT) => ErrorKind::NotFound,
            Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::NoSpace,
            Some(_) => ErrorKind::System,
            None => ErrorKind::Other,
        })
    }
}

/// The text of `error` without the `(os error 13)` that Rust adds to it.
#[must_use]
pub fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let suffix = error.raw_os_error().map(|errno| format!(" (os error {errno})"));
    match suffix.and_then(|suffix| text.strip_suffix(suffix.as_str())) {
        Some(text) => text.to_owned(),
        None => text,
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

/// Adds the failed operation to its cause.
pub trait Context<T> {
    /// `context` is built only on failure, and reads `cannot <verb> <thing>`.
    ///
    /// # Errors
    /// The error that it was called on, with `context` in front.
    fn context(self, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Cause> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::caused_by(context(), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_sentence() {
        let failed: std::result::Result<(), _> = Err(rustix::io::Errno::ACCESS);
        let error = failed.context(|| "cannot open /etc/shadow".into()).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /etc/shadow: Permission denied");
        assert_eq!(error.trace().len(), 2);
        assert_eq!(error.kind(), ErrorKind::Denied);
    }

    #[test]
    fn strangers_cannot_forge_a_line() {
        let error = Error::new("it says: a\nhint: run this\x1b[2J").with_hint("b\nc");
        let error = Error::caused_by("cannot\rread", error);
        assert_eq!(error.to_string(), r"cannot\rread: it says: a\nhint: run this\u{1b}[2J");
        assert_eq!(error.hint(), Some(r"b\nc"));
    }
}
