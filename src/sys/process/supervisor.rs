//! Supervisor of an OCI runtime among the processes of the host, where no PID namespace contains what
//! it starts. The supervisor is a process of root's between engine and runtime, which no user can signal,
//! and the subreaper of all orphans below it. It kills what is left when the runtime has ended, and
//! everything when the engine has. See PR_SET_CHILD_SUBREAPER and
//! PR_SET_PDEATHSIG of prctl(2). Start at [`spawn_supervised`].

use crate::error::{Context, Error, Result};
use crate::sys::ids;
use crate::sys::proc::mountinfo::MountInfo;
use crate::sys::process::descendants;
use crate::sys::process::pidfd::Process;
use crate::sys::process::runtime_child::{Containment, Program, RuntimeChild, orphaned, spawn};
use crate::sys::process::signals::Signals;
use crate::sys::process::{self, ProcessId, WaitStatus};
use rustix::process::{Signal, getpid};
use std::io::{self, BufRead, BufReader, PipeWriter, Read, Write};
use std::path::PathBuf;

/// Parent-death signal: the engine has ended.
const ORPHANED: Signal = Signal::TERM;

/// Makes this process a subreaper, for orphans of a supervisor that was killed; false before Linux 3.4,
/// where there are no supervisors either.
#[must_use]
pub fn become_subreaper() -> bool {
    rustix::process::set_child_subreaper(Some(getpid())).is_ok()
}

/// Starts `program` with all IDs of root, below a supervisor: when the program or this process ends, all
/// that it started is killed. `marks` tell which processes belong to the container.
///
/// # Errors
/// If the kernel refuses a step; then nothing runs.
pub fn spawn_supervised(program: Program<'_>, marks: ContainerMarks) -> Result<RuntimeChild> {
    let context = || "cannot start the container's supervisor".to_owned();
    if !become_subreaper() {
        return Err(Error::caused_by(context(), "this kernel has no child subreapers")
            .with_hint("use --pid=private"));
    }
    let (mut answer, report) = std::io::pipe().context(context)?;
    let engine = ProcessId::current();
    // SAFETY: this program has one thread, so the child may go on as it likes.
    let child = match unsafe { libc::fork() } {
        0 => supervise(engine, program, report),
        child => ProcessId::new(child),
    };
    let child = child.ok_or_else(std::io::Error::last_os_error).context(context)?;
    let supervisor = Process::from_pid(child);
    drop(report);
    let mut text = String::new();
    answer.read_to_string(&mut text).context(context)?;
    match text.parse::<ProcessId>().ok() {
        // The program may have ended, and its PID be another's.
        Some(pid) => {
            let program = Process::child_of(pid, supervisor.pid());
            let child = supervisor.pid();
            Ok(RuntimeChild {
                child,
                program,
                containment: Containment::Supervisor(supervisor),
                marks,
            })
        }
        None => {
            process::wait(supervisor.pid());
            Err(if text.is_empty() { Error::new(context()) } else { Error::new(text) })
        }
    }
}

/// Main function of the supervisor. It ends with the wait status of the program.
fn supervise(engine: ProcessId, program: Program<'_>, mut report: PipeWriter) -> ! {
    let signals = program.signals;
    let supervisor = ProcessId::current();
    let started = prepare(engine).and_then(|()| {
        spawn(program, move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if ProcessId::parent() == Some(supervisor) { Ok(()) } else { Err(orphaned()) }
        })
    });
    let told = match &started {
        Ok(child) => child.id().to_string(),
        Err(error) => error.to_string(),
    };
    // If the engine does not read it, the engine has ended.
    report.write_all(told.as_bytes()).ok();
    let change = match started {
        Ok(child) => {
            drop(report);
            // A reader of the program's output must not wait for this process.
            process::close_all_but(&[]);
            process::lift_limits();
            watch(&Process::from_pid(ProcessId::from_child(&child)), signals, engine)
        }
        Err(_) => WaitStatus::Exited(1),
    };
    // Some fork faster than this process kills.
    rustix::process::setpriority_process(None, -20).ok();
    descendants::kill_children();
    process::exit_like(change)
}

