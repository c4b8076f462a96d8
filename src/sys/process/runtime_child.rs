//! The OCI runtime as a child: neither it nor a process that it starts outlives the engine.
//!
//! Either it is the first process of a PID namespace ([`spawn_in_namespace`]), whose processes the kernel
//! kills with it; or it lives among the processes of the host, where a supervisor of root's does so
//! ([`supervisor`](crate::sys::process::supervisor)).

use crate::error::{Context, Result};
use crate::sys::fs::mount::Namespace;
use crate::sys::ids;
use crate::sys::process::descendants;
use crate::sys::process::pidfd::Process;
use crate::sys::process::seccomp;
use crate::sys::process::signals::Signals;
use crate::sys::process::supervisor::ContainerMarks;
use crate::sys::process::{self, ProcessId, WaitStatus};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::mount::{MountFlags, mount};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Work of a child before it executes its program, with its own PID.
pub type Prepare<'a> = &'a (dyn Fn(ProcessId) -> Result<()> + Send + Sync);

/// A program to execute as root, by its checked absolute path.
pub struct Program<'a> {
    /// Path of the checked file.
    pub path: &'a OsStr,
    /// Arguments, without the name of the program.
    pub args: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(&'static str, &'static str)],
    /// Working directory.
    pub directory: BorrowedFd<'a>,
    /// Signals that this process has blocked; the child unblocks them.
    pub signals: &'a Signals,
    /// True if it inherits stdin; else its stdin is `/dev/null`.
    pub takes_stdin: bool,
    /// File for its stderr; else it inherits that.
    pub stderr: Option<std::fs::File>,
    /// True if it is known to change the owner of stdin, stdout and stderr, which must be prevented.
    pub takes_stdio: bool,
    /// Work of the child, as root, just before it executes the program.
    pub prepare: Prepare<'a>,
}

impl std::fmt::Debug for Program<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Program").field(&self.path).field(&self.args).finish()
    }
}

/// The OCI runtime, which ends when the engine does.
#[derive(Debug)]
pub struct RuntimeChild {
    /// The child whose end, as [`process::reap`] tells it, is the end of everything: the runtime, or its
    /// supervisor.
    pub child: ProcessId,
    /// The OCI runtime itself.
    pub(in crate::sys) program: Process,
    pub(in crate::sys) containment: Containment,
    pub(in crate::sys) marks: ContainerMarks,
}

/// Mechanism that ends all processes that the runtime starts.
#[derive(Debug)]
pub(in crate::sys) enum Containment {
    /// A PID namespace whose first process the runtime is; without `inside` if that has ended already.
    Namespace {
        /// The kernel closes it when this process ends, and nothing does before.
        _alive: PipeWriter,
        inside: Option<std::fs::File>,
    },
    /// All are descendants of the supervisor, a child of this process.
    Supervisor(Process),
}

impl RuntimeChild {
    /// Sends signal `number` to the runtime.
    pub fn send(&self, number: i32) {
        self.program.send(number);
    }

    /// Returns how the runtime ended, if a tracer elsewhere keeps the kernel from reporting it:
    /// [`Process::unreported_status`].
    #[must_use]
    pub fn unreported_status(&self) -> Option<WaitStatus> {
        self.program.unreported_status()
    }

    /// Tells whether the runtime waits only for zombies whose tracers do not wait for them.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match &self.containment {
            Containment::Supervisor(supervisor) => descendants::are_held(supervisor, &self.program),
            Containment::Namespace { .. } => false,
        }
    }

    /// Tells whether it lives among the host's processes, below a supervisor: then it is in a session of
    /// its own, without the terminal, and the kernel does not kill what a container leaves behind.
    #[must_use]
    pub fn is_supervised(&self) -> bool {
        matches!(self.containment, Containment::Supervisor(_))
    }

    /// Tells whether the process that has the PID `pid` now belongs to the container or the runtime.
    #[must_use]
    pub fn contains(&self, pid: ProcessId) -> bool {
        self.marks.are_mounted_for(pid)
    }

    /// Kills the processes that the container's first process left behind: some OCI runtimes wait for
    /// their end. Spares processes in the engine's own mount namespace, such as hooks.
    pub fn kill_remaining(&self) {
        let Containment::Supervisor(supervisor) = &self.containment else { return };
        let is_inside = |process| self.marks.show_inside(process);
        descendants::signal_descendants(supervisor, Some(&self.program), libc::SIGKILL, is_inside);
    }

    /// Sends signal `number` to all descendants of the runtime, but not to itself. SIGSTOP stops the first
    /// process of a container too, since it comes from outside of its PID namespace.
    pub fn signal_all(&self, number: i32) {
        match &self.containment {
            Containment::Namespace { inside: Some(inside), .. } => {
                process::signal_all_in(inside, number)
            }
            Containment::Namespace { inside: None, .. } => {}
            Containment::Supervisor(supervisor) => {
                descendants::signal_descendants(supervisor, Some(&self.program), number, |_| true);
            }
        }
    }

    /// Does the supervisor's work after that was killed: kills all processes of the container. `other` is
    /// a child of the engine that does not belong to it.
    pub fn end_all_but(&self, other: Option<ProcessId>) {
        if self.is_supervised() {
            descendants::kill_proven(|child| Some(child) != other && self.contains(child));
        }
    }
}

