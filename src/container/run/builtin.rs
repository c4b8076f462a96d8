//! Built-in runtime: execution of a prepared container by the engine itself.
//!
//! Three processes take part. The engine supervises. The *stub*, a child with all IDs of root, is
//! process 1 of a PID namespace, or below the supervisor with `--pid=host`: everything ends with it. It
//! runs the hooks of the runtime namespace. Its child, born in the namespaces of the container,
//! completes the mounts, changes the root directory, drops every privilege and becomes the program
//! ([`init`]). No process with the user's IDs exists in the container while root works there.

mod channel;
mod hooks;
mod init;
mod relay;
mod report;
mod system_mounts;

use super::external::janitor::{self, Janitor};
use super::external::{device_of, leave_for, random_letters};
use super::supervise::{Callbacks, End, Forwarding, Monitor};
use super::{Engine, Prepared, files};
use crate::container::plan::Plan;
use crate::container::plan::hooks as planned;
use crate::container::plan::namespaces::PidNamespace;
use crate::container::plan::oci_spec::{self, Additions};
use crate::container::seccomp;
use crate::error::{Context, Result};
use crate::site::config::Hook;
use crate::sys::process::container_child::fork_into_namespaces;
use crate::sys::process::pidfd::Process;
use crate::sys::process::runtime_child::{self, Call, RuntimeChild};
use crate::sys::process::seccomp::SockFilter;
use crate::sys::process::signals::Signals;
use crate::sys::process::supervisor::{self, ContainerMarks};
use crate::sys::process::{self, ProcessId, WaitStatus};
use channel::{Channel, Step};
use hooks::HookRunner;
use init::Init;
use relay::Relay;
use report::Report;
use rustix::fd::AsFd;

/// An execution of one container.
#[derive(Clone, Copy)]
struct Execution<'a> {
    plan: &'a Plan,
    prepared: &'a Prepared,
    engine: Engine<'a>,
    /// Name of the container.
    id: &'a str,
    /// Hooks of the site that have something to do.
    hooks: &'a [&'a Hook],
    /// Filter of the container's system calls.
    filter: Option<&'a [SockFilter]>,
    /// Signal mask of this process and the caller's.
    signals: &'a Signals,
    /// Error of a process of the container, for the engine.
    report: &'a Report,
}

/// Runs the container to its end, and returns the exit status of the program.
///
/// # Errors
/// If a step before the program fails, with exit code 125; with 126 or 127 if the program cannot be
/// executed or does not exist.
pub(super) fn run(plan: &Plan, prepared: &Prepared, engine: Engine<'_>) -> Result<u8> {
    system_mounts::prepare(&prepared.rootfs, plan)?;
    let id = format!("{}{}", janitor::PREFIX, random_letters()?);
    let report = Report::create(&prepared.bundle)?;
    let hooks = prepared.active_hooks(plan)?;
    let filter = prepared.trusted.seccomp.as_ref().map(seccomp::compile).transpose();
    let filter = filter.context(|| "cannot compile the seccomp profile".into())?;
    let signals = Signals::block(&[])?;
    let execution = Execution {
        plan,
        prepared,
        engine,
        id: &id,
        hooks: &hooks,
        filter: filter.as_deref(),
        signals: &signals,
        report: &report,
    };
    let janitor = engine.terminal.map(Janitor::for_terminal).transpose()?;
    let child = execution.spawn();
    if let Some(janitor) = &janitor {
        janitor.expect(child.as_ref().ok().map(|child| child.child));
    }
    let end = child.and_then(|child| execution.supervise(&child, janitor.as_ref()));
    // Not a terminal whose modes are those of another process group by now.
    let terminal = engine.terminal.filter(|terminal| !terminal.is_in_background());
    terminal.iter().for_each(|terminal| terminal.restore());
    janitor.into_iter().for_each(Janitor::dismiss);
    let end = end?;
    report.take()?.map_or(Ok(end.exit_status()), Err)
}