fn prepare(engine: ProcessId) -> Result<()> {
    ids::become_root().context(|| "cannot become root".into())?;
    // Out of the process group that a launcher kills or a terminal stops.
    rustix::process::setsid().context(|| "cannot leave the session".into())?;
    rustix::process::set_child_subreaper(Some(getpid()))
        .context(|| "cannot become a subreaper".into())?;
    rustix::process::set_parent_process_death_signal(Some(ORPHANED))
        .context(|| "cannot set the parent-death signal".into())?;
    // The engine may have ended before that.
    if ProcessId::parent() == Some(engine) {
        Ok(())
    } else {
        Err(orphaned()).context(|| "the engine has ended".into())
    }
}

/// Waits until the program has ended, or the engine.
fn watch(program: &Process, signals: &Signals, engine: ProcessId) -> WaitStatus {
    loop {
        match signals.next(None) {
            Ok(Some(arrived)) if arrived.number == libc::SIGCHLD => {
                while let Some((pid, change)) = process::reap() {
                    if pid == program.pid() {
                        return change;
                    }
                }
            }
            Ok(Some(arrived)) if arrived.number != ORPHANED.as_raw() => {}
            // Another process of root's sent it, and means the program.
            Ok(Some(arrived)) if ProcessId::parent() == Some(engine) => {
                program.send(arrived.number);
            }
            // The engine has ended, or signals cannot be taken any more.
            _ => return WaitStatus::Killed(libc::SIGKILL),
        }
    }
}

/// Marks that tell processes of a container from others of the host.
#[derive(Debug)]
pub struct ContainerMarks {
    /// Mount namespace that the engine left, by its name: no process of the container is in it.
    pub host: Option<PathBuf>,
    /// Device number of the root file system, `major:minor` as in mountinfo: it is mounted in the engine's
    /// own mount namespace and in copies of that, and nowhere else.
    pub root: String,
}

impl ContainerMarks {
    /// Tells whether `process` is in a mount namespace of the container's: not the host's, and not the
    /// engine's, as hooks are.
    pub(in crate::sys) fn show_inside(&self, process: ProcessId) -> bool {
        let ours = mount_namespace(ProcessId::current());
        let theirs = of_threads(process, |thread| std::fs::read_link(thread.join("ns/mnt")).ok());
        ours.is_some()
            && self.host.is_some()
            && theirs
                .is_some_and(|theirs| Some(&theirs) != ours.as_ref() && Some(theirs) != self.host)
    }

    /// Tells whether the container's root file system is mounted for `process`: for the runtime, hooks, and
    /// the container.
    pub(in crate::sys) fn are_mounted_for(&self, process: ProcessId) -> bool {
        let open = |thread: PathBuf| std::fs::File::open(thread.join("mountinfo")).ok();
        of_threads(process, open).is_some_and(|mounts| has_device(mounts, &self.root))
    }
}

/// Returns the first result of `look` for the threads of `process`. It has none for a thread that has
/// ended, as the first one of a process may have.
fn of_threads<T>(process: ProcessId, look: impl Fn(PathBuf) -> Option<T>) -> Option<T> {
    let threads =
        std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path()).find_map(look)
}

/// Tells whether `mountinfo` has a mount of `device`. Reads line by line: the owner of a user namespace
/// can make the table long.
fn has_device(mountinfo: impl Read, device: &str) -> bool {
    let mut lines = BufReader::new(mountinfo).split(b'\n').map_while(io::Result::ok);
    lines.any(|line| MountInfo::parse(&line).is_some_and(|mount| mount.device == device.as_bytes()))
}

/// Identifies the mount namespace of a process.
#[must_use]
pub fn mount_namespace(pid: ProcessId) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_device() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n90 22 0:45 / /mnt/0:4 rw - tmpfs x rw\n";
        for (device, expected) in [("0:45", true), ("8:1", true), ("0:4", false), ("22", false)] {
            assert_eq!(has_device(mounts.as_bytes(), device), expected, "{device}");
        }
    }
}
