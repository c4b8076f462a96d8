//! Whether this machine and this installation can run containers: what `sarus check` tells an
//! administrator, or a user who wonders why something fails.
//!
//! Everything is looked at with the caller's own rights, so nobody learns more by it than without;
//! what the caller may not see is [`Status::Unknown`]. Nothing is changed. Start at [`all`].

mod installation;
mod kernel;

use crate::error::Error;
use crate::site::config::Installation;
use miniserde::Serialize;

/// What came of one check; the worse, the larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The caller may not see it.
    Unknown,
    /// Containers run, but somebody should look at it.
    Warning,
    /// Something does not work.
    Error,
}

impl Status {
    /// The word for people and programs.
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

/// What was looked at, what was found, and what to do about it.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// In a word.
    pub subject: &'static str,
    /// How good it is.
    pub status: Status,
    /// What was found: one sentence, or a line for each fault of sarus.json.
    pub text: String,
    /// What to do, where that is known.
    pub advice: Option<String>,
}

/// Tells each finding as soon as it is there: asking a registry may take a while.
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

    /// What somebody else may see is no error.
    fn failure(&mut self, subject: &'static str, error: &Error) {
        match (error.kind() == crate::ErrorKind::Denied) && !crate::sys::ids::is_effective_root() {
            true => self.unknown(subject, &format!("as this user: {error}"), "ask root to check"),
            false => self.tell(subject, Status::Error, error.to_string(), error.hint()),
        }
    }

    fn result(&mut self, subject: &'static str, result: Result<String, Error>) {
        match result {
            Ok(text) => self.ok(subject, text),
            Err(error) => self.failure(subject, &error),
        }
    }
}

/// Looks at everything, and at the registry `server` if there is one; `tell` gets each finding.
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
