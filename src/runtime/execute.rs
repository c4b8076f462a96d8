//! Executes a bundle: the only module that knows the OCI runtime and its command line.
//!
//! The runtime is a child in a PID namespace of its own, whose end ends everything in it. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md>.

use super::cgroups::{self, Janitor, Position};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::error::{Because, Error, Result};
use crate::log;
use crate::sys::process::{self, Change, Contained, Program};
use crate::sys::signal::{Arrived, Signals};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

/// The exit status when the engine or the OCI runtime failed before the program started.
const FAILED: u8 = 125;

/// The runtimes that differ in what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciRuntime {
    /// The reference.
    Runc,
    /// It can leave the processes in the cgroup that the workload manager put them into.
    Crun,
    /// What takes runc's command line.
    Other,
}

impl OciRuntime {
    /// From the name of the program.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match name {
            name if name.starts_with("crun") => Self::Crun,
            name if name.starts_with("runc") => Self::Runc,
            _ => Self::Other,
        }
    }

    /// Whether the processors of the container are confined by a cgroup: then the list must be in
    /// the bundle. Else they are inherited, as everything that the workload manager set.
    #[must_use]
    pub fn makes_cgroups(self) -> bool {
        self != Self::Crun
    }

    /// Whether the root file system keeps its restrictions when the runtime binds it: runc's bind
    /// copies them. What is not known to is not trusted with it.
    #[must_use]
    pub fn keeps_restrictions(self) -> bool {
        self == Self::Runc
    }
}

/// Runs the bundle at `place` to its end.
pub fn run(config: &Config, bundle: &Bundle, place: &OwnedFd) -> Result<u8> {
    rustix::fs::mkdirat(place, "state", Mode::from_raw_mode(0o700))
        .because(|| "cannot create the runtime's state directory".into())?;
    let signals = Signals::take_over(&[])?;
    let id = format!("{}{}", cgroups::PREFIX, random_letters()?);
    let runtime = OciRuntime::of(&config.runc_path);
    let position = runtime.makes_cgroups().then(Position::now).transpose()?;
    let args = arguments(config, bundle, runtime, &id);
    let child = process::spawn_contained(&Program {
        path: config.runc_path.as_os_str(),
        args: &args,
        env: &[("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")],
        directory: place.as_fd(),
        signals: &signals,
        takes_stdio: runtime != OciRuntime::Runc,
    })?;
    let janitor = position.map(|position| Janitor::start(&id, position)).transpose()?;
    let status = wait(&child, &signals);
    if let Some(janitor) = janitor {
        janitor.dismiss();
    }
    let status = status?;
    if status == 0 { Ok(0) } else { explain(bundle, place).map_or(Ok(status), Err) }
}

fn arguments(config: &Config, bundle: &Bundle, runtime: OciRuntime, id: &str) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    args.extend(["--root".into(), config.bundle_dir.join("state").into()]);
    args.extend(["--log".into(), config.bundle_dir.join(LOG).into()]);
    if runtime == OciRuntime::Crun {
        args.push("--cgroup-manager=disabled".into());
    }
    args.push("run".into());
    if bundle.preserved_fds > 0 {
        args.push(format!("--preserve-fds={}", bundle.preserved_fds).into());
    }
    args.push(id.into());
    args
}

/// The runtime's own log, in the bundle.
const LOG: &str = "runtime.log";

/// Sixteen of them tell the containers of a node apart.
fn random_letters() -> Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .because(|| "cannot get random bytes".into())?;
    Ok(bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}

/// What a terminal sends to every process of the foreground group, so to the runtime too.
const FROM_TERMINAL: [i32; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH];

/// Passes signals on until the runtime ends.
fn wait(child: &Contained, signals: &Signals) -> Result<u8> {
    loop {
        match signals.next(None)? {
            Some(Arrived { number: libc::SIGCHLD, .. }) => {
                while let Some((pid, change)) = process::next_change() {
                    match change {
                        Change::Exited(status) if pid == child.pid => return Ok(status),
                        Change::Killed(signal) if pid == child.pid => return Ok(killed(signal)),
                        _ => {}
                    }
                }
            }
            Some(Arrived { number, from_kernel: true }) if FROM_TERMINAL.contains(&number) => {}
            Some(Arrived { number, .. }) => process::send(child.pid, number),
            None => {}
        }
    }
}

fn killed(signal: i32) -> u8 {
    log::write(
        log::Level::Error,
        "runtime",
        &format!("the OCI runtime was ended by signal {signal}"),
    );
    process::status_of(signal)
}

/// Tells a failure of the runtime from one of the program: the runtime writes its own into its log.
fn explain(bundle: &Bundle, place: &OwnedFd) -> Option<Error> {
    let file =
        rustix::fs::openat(place, LOG, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    std::fs::File::from(file).take(1 << 20).read_to_string(&mut text).ok()?;
    // runc also logs what goes wrong after the program has ended; crun logs in plain text.
    let line =
        text.lines().rfind(|line| line.contains("run failed") || !line.contains("level="))?;
    let program = bundle.args.first().map(String::as_str).unwrap_or_default();
    let error = Error::new(format!("cannot start '{program}' in the container"));
    Some(error.hint(format!("the OCI runtime says: {line}")).exit(FAILED))
}
