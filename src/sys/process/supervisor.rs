//! Keeps together what an OCI runtime starts among the processes of the host, where no PID namespace
//! does it. A supervisor stands between engine and runtime: a process of root's, which no user can
//! signal, and to which the kernel gives all that lose their parent below it. It ends the rest when
//! the runtime has ended, and everything when the engine has. See PR_SET_CHILD_SUBREAPER and
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

/// What tells the supervisor that the engine has ended, if it has.
const ORPHANED: Signal = Signal::TERM;

/// Has what loses its parent below this process come to it from now on, should the supervisor itself be
/// killed. Whether this kernel can do that, which a supervisor needs too (Linux 3.4).
#[must_use]
pub fn become_subreaper() -> bool {
    rustix::process::set_child_subreaper(Some(getpid())).is_ok()
}

/// Starts `program` with all ids of root, below a supervisor: when the program ends or is killed, or
/// we are, everything ends that it started. `marks` tell what is of the container.
///
/// # Errors
/// When the kernel refuses a step; then nothing runs.
pub fn spawn_supervised(program: Program<'_>, marks: ContainerMarks) -> Result<RuntimeChild> {
    let cannot = || "cannot start the container's supervisor".to_owned();
    if !become_subreaper() {
        return Err(Error::caused_by(cannot(), "this kernel has no child subreapers")
            .with_hint("use --pid=private"));
    }
    let (mut answer, report) = std::io::pipe().context(cannot)?;
    let engine = ProcessId::current();
    // SAFETY: this program has one thread, so the child may go on as it likes.
    let child = match unsafe { libc::fork() } {
        0 => supervise(engine, program, report),
        child => ProcessId::new(child),
    };
    let child = child.ok_or_else(std::io::Error::last_os_error).context(cannot)?;
    let supervisor = Process::from_pid(child);
    drop(report);
    let mut text = String::new();
    answer.read_to_string(&mut text).context(cannot)?;
    match text.parse::<ProcessId>().ok() {
        // The program may have ended, and its number be another's.
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
            Err(if text.is_empty() { Error::new(cannot()) } else { Error::new(text) })
        }
    }
}

/// The supervisor's life. It ends as the program does.
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
    // Who does not hear it has ended.
    report.write_all(told.as_bytes()).ok();
    let change = match started {
        Ok(child) => {
            drop(report);
            // A reader of the program's output shall not wait for this process.
            process::close_all_but(&[]);
            process::lift_limits();
            watch(&Process::from_pid(ProcessId::from_child(&child)), signals, engine)
        }
        Err(_) => WaitStatus::Exited(1),
    };
    // Some make processes faster than others are ended.
    rustix::process::setpriority_process(None, -20).ok();
    descendants::kill_children();
    process::exit_like(change)
}

fn prepare(engine: ProcessId) -> Result<()> {
    ids::become_root().context(|| "cannot become root".into())?;
    // Not in the group that a launcher kills, nor in the one that a terminal stops.
    rustix::process::setsid().context(|| "cannot leave the session".into())?;
    rustix::process::set_child_subreaper(Some(getpid()))
        .context(|| "cannot become the reaper of orphans".into())?;
    rustix::process::set_parent_process_death_signal(Some(ORPHANED))
        .context(|| "cannot watch over the engine".into())?;
    // It may have ended before that.
    if ProcessId::parent() == Some(engine) {
        Ok(())
    } else {
        Err(orphaned()).context(|| "cannot work without an engine".into())
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
            // Someone else of root's means the program.
            Ok(Some(arrived)) if ProcessId::parent() == Some(engine) => {
                program.send(arrived.number);
            }
            // Or nothing can be watched any more.
            _ => return WaitStatus::Killed(libc::SIGKILL),
        }
    }
}

/// Marks by which processes of a container are known among those of the host.
#[derive(Debug)]
pub struct ContainerMarks {
    /// The mount namespace that the engine left, by [`mount_namespace`]: nothing of the container is in
    /// there.
    pub host: Option<PathBuf>,
    /// Device number of the root file system, as mountinfo has it (`major:minor`): it is mounted in
    /// the engine's own mount namespace and in those that were made from it, and nowhere else.
    pub root: String,
}

impl ContainerMarks {
    /// Whether `process` is in a mount namespace of the container's, not in our own, as hooks are.
    pub(in crate::sys) fn show_inside(&self, process: ProcessId) -> bool {
        let ours = mount_namespace(ProcessId::current());
        let theirs = of_threads(process, |thread| std::fs::read_link(thread.join("ns/mnt")).ok());
        ours.is_some()
            && self.host.is_some()
            && theirs
                .is_some_and(|theirs| Some(&theirs) != ours.as_ref() && Some(theirs) != self.host)
    }

    /// Whether `process` sees the container's root file system: runtime, hooks, and the container.
    pub(in crate::sys) fn are_mounted_for(&self, process: ProcessId) -> bool {
        let open = |thread: PathBuf| std::fs::File::open(thread.join("mountinfo")).ok();
        of_threads(process, open).is_some_and(|mounts| has_device(mounts, &self.root))
    }
}

/// What `look` finds for the first thread of `process` that has not ended: the one that a process
/// began with may have.
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

/// What tells the mount namespace of a process from others.
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
