//! The error that stub or child met, for the engine to print: a file in the bundle, in memory.

use crate::container::run::{FAILED, files};
use crate::error::{Context, Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Longest report, in bytes; contexts quote paths and messages of hooks.
const MAX_SIZE: usize = 64 << 10;

/// The file; all processes of the run share its descriptor, which no program inherits.
#[derive(Debug)]
pub struct Report(File);

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Report {
    /// Creates the empty file in the bundle directory `bundle`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn create(bundle: &OwnedFd) -> Result<Self> {
        let file = files::create_log(bundle, "report")?;
        Ok(Self(file.into()))
    }

    /// Writes `error` down, and gives the exit status of the process that met it.
    pub fn write(&self, error: &Error) -> u8 {
        let status = match error.exit_code() {
            1 => FAILED,
            status => status,
        };
        let mut text = format!("{status}\n{}\n", error.hint().unwrap_or_default());
        for cause in error.trace() {
            text.push_str(cause);
            text.push('\n');
        }
        let bytes = text.as_bytes();
        let bytes = bytes.get(..bytes.len().min(MAX_SIZE)).unwrap_or_default();
        // Memory for it is there, or the exit status has to be enough.
        (&self.0).write_all(bytes).ok();
        status
    }

    /// The error that was written, if any.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn take(&self) -> Result<Option<Error>> {
        let mut bytes = vec![0; MAX_SIZE];
        let count = self.0.read_at(&mut bytes, 0).context(|| "cannot read a report".into())?;
        bytes.truncate(count);
        Ok(parse(&String::from_utf8_lossy(&bytes)))
    }
}

fn parse(text: &str) -> Option<Error> {
    let mut lines = text.lines();
    let status = lines.next()?.parse().unwrap_or(FAILED);
    let hint = lines.next().unwrap_or_default();
    let mut causes = lines.rev();
    let first = Error::new(causes.next().unwrap_or("the container ended without a report"));
    let error = causes.fold(first, |error, context| Error::caused_by(context, error));
    let error = error.with_exit_code(status);
    Some(if hint.is_empty() { error } else { error.with_hint(hint) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_as_it_was_written() {
        let error = Error::caused_by("cannot a", Error::caused_by("cannot b", "c")).with_hint("d");
        let text = format!("127\n{}\n{}\n", error.hint().unwrap(), error.trace().join("\n"));
        let read = parse(&text).unwrap();
        assert_eq!(read.to_string(), "cannot a: cannot b: c");
        assert_eq!((read.hint(), read.exit_code()), (Some("d"), 127));
        assert!(parse("").is_none());
    }
}
