//! Executes a bundle: the only module that knows the OCI runtime and its command line.
//!
//! The runtime is a child whose end ends everything that it started. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md>.

use super::cgroups::{self, Janitor};
use super::supervise::{End, Watch};
use super::{diagnosis, files};
use crate::bundle::pid::PidNamespace;
use crate::bundle::{Bundle, spec};
use crate::config::Config;
use crate::error::{Because, Result};
use crate::sys::announce::Listener;
use crate::sys::contained::{self, Program};
use crate::sys::guardian::Places;
use crate::sys::signal::Signals;
use crate::sys::terminal::Terminal;
use crate::sys::{guardian, random};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The exit status when the engine or the OCI runtime failed before the program started.
pub(super) const FAILED: u8 = 125;

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
pub fn run(
    config: &Config,
    bundle: &Bundle,
    place: &OwnedFd,
    listener: &Listener,
    host: Option<PathBuf>,
) -> Result<u8> {
    rustix::fs::mkdirat(place, "state", Mode::from_raw_mode(0o700))
        .because(|| "cannot create the runtime's state directory".into())?;
    let terminal = bundle.terminal.map(|_| Terminal::of_stdin()).transpose()?;
    let signals = Signals::take_over(&[])?;
    let places = Places { host, root: device_of_root(bundle, place)? };
    let id = format!("{}{}", cgroups::PREFIX, random_letters()?);
    let runtime = OciRuntime::of(&config.runc_path);
    let cgroup = if runtime.makes_cgroups() { cgroups::prepare(&id)? } else { None };
    let needs_janitor = runtime.makes_cgroups() || bundle.terminal.is_some();
    let args = arguments(config, bundle, runtime, &id);
    // Of others it is not known that they log.
    let stderr = match runtime {
        OciRuntime::Other => None,
        _ => Some(files::create(place, diagnosis::STDERR, b"", 0o600, None)?.into()),
    };
    let program = Program {
        path: config.runc_path.as_os_str(),
        args: &args,
        env: &[("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")],
        directory: place.as_fd(),
        signals: &signals,
        takes_stdin: bundle.terminal.is_some(),
        stderr,
        takes_stdio: runtime != OciRuntime::Runc,
        prepare: &|pid| {
            let text = spec::config_json(bundle, pid, cgroup.as_deref());
            files::create(place, "config.json", text.as_bytes(), 0o600, None).map(drop)
        },
    };
    let janitor = needs_janitor.then(|| Janitor::start(&id, terminal.as_ref())).transpose()?;
    let child = match bundle.pid {
        PidNamespace::Private => contained::spawn_in_namespace(program, places),
        PidNamespace::Host => guardian::spawn_guarded(program, places),
    };
    if let Some(janitor) = &janitor {
        janitor.expect(child.as_ref().ok().map(|child| child.child));
    }
    let end = child.and_then(|child| {
        let (terminal, janitor) = (terminal.as_ref(), janitor.as_ref());
        let watch = Watch::new(&child, terminal, janitor, listener, bundle.user.uid);
        let end = watch.wait(&signals);
        if end.as_ref().map_or(true, End::is_violent) {
            child.end_all_but(janitor.map(Janitor::pid));
        }
        end
    });
    if let Some(janitor) = janitor {
        janitor.dismiss();
    }
    let end = end?;
    match end.exit_status() {
        0 => Ok(0),
        status => diagnosis::explain(bundle, place, &config.hooks)
            .or_else(|| end.failure())
            .map_or(Ok(status), Err),
    }
}

/// Number of the device that the root file system is, as mountinfo has it.
fn device_of_root(bundle: &Bundle, place: &OwnedFd) -> Result<String> {
    let found = rustix::fs::statat(place, &bundle.rootfs, AtFlags::SYMLINK_NOFOLLOW)
        .because(|| "cannot look at the root file system".into())?;
    let device = found.st_dev;
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

fn arguments(config: &Config, bundle: &Bundle, runtime: OciRuntime, id: &str) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    args.extend(["--root".into(), config.bundle_dir.join("state").into()]);
    args.extend(["--log".into(), config.bundle_dir.join(diagnosis::LOG).into()]);
    if runtime == OciRuntime::Crun {
        args.push("--cgroup-manager=disabled".into());
    }
    args.push("run".into());
    if bundle.preserved_fds() > 0 {
        args.push(format!("--preserve-fds={}", bundle.preserved_fds()).into());
    }
    args.push(id.into());
    args
}

/// Sixteen of them tell the containers of a node apart.
fn random_letters() -> Result<String> {
    let mut bytes = [0; 16];
    random::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}
