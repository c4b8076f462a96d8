//! Hand-over from the engine to the applet `launch`, the last step of a start inside the container:
//! descriptors that pass the OCI runtime, and the options of `launch`. Both ends are here.
//!
//! | descriptor | content |
//! | --- | --- |
//! | 3 | the caller's PMI connection, if `PMI_FD` named one |
//! | next | socket on which `launch` announces the start of the program |
//! | next three | the caller's stdin, stdout and stderr; the container has them without `-t` only |

use crate::error::{Error, Result};
use crate::log::Level;
use crate::sys::descriptors;
use crate::sys::process::limits::CallerLimits;
use crate::sys::process::start_notify::{self, Listener};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;

/// Number that the descriptor of `PMI_FD` is moved to, the lowest that a container can inherit.
pub const PMI_FD: RawFd = 3;

/// Number of the caller's streams.
const STREAM_COUNT: u32 = 3;

/// Descriptors above 2 that the engine hands over, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// True if [`PMI_FD`] is the connection to a process manager.
    pub has_pmi: bool,
}

impl Descriptors {
    /// Closes all descriptors of this process above 2, except the one that `PMI_FD` of `environment`
    /// names, and makes those to hand over. Returns the engine's end of the socket, too.
    ///
    /// # Errors
    /// If a descriptor cannot be closed, moved or made.
    pub fn take_over(environment: &[(OsString, OsString)]) -> Result<(Self, Listener)> {
        let pmi_fd = pmi_fd(environment).filter(|fd| descriptors::is_open(*fd));
        descriptors::close_descriptors(pmi_fd.as_slice())?;
        if let Some(fd) = pmi_fd {
            descriptors::move_descriptor(fd, PMI_FD)?;
        }
        let taken = Self { has_pmi: pmi_fd.is_some() };
        let listener = Listener::new(taken.socket())?;
        descriptors::copy_streams(taken.first_stream())?;
        Ok((taken, listener))
    }

    /// Descriptor on which `launch` announces the start.
    #[must_use]
    pub fn socket(self) -> RawFd {
        PMI_FD + RawFd::from(self.has_pmi)
    }

    /// First of the three copies of the caller's stdin, stdout and stderr. Some OCI runtimes put pipes
    /// in the place of the originals.
    #[must_use]
    pub fn first_stream(self) -> RawFd {
        self.socket() + 1
    }

    /// Number of the descriptors from 3 on that enter the container, `with_streams` or without.
    #[must_use]
    pub fn count(self, with_streams: bool) -> u32 {
        u32::from(self.has_pmi) + 1 + if with_streams { STREAM_COUNT } else { 0 }
    }
}

/// Descriptor above 2 that the variable `PMI_FD` names.
fn pmi_fd(environment: &[(OsString, OsString)]) -> Option<RawFd> {
    let (_, value) = environment.iter().find(|(name, _)| name == "PMI_FD")?;
    value.to_str()?.parse().ok().filter(|fd| *fd > 2)
}

/// Adds to the error of execve(2) what the user of `sarus run` can do about it.
#[must_use]
pub fn explain_exec(error: Error, program: &OsStr) -> Error {
    match error.exit_code() {
        127 if program.as_encoded_bytes().starts_with(b"-") => {
            error.with_hint("options of 'sarus run' stand before the name of the image")
        }
        127 => error.with_hint("it is not in the image, or not in the image's PATH"),
        _ => error,
    }
}

/// Options of `launch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// Descriptor on which the start is announced.
    pub socket: RawFd,
    /// First of the caller's streams; `None` with a terminal of the container's own.
    pub streams: Option<RawFd>,
    /// Working directory of the program, absolute.
    pub directory: OsString,
    /// Limits of the caller, which the program gets back.
    pub limits: Option<CallerLimits>,
    /// True if the SSH daemon that `ssh_hook` prepared is started before the program.
    pub sshd: bool,
    /// Lowest level of messages that are shown.
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
    /// Command line of `launch`, without its name, up to the program.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let mut words = vec![format!("{SOCKET}{}", self.socket)];
        words.extend(self.streams.map(|first| format!("{STREAMS}{first}")));
        words.push(format!("{DIRECTORY}{}", self.directory.to_string_lossy()));
        words.extend(self.limits.as_ref().map(|limits| format!("{LIMITS}{limits}")));
        words.extend(self.sshd.then(|| SSHD.to_owned()));
        words.push(format!("{LEVEL}{}", self.level as u8));
        words.push("--".into());
        words
    }

    /// Parses the result of [`to_args`](Self::to_args), which the program and its arguments follow.
    ///
    /// # Errors
    /// If an option is unknown, a number is not a descriptor above 2, or the program is missing.
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

    /// Makes the caller's streams stdin, stdout and stderr of this process.
    ///
    /// # Errors
    /// If a descriptor is not open.
    pub fn take_streams(&self) -> Result<()> {
        self.streams.map_or(Ok(()), descriptors::take_streams)
    }

    /// Announces to the engine that this process becomes the program; with a terminal of the
    /// container's own, hands that to the engine.
    ///
    /// # Errors
    /// If the socket is not open.
    pub fn announce(&self) -> Result<()> {
        start_notify::notify(self.socket, self.streams.is_none())
    }

    fn take(&mut self, word: &OsStr) -> Result<()> {
        let text = word.to_string_lossy();
        if let Some(number) = text.strip_prefix(SOCKET) {
            self.socket = descriptor(number)?;
        } else if let Some(number) = text.strip_prefix(STREAMS) {
            self.streams = Some(descriptor(number)?);
        } else if let Some(path) = text.strip_prefix(DIRECTORY) {
            // config.json, which the option comes from, is in UTF-8.
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
        let words = handoff.to_args().into_iter().chain(["sh".into(), "--".into(), "x".into()]);
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
    fn descriptors_have_no_gaps() {
        for has_pmi in [false, true] {
            let all = Descriptors { has_pmi };
            let first = if has_pmi { 4 } else { 3 };
            assert_eq!((all.socket(), all.first_stream()), (first, first + 1));
            assert_eq!(all.count(true), all.count(false) + 3);
            assert_eq!(RawFd::try_from(all.count(false)).unwrap(), all.first_stream() - 3);
        }
    }

    #[test]
    fn pmi_fd_is_a_number_above_2() {
        for (value, expected) in
            [("7", Some(7)), ("3", Some(3)), ("2", None), ("-1", None), ("x", None), ("", None)]
        {
            assert_eq!(pmi_fd(&[("PMI_FD".into(), value.into())]), expected, "{value}");
        }
        assert_eq!(pmi_fd(&[]), None);
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
