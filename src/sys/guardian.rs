//! Keeps together what an OCI runtime starts among the processes of the host, where no PID namespace
//! does it. A guardian stands between engine and runtime: a process of root's, which no user can
//! signal, and to which the kernel gives all that lose their parent below it. It ends the rest when
//! the runtime has ended, and everything when the engine has. See PR_SET_CHILD_SUBREAPER and
//! PR_SET_PDEATHSIG of prctl(2). Start at [`spawn_guarded`].

use super::contained::{Contained, Hold, Program, orphaned, spawn};
use super::ids;
use super::process::{self, Change, Process};
use super::signal::Signals;
use crate::error::{Because, Error, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, getppid};
use std::io::{PipeWriter, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// What tells the guardian that the engine has ended, if it has.
const ORPHANED: Signal = Signal::TERM;

/// Has what loses its parent below this process come to it from now on, should the guardian itself be
/// killed. Whether this kernel can do that, which a guardian needs too (Linux 3.4).
#[must_use]
pub fn adopt_orphans() -> bool {
    rustix::process::set_child_subreaper(Some(getpid())).is_ok()
}

/// Starts `program` with all ids of root, below a guardian: when the program ends or is killed, or
/// we are, everything ends that it started. `host` is the mount namespace that the engine left, by
/// [`mount_namespace`]: nothing of the container is in there.
///
/// # Errors
/// When the kernel refuses a step; then nothing runs.
pub fn spawn_guarded(program: Program<'_>, host: Option<PathBuf>) -> Result<Contained> {
    let cannot = || "cannot start the container's guardian".to_owned();
    if !adopt_orphans() {
        return Err(Error::caused_by(cannot(), "this kernel has no child subreapers")
            .hint("use --pid=private"));
    }
    let (mut answer, report) = std::io::pipe().because(cannot)?;
    let engine = getpid();
    // SAFETY: this program has one thread, so the child may go on as it likes.
    let child = match unsafe { libc::fork() } {
        0 => guard(engine, program, report),
        child if child > 0 => Pid::from_raw(child),
        _ => None,
    };
    let child = child.ok_or_else(std::io::Error::last_os_error).because(cannot)?;
    let guardian = Process::find(child);
    drop(report);
    let mut text = String::new();
    answer.read_to_string(&mut text).because(cannot)?;
    match text.parse().ok().and_then(Pid::from_raw) {
        // The program may have ended, and its number be another's.
        Some(pid) => {
            let program = Process::find_child(pid, guardian.pid());
            let child = guardian.pid().unsigned_abs();
            Ok(Contained { child, program, hold: Hold::Guardian { guardian, host } })
        }
        None => {
            process::wait_for(guardian.pid().unsigned_abs());
            Err(if text.is_empty() { Error::new(cannot()) } else { Error::new(text) })
        }
    }
}

/// The guardian's life. It ends as the program does.
fn guard(engine: Pid, program: Program<'_>, mut report: PipeWriter) -> ! {
    let signals = program.signals;
    let guardian = getpid();
    let started = prepare(engine).and_then(|()| {
        spawn(program, move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() == Some(guardian) { Ok(()) } else { Err(orphaned()) }
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
            // A reader of the program's output shall not wait for this process.
            process::close_all_but(&[]);
            process::lift_limits();
            watch(child.id(), signals, engine)
        }
        Err(_) => Change::Exited(1),
    };
    // Some make processes faster than others are ended.
    rustix::process::setpriority_process(None, -20).ok();
    end_offspring(None);
    process::end_as(change)
}

fn prepare(engine: Pid) -> Result<()> {
    ids::become_root().because(|| "cannot become root".into())?;
    // Not in the group that a launcher kills, nor in the one that a terminal stops.
    rustix::process::setsid().because(|| "cannot leave the session".into())?;
    rustix::process::set_child_subreaper(Some(getpid()))
        .because(|| "cannot become the reaper of orphans".into())?;
    rustix::process::set_parent_process_death_signal(Some(ORPHANED))
        .because(|| "cannot watch over the engine".into())?;
    // It may have ended before that.
    if getppid() == Some(engine) {
        Ok(())
    } else {
        Err(orphaned()).because(|| "cannot work without an engine".into())
    }
}

/// Waits until the program has ended, or the engine.
fn watch(program: u32, signals: &Signals, engine: Pid) -> Change {
    loop {
        match signals.next(None) {
            Ok(Some(arrived)) if arrived.number == libc::SIGCHLD => {
                while let Some((pid, change)) = process::next_change() {
                    if pid == program {
                        return change;
                    }
                }
            }
            Ok(Some(arrived)) if arrived.number != ORPHANED.as_raw() => {}
            // Someone else of root's means the program.
            Ok(Some(arrived)) if getppid() == Some(engine) => {
                process::send(program, arrived.number);
            }
            // Or nothing can be watched any more.
            _ => return Change::Killed(libc::SIGKILL),
        }
    }
}

/// Kills all that came from this process, or those children of whom `is_meant`, by their numbers, and
/// all that came from them, until there is nothing left.
pub(super) fn end_offspring(is_meant: Option<&dyn Fn(i32) -> bool>) {
    let mut before = Vec::new();
    let mut patience = SHORT;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Err(Errno::CHILD) => return,
            _ => {}
        }
        // Children only: they keep their numbers until we have waited for them. When one of them is
        // gone, the next generation are ours.
        let mut children = children();
        if let Some(is_meant) = is_meant {
            children.retain(|child| is_meant(*child));
            // If all are meant, there are some all the same when they cannot be listed.
            if children.is_empty() {
                return;
            }
        }
        for child in &children {
            process::send(child.unsigned_abs(), libc::SIGKILL);
            // The whole group at once: else one that forks and ends again and again gets away. It
            // is of the child's session, in which there is nobody else: that of the guardian, or one
            // that was made below it.
            if let Some(group) = group_of(*child).filter(|group| *group != own_group()) {
                process::send_to_group(group.unsigned_abs(), libc::SIGKILL);
            }
        }
        if children == before {
            std::thread::sleep(patience);
            // Some wait for a file server before they go.
            patience = (patience * 2).min(LONG);
        } else {
            patience = SHORT;
        }
        before = children;
    }
}

