//! Execution of a prepared container by an OCI runtime (runc, crun), which is a child of this process:
//! when it ends, everything ends that it started. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md>.

pub(in crate::container) mod cgroups;
mod diagnosis;
pub mod hooks;
mod identify;
pub(in crate::container::run) mod janitor;
pub(in crate::container::run) mod placement;

use super::supervise::{Callbacks, End, Forwarding, Monitor};
use super::{Engine, FAILED, Prepared, files};
use crate::container::handoff::Handoff;
use crate::container::plan::Plan;
use crate::container::plan::namespaces::PidNamespace;
use crate::container::plan::oci_runtime::{OciRuntime, RuntimeKind};
use crate::container::plan::oci_spec::{self, Additions};
use crate::container::seccomp;
use crate::error::{Context, Error, Result};
use crate::hook::confine::VERIFIED;
use crate::sys::fs::mount::Namespace;
use crate::sys::fs::{FileId, resolve};
use crate::sys::process::ProcessId;
use crate::sys::process::runtime_child::{self, Program, RuntimeChild};
use crate::sys::process::signals::Signals;
use crate::sys::process::start_notify::Started;
use crate::sys::process::supervisor::{self, ContainerMarks};
use crate::sys::random;
use hooks::{Confinement, StagedHook};
pub use identify::identify;
use janitor::Janitor;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use rustix::process::Pid;
use std::ffi::OsString;

/// Path of this program in the container, where it becomes the program to run.
pub const LAUNCH: &str = "/dev/launch";

/// File in the bundle in which crun puts the output of hooks.
const HOOKS_OUTPUT: &str = "hooks.log";

/// An execution of one container.
struct Execution<'a> {
    plan: &'a Plan,
    runtime: &'a OciRuntime,
    prepared: &'a Prepared,
    engine: Engine<'a>,
    /// Name of the container.
    id: String,
    /// Hooks of config.json.
    hooks: Vec<StagedHook>,
    /// `linux.cgroupsPath` of config.json.
    cgroup: Option<String>,
}

/// Runs the container to its end, and returns the exit status of the program.
pub(super) fn run(
    plan: &Plan,
    runtime: &OciRuntime,
    prepared: &Prepared,
    engine: Engine<'_>,
) -> Result<u8> {
    rustix::fs::mkdirat(&prepared.bundle, "state", Mode::from_raw_mode(0o700))
        .context(|| "cannot create the state directory of the OCI runtime".into())?;
    let id = format!("{}{}", janitor::PREFIX, random_letters()?);
    let makes_cgroups = runtime.makes_cgroups();
    let hooks = arrange_hooks(plan, prepared, engine)?;
    let signals = Signals::block(&[])?;
    let cgroup = if makes_cgroups { placement::prepare(&id)? } else { None };
    let execution = Execution { plan, runtime, prepared, engine, id, hooks, cgroup };
    // The runtime mounts a /proc of its PID namespace, where this process could not find PIDs of its own.
    let namespace = match plan.pid {
        PidNamespace::Private => Some(leave_for(&prepared.host)?),
        PidNamespace::Host => None,
    };
    let janitor = if makes_cgroups || engine.terminal.is_some() {
        Some(Janitor::start(&execution.id, engine.terminal)?)
    } else {
        None
    };
    let child = execution.spawn(&signals, namespace);
    if let Some(janitor) = &janitor {
        janitor.expect(child.as_ref().ok().map(|child| child.child));
    }
    let end = child.and_then(|child| execution.supervise(&child, &signals, janitor.as_ref()));
    if let Some(janitor) = janitor {
        janitor.dismiss();
    }
    let end = end?;
    match end.exit_status() {
        0 => Ok(0),
        status => execution.explain(&end).map_or(Ok(status), Err),
    }
}

/// Hooks of config.json.
fn arrange_hooks(plan: &Plan, prepared: &Prepared, engine: Engine<'_>) -> Result<Vec<StagedHook>> {
    let confinement = Confinement {
        program: engine.program,
        rootfs: &plan.site.bundle_dir.join(&plan.site.rootfs_folder),
        root: FileId::from_fd(&prepared.rootfs.root)?,
        dev: FileId::from_fd(&prepared.rootfs.dev)?,
        limits: &plan.process.limits,
    };
    Ok(hooks::arrange(&prepared.active_hooks(plan)?, confinement))
}

