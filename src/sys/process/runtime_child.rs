//! The OCI runtime as a child that cannot outlive us, nor can anything that it started.
//!
//! Either it is the first process of a PID namespace ([`spawn_in_namespace`]), and the kernel ends
//! what is in there; or it lives among the processes of the host and a guardian of root's does it
//! ([`guardian`](crate::sys::process::supervisor)).

use crate::error::{Context, Result};
use crate::sys::fs::mount::Namespace;
use crate::sys::ids;
use crate::sys::process::offspring;
use crate::sys::process::pidfd::Process;
use crate::sys::process::seccomp;
use crate::sys::process::signals::Signals;
use crate::sys::process::supervisor::Places;
use crate::sys::process::{self, Change};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Work for a child that knows its number.
pub type Prepare<'a> = &'a (dyn Fn(Pid) -> Result<()> + Send + Sync);

/// A program to execute as root, by its checked absolute path.
pub struct Program<'a> {
    /// The checked file.
    pub path: &'a OsStr,
    /// Its arguments, without its own name.
    pub args: &'a [OsString],
    /// Its whole environment.
    pub env: &'a [(&'static str, &'static str)],
    /// Where it starts.
    pub directory: BorrowedFd<'a>,
    /// What this process has blocked, and the child shall not.
    pub signals: &'a Signals,
    /// Whether it gets our stdin; else it finds an empty one.
    pub takes_stdin: bool,
    /// Where it complains, if not to our stderr.
    pub stderr: Option<std::fs::File>,
    /// Whether it would give stdin, stdout and stderr to others if it could.
    pub takes_stdio: bool,
    /// What the child does, as root, when all is ready to execute the program: it knows its own
    /// number by then.
    pub prepare: Prepare<'a>,
}

impl std::fmt::Debug for Program<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Program").field(&self.path).field(&self.args).finish()
    }
}

/// A child that ends when we do.
#[derive(Debug)]
pub struct Contained {
    /// The child whose end is the end of everything: what [`process::next_change`] tells of.
    pub child: u32,
    /// The program itself.
    pub(in crate::sys) program: Process,
    pub(in crate::sys) hold: Hold,
    pub(in crate::sys) places: Places,
}

/// What keeps together all that the program starts.
#[derive(Debug)]
pub(in crate::sys) enum Hold {
    /// A PID namespace whose first process the program is. It has ended already where there is none.
    Namespace {
        /// Closed by the kernel when this process ends, and not before.
        _alive: PipeWriter,
        inside: Option<std::fs::File>,
    },
    /// All is offspring of the guardian, our child.
    Guardian(Process),
}

impl Contained {
    /// Sends signal `number` to the program.
    pub fn send(&self, number: i32) {
        self.program.send(number);
    }

    /// How the program ended, if a tracer of another process keeps that from us:
    /// [`Process::untold_end`].
    #[must_use]
    pub fn untold_end(&self) -> Option<Change> {
        self.program.untold_end()
    }

    /// Whether the program may be waiting for no more than zombies whose tracers do not wait for them.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match &self.hold {
            Hold::Guardian(guardian) => offspring::are_held(guardian, &self.program),
            Hold::Namespace { .. } => false,
        }
    }

    /// Whether it lives among the host's processes, below a guardian: in a process group of its own,
    /// where no terminal finds it, and without a kernel that ends what a container leaves behind.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        matches!(self.hold, Hold::Guardian(_))
    }

    /// Whether the process that has the number `pid` now is of the container, or of the runtime.
    #[must_use]
    pub fn holds(&self, pid: i32) -> bool {
        self.places.are_seen_by(pid)
    }

    /// Kills what the first process of a container left behind, before the program has ended: some
    /// OCI runtimes wait for that. What runs in our own mount namespace, as hooks do, is spared.
    pub fn kill_rest(&self) {
        let Hold::Guardian(guardian) = &self.hold else { return };
        let is_inside = |process| self.places.are_inside(process);
        offspring::signal_offspring(guardian, Some(&self.program), libc::SIGKILL, is_inside);
    }

    /// Sends signal `number` to all that the program started, directly or not, but not to itself.
    /// Unlike others, SIGSTOP then stops the first process of a container too.
    pub fn signal_all(&self, number: i32) {
        match &self.hold {
            Hold::Namespace { inside: Some(inside), .. } => process::signal_all_in(inside, number),
            Hold::Namespace { inside: None, .. } => {}
            Hold::Guardian(guardian) => {
                offspring::signal_offspring(guardian, Some(&self.program), number, |_| true);
            }
        }
    }

    /// Ends everything, after the child itself was killed by someone: the guardian's work, where
    /// there is no guardian any more. `other` is a child of ours that has no part in it.
    pub fn end_all_but(&self, other: Option<u32>) {
        if self.is_guarded() {
            let other = other.and_then(|other| i32::try_from(other).ok());
            offspring::end_proven(|child| Some(child) != other && self.holds(child));
        }
    }
}

/// Starts `program` with all ids of root, as the first process of a PID namespace: when it ends or
/// is killed, the kernel kills everything that it started; and it is killed when we are. Its mount
/// namespace is `mounts`, which this process has left: the `/proc` in there becomes its own.
///
/// # Errors
/// When the kernel refuses a step; then nothing runs.
pub fn spawn_in_namespace(
    program: Program<'_>,
    places: Places,
    mounts: Namespace,
) -> Result<Contained> {
    // SAFETY: CLONE_NEWPID changes only in which namespace children are born.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
        .context(|| "cannot make a PID namespace".into())?;
    let (alive, ours) = io::pipe().context(|| "cannot make a pipe".into())?;
    let end = ours.as_raw_fd();
    let child = spawn(program, move || {
        // Ours is inherited too: as long as it is open, the pipe tells nothing of the parent.
        // SAFETY: this process does not use it.
        unsafe { libc::close(end) };
        mounts.enter().map_err(io::Error::other)?;
        // Its own /proc, or it would look up the numbers of its children in the host's.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // If our parent died before that, the other end of the pipe is closed already.
        if process::is_readable(&alive)? { Err(orphaned()) } else { Ok(()) }
    })?;
    let program = Process::find(Pid::from_child(&child));
    // It may have ended already.
    let inside = std::fs::File::open(format!("/proc/{}/ns/pid", child.id())).ok();
    let hold = Hold::Namespace { _alive: ours, inside };
    Ok(Contained { child: child.id(), program, hold, places })
}

/// Starts `program` as root, after the child has done `first` and what they all do.
pub(in crate::sys) fn spawn(
    program: Program<'_>,
    first: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Result<Child> {
    let Program { path, args, env, directory, signals, stderr, takes_stdio, .. } = program;
    let directory = directory.as_raw_fd();
    let mask = signals.mask_before();
    let mut command = Command::new(path);
    command.args(args).env_clear().envs(env.iter().copied());
    if let Some(file) = stderr {
        command.stderr(file);
    }
    if !program.takes_stdin {
        command.stdin(std::process::Stdio::null());
    }
    // SAFETY: only the lifetime changes, of what `command` alone holds: it ends here.
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
            prepare(rustix::process::getpid()).map_err(io::Error::other)?;
            // For all, in case that another one does it too; kernels that cannot are rare and old.
            seccomp::keep_owner_of_stdio().or_else(|e| if takes_stdio { Err(e) } else { Ok(()) })
        });
    }
    command.spawn().context(|| format!("cannot execute {}", path.to_string_lossy()))
}

/// What is said of a child whose parent died at once; nobody hears it.
pub(in crate::sys) fn orphaned() -> io::Error {
    io::Error::from_raw_os_error(libc::ECHILD)
}