/// How long those that were killed get before they are looked at again.
const SHORT: Duration = Duration::from_micros(200);
const LONG: Duration = Duration::from_millis(100);

/// The children of this process, which has one thread.
fn children() -> Vec<i32> {
    let own = number(getpid());
    match std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        Ok(text) => text.split_whitespace().flat_map(str::parse).collect(),
        // Kernels before 3.5, or built without it.
        Err(_) => {
            let is_ours = |(_, parent): &(i32, i32)| *parent == own;
            parents().into_iter().filter(is_ours).map(|(pid, _)| pid).collect()
        }
    }
}

fn own_group() -> i32 {
    number(rustix::process::getpgrp())
}

/// Sends `signal` to those of whom `is_meant` among all that came from our child `guardian`, but not
/// to `except`.
pub(super) fn signal_offspring(
    guardian: &Process,
    except: &Process,
    signal: i32,
    is_meant: impl Fn(u32) -> bool,
) {
    process::lift_limits();
    let mut reached = vec![except.pid()];
    // Who was about to fork when a SIGSTOP came has had children since. Not for ever: an answer to
    // SIGCONT may be to fork.
    for _ in 0..LOOKS {
        let mut found = offspring(guardian);
        found.retain(|process| {
            !reached.contains(&process.pid()) && is_meant(process.pid().unsigned_abs())
        });
        if found.is_empty() {
            return;
        }
        for process in found {
            process.send(signal);
            reached.push(process.pid());
        }
    }
}

/// How often those are looked for that a signal has not reached yet.
const LOOKS: usize = 16;

/// All that came from `process`, a child of ours, parents before children.
fn offspring(process: &Process) -> Vec<Process> {
    let parents = parents();
    let mut found = children_of(process, &parents);
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.append(&mut children_of(process, &parents));
        next += 1;
    }
    found
}

/// Those that are children of `process` still, among the numbers of all and their parents.
fn children_of(process: &Process, parents: &[(i32, i32)]) -> Vec<Process> {
    let theirs = parents.iter().filter(|(_, parent)| *parent == process.pid());
    let pids = theirs.filter_map(|(child, _)| Pid::from_raw(*child));
    let children = pids.map(|pid| Process::find_child(pid, process.pid())).collect();
    // Its number may be another's by now, and so may they.
    if process.has_ended() { vec![] } else { children }
}

/// What tells the mount namespace of a process from others.
#[must_use]
pub fn mount_namespace(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// The numbers of every process and its parent.
fn parents() -> Vec<(i32, i32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
}

pub(super) fn parent_of(pid: i32) -> Option<i32> {
    field_of(pid, PARENT)
}

/// Whether a process is of another session than we are.
pub(super) fn is_of_other_session(pid: i32) -> bool {
    let own = rustix::process::getsid(None).map(number);
    own.is_ok_and(|own| field_of(pid, SESSION).is_some_and(|session| session != own))
}

fn group_of(pid: i32) -> Option<i32> {
    field_of(pid, GROUP).filter(|group| *group > 1)
}

fn field_of(pid: i32, field: usize) -> Option<i32> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    field_in(&String::from_utf8_lossy(&text), field)
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// Fields of `/proc/<pid>/stat`, counted from the one behind the name. See proc(5).
const PARENT: usize = 1;
const GROUP: usize = 2;
const SESSION: usize = 3;

/// A field in the text of `/proc/<pid>/stat`; the name is of any letters, in parentheses.
fn field_in(text: &str, field: usize) -> Option<i32> {
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        for (text, expected) in [
            ("7 (sh) S 5 7 7 0", Some(5)),
            ("7 (a) S 1 (b)) R 6 7", Some(6)),
            ("1 (init) S 0 1", Some(0)),
            ("7 (sh", None),
            ("7 (sh) S", None),
            ("", None),
        ] {
            assert_eq!(field_in(text, PARENT), expected, "{text}");
        }
    }
}