/// Starts `program` with all IDs of root, as the first process of a PID namespace. When it ends, the
/// kernel kills all processes of the namespace; and when this process ends, the kernel kills it. Its
/// mount namespace is `mounts`, which this process has left: the `/proc` in there becomes its own.
///
/// # Errors
/// If the kernel refuses a step; then nothing runs.
pub fn spawn_in_namespace(
    program: Program<'_>,
    marks: ContainerMarks,
    mounts: Namespace,
) -> Result<RuntimeChild> {
    // SAFETY: CLONE_NEWPID changes only in which namespace children are born.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
        .context(|| "cannot make a PID namespace".into())?;
    let (alive, ours) = io::pipe().context(|| "cannot make a pipe".into())?;
    let end = ours.as_raw_fd();
    let child = spawn(program, move || {
        // The parent's end is inherited too, and would keep the pipe open.
        // SAFETY: this process does not use it.
        unsafe { libc::close(end) };
        mounts.enter().map_err(io::Error::other)?;
        // A /proc of its own: in the host's, the PIDs of its children mean other processes.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // If the parent died before that, the other end of the pipe is closed already.
        if process::is_readable(&alive)? { Err(orphaned()) } else { Ok(()) }
    })?;
    let child = ProcessId::from_child(&child);
    let program = Process::from_pid(child);
    // It may have ended already.
    let inside = std::fs::File::open(format!("/proc/{child}/ns/pid")).ok();
    let containment = Containment::Namespace { _alive: ours, inside };
    Ok(RuntimeChild { child, program, containment, marks })
}

/// Starts `program` as root. The child calls `first`, then [`Program::prepare`], before it executes it.
pub(in crate::sys) fn spawn(
    program: Program<'_>,
    first: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Result<Child> {
    let Program { path, args, env, directory, signals, stderr, takes_stdio, .. } = program;
    let directory = directory.as_raw_fd();
    let mask = signals.previous_mask();
    let mut command = Command::new(path);
    command.args(args).env_clear().envs(env.iter().copied());
    if let Some(file) = stderr {
        command.stderr(file);
    }
    if !program.takes_stdin {
        command.stdin(std::process::Stdio::null());
    }
    // SAFETY: only the lifetime changes, of what `command` alone contains: it ends here.
    let prepare = unsafe { std::mem::transmute::<Prepare<'_>, Prepare<'static>>(program.prepare) };
    // SAFETY: the closure runs in the forked child of a program with one thread, so allocation and
    // every other call are sound there; `directory` is open all the time.
    unsafe {
        command.pre_exec(move || {
            mask.restore();
            // Not after the next step: a change of ids clears the signal of a parent's death.
            ids::become_root()?;
            first()?;
            rustix::process::fchdir(BorrowedFd::borrow_raw(directory))?;
            prepare(ProcessId::current()).map_err(io::Error::other)?;
            // For every runtime. Failure matters only for one that is known to need it (Linux 3.5).
            seccomp::deny_stdio_fchown().or_else(|e| if takes_stdio { Err(e) } else { Ok(()) })
        });
    }
    command.spawn().context(|| format!("cannot execute {}", path.to_string_lossy()))
}

/// Error of a child whose parent has died already; nobody receives it.
pub(in crate::sys) fn orphaned() -> io::Error {
    io::Error::from_raw_os_error(libc::ECHILD)
}