impl Execution<'_> {
    fn spawn(&self) -> Result<RuntimeChild> {
        let Self { plan, prepared, .. } = self;
        // Hooks find processes in a /proc of the stub's PID namespace, where this process could not find
        // PIDs of its own.
        let namespace = match plan.pid {
            PidNamespace::Private if !self.hooks.is_empty() => Some(leave_for(&prepared.host)?),
            _ => None,
        };
        let work = |ready: Result<()>| self.serve(ready);
        let call = Call {
            work: &work,
            directory: prepared.bundle.as_fd(),
            signals: self.signals,
            mounts: namespace.as_ref(),
        };
        let marks =
            ContainerMarks { host: prepared.host.name(), root: device_of(&prepared.rootfs.root)? };
        match plan.pid {
            PidNamespace::Private => runtime_child::call_in_namespace(call, marks),
            PidNamespace::Host => supervisor::call_supervised(call, marks),
        }
    }

    /// Waits for the end of the stub.
    fn supervise(&self, child: &RuntimeChild, janitor: Option<&Janitor>) -> Result<End> {
        let callbacks = Callbacks {
            accept: &|_| Ok(()),
            terminal_left: &|is_left| {
                janitor.inspect(|janitor| janitor.set_terminal_left(is_left));
            },
        };
        let Engine { terminal, listener, .. } = self.engine;
        let user = self.plan.user.uid;
        let monitor = Monitor::new(child, terminal, listener, callbacks, Forwarding::Direct, user);
        let end = monitor.wait(self.signals);
        if end.as_ref().map_or(true, End::is_violent) {
            child.end_all_but(janitor.map(Janitor::pid));
        }
        end
    }

    /// Main function of the stub; returns its exit status.
    fn serve(&self, ready: Result<()>) -> u8 {
        ready.and_then(|()| self.start()).unwrap_or_else(|error| self.report.write(&error))
    }

    /// Starts the container's first process, runs the hooks, and waits for the end.
    fn start(&self) -> Result<u8> {
        if !self.hooks.is_empty() {
            self.write_config()?;
        }
        let runner = HookRunner::new(*self)?;
        let (channel, of_init) = Channel::pair()?;
        let stub = ProcessId::current();
        let is_private = self.plan.pid == PidNamespace::Private;
        let Some(pid) = fork_into_namespaces(is_private)? else {
            drop(channel);
            // The stub has no PID in the container's PID namespace.
            let parent = (!is_private).then_some(stub);
            let execution = *self;
            Init { execution, channel: of_init, runner: &runner, parent }.run()
        };
        drop(of_init);
        let relay = self.accompany(&channel, &runner, pid);
        let status = process::wait_for_child(pid)?;
        let started = relay.map(|relay| relay.map(Relay::finish));
        runner.run_all("poststop", None).unwrap_or_else(|error| hooks::warn(&error));
        started?;
        Ok(match status {
            WaitStatus::Exited(status) => status,
            WaitStatus::Killed(signal) => process::signal_exit_code(signal),
        })
    }

    /// Follows the start of the container's first process `pid`. Returns the relay of its terminal, if it
    /// has one.
    fn accompany(
        &self,
        channel: &Channel,
        runner: &HookRunner<'_>,
        pid: ProcessId,
    ) -> Result<Option<Relay>> {
        // A process that ended before has written a report.
        if !channel.expect(Step::Mounted) {
            return Ok(None);
        }
        let early = ["prestart", "createRuntime"];
        let hooks = early.iter().try_for_each(|stage| runner.run_all(stage, Some(pid)));
        if let Err(error) = hooks {
            Process::from_pid(pid).send(libc::SIGKILL);
            return Err(error);
        }
        channel.send(Step::Go);
        let Some(master) = channel.receive_ready() else { return Ok(None) };
        let relay = master.map(|master| Relay::start(master, self.plan)).transpose();
        if channel.is_closed_by_exec() {
            runner.run_all("poststart", Some(pid)).unwrap_or_else(|error| hooks::warn(&error));
        }
        relay
    }

    /// Writes config.json, for hooks.
    fn write_config(&self) -> Result<()> {
        let additions = Additions {
            launcher: Vec::new(),
            hooks: planned::to_json(self.hooks),
            annotations: self.plan.annotations(ProcessId::current()),
            cgroup: None,
            seccomp: None,
        };
        let text = oci_spec::render(self.plan, additions);
        let bundle = &self.prepared.bundle;
        files::create(bundle, "config.json", text.as_bytes(), 0o600, None).map(drop)
    }
}
