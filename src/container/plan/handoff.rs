//! Hand-over from the engine to the applet `launch`, the last step of a start inside the container:
//! the descriptors that pass the OCI runtime, and the words of `launch`. Both ends read this module.

use crate::error::{Error, Result};
use crate::log::Level;
use crate::sys::process::limits::CallerLimits;
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;

/// The descriptor that `PMI_FD` is moved to: the lowest that a container can inherit.
pub const PMI_FD: RawFd = 3;

/// The descriptor on which `launch` tells the engine that the program starts.
#[must_use]
pub fn socket(pmi: bool) -> RawFd {
    PMI_FD + RawFd::from(pmi)
}

/// The first of three descriptors that are the caller's stdin, stdout and stderr, on their way past
/// the OCI runtime: some put pipes of their own in between.
#[must_use]
pub fn first_stream(pmi: bool) -> RawFd {
    socket(pmi) + 1
}

/// The options of `launch`: how the last step is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// The descriptor for [`notify`](crate::sys::process::start_notify::notify).
    pub socket: RawFd,
    /// The first of the caller's streams; none with a terminal of the container's own.
    pub streams: Option<RawFd>,
    /// The directory that the program starts in, absolute.
    pub directory: OsString,
    /// CallerLimits of the caller, which the program gets back.
    pub limits: Option<CallerLimits>,
    /// True if the SSH daemon that `ssh_hook` prepared is started before the program.
    pub sshd: bool,
    /// The lowest level of messages that are shown.
    pub level: Level,
}

const SOCKET: &str = "--socket=";
const STREAMS: &str = "--streams=";
const DIRECTORY: &str = "--directory=";
const LIMITS: &str = "--limits=";
const SSHD: &str = "--sshd";
const LEVEL: &str = "--level=";

impl Default for Handoff {
    fn default() -> Self {
        let (directory, level) = ("/".into(), Level::Warn);
        Self { socket: 0, streams: None, directory, limits: None, sshd: false, level }
    }
}

impl Handoff {
    /// The words of the command line, up to the program.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec![format!("{SOCKET}{}", self.socket)];
        words.extend(self.streams.map(|first| format!("{STREAMS}{first}")));
        words.push(format!("{DIRECTORY}{}", self.directory.to_string_lossy()));
        words.extend(self.limits.as_ref().map(|limits| format!("{LIMITS}{limits}")));
        words.extend(self.sshd.then(|| SSHD.to_owned()));
        words.push(format!("{LEVEL}{}", self.level as u8));
        words.push("--".into());
        words
    }

    /// Reads the words of [`to_words`](Self::to_words); the program and its arguments follow.
    ///
    /// # Errors
    /// When a word is unknown, a number is not a descriptor above 2, or the program is missing.
    pub fn parse(words: &[OsString]) -> Result<(Self, &OsStr, &[OsString])> {
        let end = words.iter().position(|word| word == "--");
        let (options, rest) = end.and_then(|end| words.split_at_checked(end)).unwrap_or_default();
        let Some(([_], [program, args @ ..])) = rest.split_at_checked(1) else {
            return Err(Error::new("nothing to launch").with_hint(
                "'sarus run' calls this applet: launch --socket=FD [--streams=FD] \
                 --directory=PATH [--limits=LIST] [--sshd] [--level=N] -- PROGRAM [ARG...]",
            ));
        };
        let mut handoff = Self::default();
        options.iter().try_for_each(|word| handoff.take(word))?;
        if handoff.socket == 0 {
            return Err(Error::new("launch needs --socket"));
        }
        Ok((handoff, program, args))
    }

    fn take(&mut self, word: &OsStr) -> Result<()> {
        let text = word.to_string_lossy();
        if let Some(number) = text.strip_prefix(SOCKET) {
            self.socket = descriptor(number)?;
        } else if let Some(number) = text.strip_prefix(STREAMS) {
            self.streams = Some(descriptor(number)?);
        } else if let Some(path) = text.strip_prefix(DIRECTORY) {
            // config.json, and with it all that the engine says, is in UTF-8.
            self.directory = path.into();
        } else if let Some(number) = text.strip_prefix(LEVEL) {
            self.level = Level::from_number(number.parse().ok());
        } else if let Some(list) = text.strip_prefix(LIMITS) {
            self.limits = Some(list.parse()?);
        } else if text == SSHD {
            self.sshd = true;
        } else {
            return Err(Error::new(format!("invalid option '{text}' of launch")));
        }
        Ok(())
    }
}

fn descriptor(text: &str) -> Result<RawFd> {
    let number = text.parse().ok().filter(|number| *number > 2);
    number.ok_or_else(|| Error::new(format!("invalid descriptor '{text}': expected one above 2")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(handoff: &Handoff) -> Vec<OsString> {
        let words = handoff.to_words().into_iter().chain(["sh".into(), "--".into(), "x".into()]);
        words.map(OsString::from).collect()
    }

    #[test]
    fn both_ends_agree() {
        for handoff in [
            Handoff { socket: 3, ..Handoff::default() },
            Handoff {
                socket: 4,
                streams: Some(5),
                directory: "/a --sshd".into(),
                limits: Some(",".repeat(37).parse().unwrap()),
                sshd: true,
                level: Level::Debug,
            },
        ] {
            let words = words(&handoff);
            let (read, program, args) = Handoff::parse(&words).unwrap();
            assert_eq!((read, program), (handoff, OsStr::new("sh")));
            assert_eq!(args, ["--", "x"]);
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        for (words, expected) in [
            (&[][..], "nothing to launch"),
            (&["--socket=3"], "nothing to launch"),
            (&["--socket=3", "--"], "nothing to launch"),
            (&["--", "sh"], "launch needs --socket"),
            (&["--socket=2", "--", "sh"], "invalid descriptor '2': expected one above 2"),
            (&["--socket=3", "--streams=-1", "--", "sh"], "invalid descriptor '-1'"),
            (&["--socket=3", "--limits=1,2", "--", "sh"], "invalid limits '1,2'"),
            (&["--socket=3", "--x", "--", "sh"], "invalid option '--x' of launch"),
        ] {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            let error = Handoff::parse(&words).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{words:?}: {error}");
        }
    }
}
