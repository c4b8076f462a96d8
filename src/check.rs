//! `sarus check`: tells administrators and users if this machine and this installation can run
//! containers.
//!
//! All checks use the caller's own rights, so nobody learns more by them than without; what the caller
//! may not see is [`Status::Unknown`]. Nothing is changed. Start at [`all`].

mod installation;
mod kernel;

use crate::error::Error;
use crate::site::config::Installation;
use miniserde::Serialize;

/// Result of a check, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// No problem was found.
    Ok,
    /// The caller lacks the rights to check.
    Unknown,
    /// Containers run, but an administrator should look at it.
    Warning,
    /// Something does not work.
    Error,
}

impl Status {
    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Serialize for Status {
    fn begin(&self) -> miniserde::ser::Fragment<'_> {
        miniserde::ser::Fragment::Str(self.name().into())
    }
}

/// Result of a check, with its subject and advice.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Subject: a key of sarus.json, or a word such as `kernel`.
    pub subject: &'static str,
    /// Result.
    pub status: Status,
    /// One sentence, or a line for each fault of sarus.json.
    pub text: String,
    /// Remedy, if one is known.
    pub advice: Option<String>,
}

/// Passes each finding on at once: to ask a registry may take a while.
struct Report<'a>(&'a mut dyn FnMut(Finding));

impl Report<'_> {
    fn tell(&mut self, subject: &'static str, status: Status, text: String, advice: Option<&str>) {
        let advice = advice.map(str::to_owned);
        (self.0)(Finding { subject, status, text, advice });
    }

    fn ok(&mut self, subject: &'static str, text: impl Into<String>) {
        self.tell(subject, Status::Ok, text.into(), None);
    }

    fn unknown(&mut self, subject: &'static str, text: &str, advice: &str) {
        self.tell(subject, Status::Unknown, format!("cannot tell {text}"), Some(advice));
    }

    fn warning(&mut self, subject: &'static str, text: impl Into<String>, advice: &str) {
        self.tell(subject, Status::Warning, text.into(), Some(advice));
    }

    fn error(&mut self, subject: &'static str, text: impl Into<String>, advice: &str) {
        self.tell(subject, Status::Error, text.into(), Some(advice));
    }

    /// Reports `error`. That the caller lacks a right, which root has, is not an error.
    fn failure(&mut self, subject: &'static str, error: &Error) {
        if error.kind() == crate::ErrorKind::Denied && !crate::sys::ids::is_effective_root() {
            self.unknown(subject, &format!("as this user: {error}"), "ask root to check");
        } else {
            self.tell(subject, Status::Error, error.to_string(), error.hint());
        }
    }

    fn result(&mut self, subject: &'static str, result: Result<String, Error>) {
        match result {
            Ok(text) => self.ok(subject, text),
            Err(error) => self.failure(subject, &error),
        }
    }
}

/// Makes all checks, that of the registry `server` included if there is one; `tell` gets each finding.
pub fn all(server: Option<&str>, tell: &mut dyn FnMut(Finding)) {
    let report = &mut Report(tell);
    kernel::always(report);
    let installation = match Installation::find() {
        Ok(installation) => installation,
        Err(error) => return report.failure("program", &error),
    };
    installation::program(report, &installation);
    let insecure = match installation::configuration(report, &installation) {
        None => Vec::new(),
        Some(config) => {
            let runtime = installation::runtime(report, &config);
            kernel::configured(report, &config, runtime.as_ref());
            installation::named(report, &config, runtime.as_ref());
            installation::seccomp(report, &config);
            installation::storage(report, &config);
            config.pulling.insecure_registries
        }
    };
    if let Some(server) = server {
        installation::registry(report, server, &insecure);
    }
}
