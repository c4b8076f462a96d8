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
use crate::error::{Context, Error, Result};
use crate::site::config::Config;
use crate::sys::fs::mount::Namespace;
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

/// The exit status when the engine or the OCI runtime failed before the program started.
pub(super) const FAILED: u8 = 125;

/// Runs the bundle at `place` to its end. `host` is the mount namespace that this process came from. It
/// stays open: without processes, it would leave its number to the container's.
pub fn run(
    config: &Config,
    runtime: &OciRuntime,
    bundle: &Bundle,
    hooks: &[StagedHook],
    place: &OwnedFd,
    listener: &Listener,
    host: Namespace,
) -> Result<u8> {
    rustix::fs::mkdirat(place, "state", Mode::from_raw_mode(0o700))
        .context(|| "cannot create the runtime's state directory".into())?;
    let terminal = bundle.terminal.map(|_| Terminal::of_stdin()).transpose()?;
    let signals = Signals::take_over(&[])?;
    let places = find_places(bundle, place, &host)?;
    let id = format!("{}{}", cgroups::PREFIX, random_letters()?);
    let cgroup = if runtime.makes_cgroups() { cgroups::prepare(&id)? } else { None };
    let needs_janitor = runtime.makes_cgroups() || bundle.terminal.is_some();
    let args = arguments(config, bundle, runtime.kind, &id);
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
            let text = oci_spec::config_json(bundle, hooks, pid, cgroup.as_deref());
            files::create(place, "config.json", text.as_bytes(), 0o600, None).map(drop)
        },
    };
    // The runtime mounts a /proc for its PID namespace, where this process could find nobody.
    let mounts = match bundle.pid {
        PidNamespace::Private => Some(leave_for(&host)?),
        PidNamespace::Host => None,
    };
    let janitor = needs_janitor.then(|| Janitor::start(&id, terminal.as_ref())).transpose()?;
    let child = match mounts {
        Some(mounts) => runtime_child::spawn_in_namespace(program, places, mounts),
        None => supervisor::spawn_guarded(program, places),
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
    conclude(&end?, bundle, hooks, place)
}

/// Gives the exit status of the program, or tells why it did not start.
fn conclude(end: &End, bundle: &Bundle, hooks: &[StagedHook], place: &OwnedFd) -> Result<u8> {
    let status = end.exit_status();
    if status == 0 {
        return Ok(0);
    }
    let error = diagnosis::explain(bundle, place, hooks)
        .or_else(|| diagnosis::explain_start(bundle, place, hooks, end))
        .or_else(|| end.failure());
    error.map_or(Ok(status), Err)
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

/// Marks by which processes of the container are known: the mount namespace that they do not have, and
/// the device number of the root file system.
fn find_places(bundle: &Bundle, place: &OwnedFd, host: &Namespace) -> Result<Places> {
    let found = rustix::fs::statat(place, &bundle.rootfs, AtFlags::SYMLINK_NOFOLLOW)
        .context(|| "cannot look at the root file system".into())?;
    let device = found.st_dev;
    let root = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    Ok(Places { host: host.name(), root })
}

/// Takes this process back to the mount namespace `host`, and returns the one that it was in.
fn leave_for(host: &Namespace) -> Result<Namespace> {
    let left = Namespace::current()?;
    host.enter()?;
    Ok(left)
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
