//! Executes a bundle: the only module that knows the OCI runtime and its command line.
//!
//! The runtime is a child whose end ends everything that it started. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md>.

use super::cgroups::{self, Janitor};
use super::oci_runtime::{Kind, OciRuntime};
use super::supervise::{End, Watch};
use super::{diagnosis, files};
use crate::container::plan::Bundle;
use crate::container::plan::hooks::{StagedHook, VERIFIED};
use crate::container::plan::namespaces::PidNamespace;
use crate::container::plan::oci_spec;
use crate::container::seccomp;
use crate::error::{Context, Error, Result};
use crate::site::config::Config;
use crate::sys::process::runtime_child::{self, Program};
use crate::sys::process::signals::Signals;
use crate::sys::process::start_notify::{Listener, Started};
use crate::sys::process::supervisor;
use crate::sys::process::supervisor::Places;
use crate::sys::random;
use crate::sys::terminal::Terminal;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use std::ffi::OsString;
use std::path::PathBuf;

/// The exit status when the engine or the OCI runtime failed before the program started.
pub(super) const FAILED: u8 = 125;

/// Runs the bundle at `place` to its end.
pub fn run(
    config: &Config,
    runtime: &OciRuntime,
    bundle: &Bundle,
    hooks: &[StagedHook],
    place: &OwnedFd,
    listener: &Listener,
    host: Option<PathBuf>,
) -> Result<u8> {
    rustix::fs::mkdirat(place, "state", Mode::from_raw_mode(0o700))
        .context(|| "cannot create the runtime's state directory".into())?;
    let terminal = bundle.terminal.map(|_| Terminal::of_stdin()).transpose()?;
    let signals = Signals::take_over(&[])?;
    let places = Places { host, root: device_of_root(bundle, place)? };
    let id = format!("{}{}", cgroups::PREFIX, random_letters()?);
    let cgroup = if runtime.makes_cgroups() { cgroups::prepare(&id)? } else { None };
    let needs_janitor = runtime.makes_cgroups() || bundle.terminal.is_some();
    let args = arguments(config, bundle, runtime.kind, &id);
    let seccomp = seccomp::for_oci_runtime(config)?;
    // Of others it is not known that they log.
    let stderr = match runtime.kind {
        Kind::Other => None,
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
        takes_stdio: runtime.kind != Kind::Runc,
        prepare: &|pid| {
            let (cgroup, seccomp) = (cgroup.as_deref(), seccomp.clone());
            let text = oci_spec::config_json(bundle, hooks, pid, cgroup, seccomp);
            files::create(place, "config.json", text.as_bytes(), 0o600, None).map(drop)
        },
    };
    let janitor = needs_janitor.then(|| Janitor::start(&id, terminal.as_ref())).transpose()?;
    let child = match bundle.pid {
        PidNamespace::Private => runtime_child::spawn_in_namespace(program, places),
        PidNamespace::Host => supervisor::spawn_guarded(program, places),
    };
    if let Some(janitor) = &janitor {
        janitor.expect(child.as_ref().ok().map(|child| child.child));
    }
    let end = child.and_then(|child| {
        let (terminal, janitor) = (terminal.as_ref(), janitor.as_ref());
        let accept = |_: &Started| expect_verified(place);
        let watch = Watch::new(&child, terminal, janitor, listener, &accept, bundle.user.uid);
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
    let error = || {
        let logged = diagnosis::explain(bundle, place, hooks);
        let of_hook = || diagnosis::explain_start(bundle, place, hooks, &end);
        logged.or_else(of_hook).or_else(|| end.failure())
    };
    match end.exit_status() {
        0 => Ok(0),
        status => error().map_or(Ok(status), Err),
    }
}

/// Makes sure that the OCI runtime ran the last of the engine's hooks before the program.
fn expect_verified(place: &OwnedFd) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statat(place, VERIFIED, flags).map(drop).map_err(|_| {
        Error::new("cannot start: the OCI runtime did not run the hook that verifies the container")
            .with_hint("let runcPath name a runtime that knows hooks of the stage createContainer")
            .with_exit_code(FAILED)
    })
}

/// Number of the device that the root file system is, as mountinfo has it.
fn device_of_root(bundle: &Bundle, place: &OwnedFd) -> Result<String> {
    let found = rustix::fs::statat(place, &bundle.rootfs, AtFlags::SYMLINK_NOFOLLOW)
        .context(|| "cannot look at the root file system".into())?;
    let device = found.st_dev;
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

fn arguments(config: &Config, bundle: &Bundle, runtime: Kind, id: &str) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    args.extend(["--root".into(), config.bundle_dir.join("state").into()]);
    args.extend(["--log".into(), config.bundle_dir.join(diagnosis::LOG).into()]);
    if runtime == Kind::Crun {
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
