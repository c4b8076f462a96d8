//! Observation of the calling process and of the host: everything that a plan depends on beside
//! configuration, image and options. Texts of `/proc` are parsed by pure functions.

use crate::container::handoff::Descriptors;
use crate::container::plan::devices;
use crate::container::plan::namespaces::{self, PidNamespace};
use crate::container::plan::oci_runtime::OciRuntime;
use crate::container::plan::{Caller, Cgroup, Options};
use crate::container::run::external::cgroups;
use crate::container::run::files;
use crate::error::{Context, Result};
use crate::site::config::Config;
use crate::sys::fs::read::read_proc;
use crate::sys::process::limits::CallerLimits;
use crate::sys::process::start_notify::Listener;
use crate::sys::process::{self, supervisor};
use crate::sys::terminal::Terminal;
use crate::user::User;
use rustix::fs::Mode;
use std::ffi::OsString;

/// Attributes that the engine takes from its caller before anything else: they must not reach what
/// runs as root, and the program gets them back.
#[derive(Debug)]
pub struct Inherited {
    limits: CallerLimits,
    environment: Vec<(OsString, OsString)>,
    umask: u32,
    descriptors: Descriptors,
}

impl Inherited {
    /// Takes the caller's limits, environment, descriptors and umask from this process. Must be called
    /// before this process opens anything. Returns the socket on which the container announces its
    /// start, too.
    ///
    /// # Errors
    /// If a limit cannot be read, or a descriptor cannot be closed, moved or made.
    pub fn take() -> Result<(Self, Listener)> {
        let limits = CallerLimits::take()?;
        let environment = process::take_environment();
        let (descriptors, listener) = Descriptors::take_over(&environment)?;
        let umask = rustix::process::umask(Mode::from_raw_mode(0o022)).as_raw_mode();
        Ok((Self { limits, environment, umask, descriptors }, listener))
    }

    /// Observes the rest, for a container with `options` that `runtime` executes.
    ///
    /// # Errors
    /// If the host's `/proc` or the site's group database cannot be read.
    pub fn observe(
        self,
        user: User,
        terminal: Option<&Terminal>,
        options: &Options,
        config: &Config,
        runtime: &OciRuntime,
    ) -> Result<Caller> {
        let Self { limits, environment, umask, descriptors } = self;
        let (pid, warning) = PidNamespace::choose(
            options.pid,
            options.ssh,
            &environment,
            supervisor::become_subreaper,
        );
        let proc_options = match pid {
            PidNamespace::Host => proc_options()?,
            PidNamespace::Private => Vec::new(),
        };
        let cgroup = if runtime.makes_cgroups() { cgroup() } else { Cgroup::default() };
        let group_database = files::read(&user, &config.prefix_dir.join("etc/group"))?;
        Ok(Caller {
            group_database: String::from_utf8_lossy(&group_database.unwrap_or_default())
                .into_owned(),
            user,
            environment,
            umask,
            limits,
            descriptors,
            terminal: terminal.map(Terminal::size),
            pid,
            proc_options,
            cgroup,
            warnings: warning.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// Mount options of the host's `/proc`.
fn proc_options() -> Result<Vec<String>> {
    let path = "/proc/self/mountinfo";
    let text = read_proc(path).context(|| format!("cannot read {path}"))?;
    namespaces::restrictions_of_proc(&text)
}

fn cgroup() -> Cgroup {
    // In version 2, a cgroup below the caller's has no controllers: the caller's limits hold.
    let cpus = if cgroups::is_unified() { None } else { limited_cpus() };
    Cgroup { cpus, devices: Some(devices::parse(&cgroups::allowed_devices())) }
}

/// Processors that this process may use, if not all that are online.
fn limited_cpus() -> Option<String> {
    let status = read_proc("/proc/self/status").ok()?;
    let online = read_proc("/sys/devices/system/cpu/online").unwrap_or_default();
    allowed_cpus(&status, &online)
}

/// Processors in the text of `/proc/self/status` (proc(5), `Cpus_allowed_list`), unless they are those
/// of the text `online`.
fn allowed_cpus(status: &str, online: &str) -> Option<String> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    (list != online.trim()).then(|| list.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_only_if_they_are_limited() {
        let status = "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\nMems_allowed:\t1\n";
        assert_eq!(allowed_cpus(status, "0-3\n"), None);
        assert_eq!(allowed_cpus(status, "0-7\n").as_deref(), Some("0-3"));
        assert_eq!(allowed_cpus(status, "").as_deref(), Some("0-3"));
        assert_eq!(allowed_cpus("Name:\tx\n", "0-3\n"), None);
    }
}
