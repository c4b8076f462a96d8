//! The container's first process, from its birth as root in the container's namespaces until it
//! becomes the program. The steps of [`Init::start`] are in the order that security asks for.

use super::Execution;
use super::channel::{Channel, Step};
use super::hooks::HookRunner;
use super::system_mounts::Tree;
use crate::container::handoff::{PMI_FD, explain_exec};
use crate::container::run::{FAILED, files};
use crate::error::{Context, Error, Result};
use crate::sys::descriptors;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::process::container_child::{
    become_unprivileged, close_at_exec, end_with_parent, exit, new_session_keyring, pivot_root,
};
use crate::sys::process::seccomp;
use crate::sys::process::signals::Signals;
use crate::sys::process::{ProcessId, become_program_with, start_notify};
use crate::sys::pty::{self, Pty};
use crate::sys::terminal::WindowSize;
use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::Mode;
use std::convert::Infallible;
use std::ffi::OsStr;

/// The process, and what it needs.
pub struct Init<'a> {
    pub execution: Execution<'a>,
    pub channel: Channel,
    pub runner: &'a HookRunner<'a>,
    /// PID of the stub in the container's PID namespace, if it has one.
    pub parent: Option<ProcessId>,
}

impl Init<'_> {
    /// Becomes the program, or reports why not and ends.
    pub fn run(self) -> ! {
        let Err(error) = self.start();
        // The caller's limit of file sizes holds by now: SIGXFSZ must not end this process.
        Signals::block(&[]).ok();
        let status = self.execution.report.write(&error);
        self.channel.send(Step::Failed);
        exit(status)
    }

    fn start(&self) -> Result<Infallible> {
        let plan = self.execution.plan;
        end_with_parent(self.parent).context(|| "cannot start without a parent".into())?;
        let tree = Tree::complete(plan)?;
        // Made before the hooks: afterwards root opens nothing in the container.
        let pty = match plan.process.terminal {
            Some(size) => Some(self.open_terminal(&tree, size)?),
            None => None,
        };
        self.channel.send(Step::Mounted);
        if !self.channel.expect(Step::Go) {
            // The stub has reported why.
            exit(FAILED);
        }
        self.runner.run_all("createContainer", Some(ProcessId::current()))?;
        tree.verify()?;
        pivot_root(&tree.root)?;
        self.channel.send_ready(pty.as_ref().map(|pty| &pty.master))?;
        rustix::process::setsid().context(|| "cannot make a session".into())?;
        if let Some(pty) = &pty {
            pty::take(&pty.slave)?;
        }
        new_session_keyring()?;
        drop((tree, pty));
        self.close_the_rest()?;
        become_unprivileged(&plan.user)?;
        self.go_on_as_user()
    }

    /// Closes all that the program must not get, directories of the host above all, before a process
    /// with the user's ids has them. What is left, and is closed by execve(2), is no way anywhere.
    fn close_the_rest(&self) -> Result<()> {
        let kept = self.execution.plan.descriptors;
        let mut keep = vec![
            kept.socket(),
            self.channel.as_fd().as_raw_fd(),
            self.execution.report.as_fd().as_raw_fd(),
        ];
        if kept.has_pmi {
            keep.push(PMI_FD);
        }
        descriptors::close_descriptors(&keep)?;
        close_at_exec(if kept.has_pmi { PMI_FD + 1 } else { PMI_FD })
    }

    /// Goes to the working directory as the user. A magic link of `/proc` that led out of the container
    /// would leave a directory without a path in it.
    fn enter_directory(&self) -> Result<()> {
        let directory = &self.execution.plan.process.directory;
        let context = || format!("cannot start in {directory}");
        std::env::set_current_dir(directory).context(context)?;
        let current = std::env::current_dir().context(context)?;
        if current.is_absolute() {
            return Ok(());
        }
        Err(Error::caused_by(context(), "the directory is outside the container"))
    }

    fn open_terminal(&self, tree: &Tree, size: WindowSize) -> Result<Pty> {
        let context = || "cannot provide /dev/console".to_owned();
        let pty = Pty::open(&tree.pts, size, &self.execution.plan.user)?;
        let console = files::create(&tree.dev, "console", b"", 0o600, None);
        let restrictions = Restrictions { noexec: true, ..Restrictions::default() };
        mount::bind(&pty.slave, console.context(context)?, restrictions).context(context)?;
        Ok(pty)
    }

    /// Safe because: nothing of root's is left but descriptors that the next program does not get,
    /// and this process cannot be traced until then.
    fn go_on_as_user(&self) -> Result<Infallible> {
        let Execution { plan, engine, filter, signals, .. } = self.execution;
        let process = &plan.process;
        rustix::process::umask(Mode::from_raw_mode(process.umask));
        // Nothing that starts from here on may have more than the caller.
        process.limits.restore()?;
        if let Some(filter) = filter {
            // Programs of the image run from here on: hooks, sshd and what its logins start.
            seccomp::install(filter).context(|| "cannot install the seccomp filter".into())?;
        }
        if plan.starts_sshd() {
            (engine.start_sshd)()?;
        }
        self.enter_directory()?;
        self.runner.run_all("startContainer", Some(ProcessId::current()))?;
        start_notify::notify(plan.descriptors.socket(), process.terminal.is_some())?;
        signals.previous_mask().restore();
        let program = process.args.first().map_or("", String::as_str);
        let error = become_program_with(&process.args, &process.env);
        Err(explain_exec(error, OsStr::new(program)))
    }
}