impl Execution<'_> {
    /// Starts the runtime, in the mount namespace `namespace` and in a new PID namespace, or in those of
    /// this process.
    fn spawn(&self, signals: &Signals, namespace: Option<Namespace>) -> Result<RuntimeChild> {
        let bundle = &self.prepared.bundle;
        let kind = self.runtime.kind;
        let args = self.arguments();
        // Other runtimes may not write a log: their complaints go to the user.
        let stderr = match kind {
            RuntimeKind::Other => None,
            _ => Some(files::create(bundle, diagnosis::STDERR, b"", 0o600, None)?.into()),
        };
        // In its PID namespace, the runtime is process 1. Among the host's processes, it alone knows
        // its PID.
        let is_private = namespace.is_some();
        if is_private {
            self.write_config(ProcessId::from(Pid::INIT))?;
        }
        let program = Program {
            path: self.runtime.path.as_os_str(),
            args: &args,
            env: &[("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")],
            directory: bundle.as_fd(),
            signals,
            takes_stdin: self.plan.process.terminal.is_some(),
            stderr,
            takes_stdio: kind != RuntimeKind::Runc,
            prepare: &|pid| if is_private { Ok(()) } else { self.write_config(pid) },
        };
        let host = self.prepared.host.name();
        let places = ContainerMarks { host, root: device_of(&self.prepared.rootfs.root)? };
        match namespace {
            Some(namespace) => runtime_child::spawn_in_namespace(program, places, namespace),
            None => supervisor::spawn_supervised(program, places),
        }
    }

    /// Writes config.json for a runtime that has the PID `runtime`, as hooks see it.
    fn write_config(&self, runtime: ProcessId) -> Result<()> {
        let mut annotations = self.plan.annotations(runtime);
        // crun discards the output of hooks otherwise.
        annotations.insert("run.oci.hooks.stdout", HOOKS_OUTPUT.to_owned());
        annotations.insert("run.oci.hooks.stderr", HOOKS_OUTPUT.to_owned());
        let launcher = std::iter::once(LAUNCH.to_owned()).chain(self.handoff().to_args());
        let additions = Additions {
            launcher: launcher.collect(),
            hooks: hooks::to_json(&self.hooks),
            annotations,
            cgroup: self.cgroup.clone(),
            seccomp: self.prepared.trusted.seccomp.as_ref().map(seccomp::to_json),
        };
        let text = oci_spec::render(self.plan, additions);
        files::create(&self.prepared.bundle, "config.json", text.as_bytes(), 0o600, None).map(drop)
    }

    fn handoff(&self) -> Handoff {
        let Self { plan, .. } = self;
        let process = &plan.process;
        Handoff {
            socket: plan.descriptors.socket(),
            streams: process.terminal.is_none().then(|| plan.descriptors.first_stream()),
            directory: process.directory.clone().into(),
            limits: Some(process.limits.clone()),
            sshd: plan.starts_sshd(),
            level: plan.log_level,
        }
    }

    /// Command line of the runtime, without its name.
    fn arguments(&self) -> Vec<OsString> {
        let bundle_dir = &self.plan.site.bundle_dir;
        let mut args: Vec<OsString> = Vec::new();
        args.extend(["--root".into(), bundle_dir.join("state").into()]);
        args.extend(["--log".into(), bundle_dir.join(diagnosis::LOG).into()]);
        if self.runtime.kind == RuntimeKind::Crun {
            args.push("--cgroup-manager=disabled".into());
        }
        args.push("run".into());
        let count = self.plan.descriptors.count(self.plan.process.terminal.is_none());
        args.push(format!("--preserve-fds={count}").into());
        args.push(self.id.as_str().into());
        args
    }

    /// Waits for the end of the runtime.
    fn supervise(
        &self,
        child: &RuntimeChild,
        signals: &Signals,
        janitor: Option<&Janitor>,
    ) -> Result<End> {
        let callbacks = Callbacks {
            accept: &|started| self.accept(started),
            terminal_left: &|is_left| {
                janitor.inspect(|janitor| janitor.set_terminal_left(is_left));
            },
        };
        let Engine { terminal, listener, .. } = self.engine;
        let monitor = Monitor::new(
            child,
            terminal,
            listener,
            callbacks,
            Forwarding::ByRuntime,
            self.plan.user.uid,
        );
        let end = monitor.wait(signals);
        if end.as_ref().map_or(true, End::is_violent) {
            child.end_all_but(janitor.map(Janitor::pid));
        }
        end
    }

    /// Insists that the runtime ran the last of the engine's hooks before the program, and left the
    /// program in the caller's cgroups.
    fn accept(&self, started: &Started) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statat(&self.prepared.bundle, VERIFIED, flags).map_err(|_| {
            let text =
                "cannot start: the OCI runtime did not run the hook that verifies the container";
            Error::new(text)
                .with_hint(
                    "let runcPath name a runtime that runs hooks of the stage createContainer",
                )
                .with_exit_code(FAILED)
        })?;
        placement::verify(&started.program)
    }

    /// Error that explains the end of a run which failed, if it was not the program that failed.
    fn explain(&self, end: &End) -> Option<Error> {
        let Self { plan, prepared, hooks, .. } = self;
        let program = plan.process.args.first().map(String::as_str).unwrap_or_default();
        diagnosis::explain_log(program, &prepared.bundle, hooks)
            .or_else(|| diagnosis::explain_start_hook(program, &prepared.bundle, hooks, end))
            .or_else(|| end.failure())
    }
}

/// Moves this process to the mount namespace `host`, and returns the one that it was in.
pub(in crate::container::run) fn leave_for(host: &Namespace) -> Result<Namespace> {
    let left = Namespace::current()?;
    host.enter()?;
    Ok(left)
}

/// Device number of the file system of `root`, as mountinfo has it (`major:minor`).
pub(in crate::container::run) fn device_of(root: &OwnedFd) -> Result<String> {
    let status = resolve::status(root).context(|| "cannot stat the root file system".into())?;
    let device = status.st_dev;
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Random letters that tell apart the containers of a node.
pub(in crate::container::run) fn random_letters() -> Result<String> {
    let mut bytes = [0; janitor::RANDOM_LETTERS];
    random::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}
