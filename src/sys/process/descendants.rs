//! Descendants of a process, found by their parents' PIDs and signalled one by one. Process groups and
//! sessions would not do: that of the caller often is a workload manager's.

use crate::sys::fs::read::read_proc;
use crate::sys::proc::stat::Stat;
use crate::sys::process::pidfd::Process;
use crate::sys::process::{self, ProcessId};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::time::Duration;

/// Kills all children of this process, and the orphans that are reparented to it, until none runs.
/// Zombies may stay, which a tracer elsewhere does not wait for.
pub(in crate::sys) fn kill_children() {
    end(|| {
        let children = children();
        // A process that forks faster than this kills is the youngest.
        children.iter().rev().for_each(|child| child.send(libc::SIGKILL));
        children
    });
}

/// Kills those children of this process that `is_ours` proves to be of the container, and all their
/// descendants. Other children were there before the start: they are the caller's own.
pub(in crate::sys) fn kill_proven(is_ours: impl Fn(ProcessId) -> bool) {
    let mut known: Vec<Process> = Vec::new();
    end(|| {
        known.retain(|process| !process.has_ended());
        let mut found = children();
        found.retain(|child| is_ours(child.pid()) || known.iter().any(|one| one.is(child)));
        for root in &found {
            // Children that it forks meanwhile would be reparented to this process without a proof.
            root.send(libc::SIGSTOP);
            signal_descendants(root, None, libc::SIGSTOP, |_| true);
            known.append(&mut descendants(root));
        }
        known.iter().chain(&found).for_each(|process| process.send(libc::SIGKILL));
        found
    });
}

/// Repeats `kill`, which returns the children that it signalled, until none of them runs.
fn end(mut kill: impl FnMut() -> Vec<Process>) {
    let mut before: Vec<Process> = Vec::new();
    let mut patience = SHORT;
    let mut were_zombies = false;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Err(Errno::CHILD) => return,
            _ => {}
        }
        let children = kill();
        let is_same = children.len() == before.len()
            && children.iter().zip(&before).all(|(one, other)| one.is(other));
        // A new zombie may have left children, which are reparented to this process.
        if is_same && were_zombies {
            return;
        }
        if is_same {
            were_zombies = !children.iter().any(runs);
            std::thread::sleep(patience);
            // Some wait for a file server before they end.
            patience = (patience * 2).min(LONG);
        } else {
            were_zombies = false;
            patience = SHORT;
        }
        before = children;
    }
}

fn runs(process: &Process) -> bool {
    process.stat().is_some_and(|stat| !stat.is_zombie())
}

/// First and longest pause before killed processes are looked at again.
const SHORT: Duration = Duration::from_micros(200);
const LONG: Duration = Duration::from_millis(100);

/// Lists the children of this process, which has one thread. They keep their PIDs until it waits for
/// them.
fn children() -> Vec<Process> {
    let own = ProcessId::current();
    let find = |pid| Process::child_of(pid, own);
    match read_proc(format!("/proc/{own}/task/{own}/children")) {
        Ok(text) => text.split_whitespace().flat_map(str::parse).map(find).collect(),
        // Before Linux 3.5, or without CONFIG_PROC_CHILDREN.
        Err(_) => {
            let is_ours = |(_, parent): &(ProcessId, i32)| *parent == own.number();
            parents().into_iter().filter(is_ours).map(|(pid, _)| find(pid)).collect()
        }
    }
}

/// Sends `signal` to the descendants of `root` for which `is_meant`, but not to `except`. `root` is a
/// child of this process, or proved to be of the container.
pub(in crate::sys) fn signal_descendants(
    root: &Process,
    except: Option<&Process>,
    signal: i32,
    is_meant: impl Fn(ProcessId) -> bool,
) {
    let mut reached: Vec<Process> = Vec::new();
    // A process that was about to fork when SIGSTOP came has new children. The number of scans is
    // bounded: a process may fork whenever SIGCONT comes.
    for _ in 0..MAX_SCANS {
        let mut found = descendants(root);
        found.retain(|process| {
            let is_done = reached.iter().chain(except).any(|one| one.is(process));
            !is_done && is_meant(process.pid())
        });
        if found.is_empty() {
            return;
        }
        found.iter().for_each(|process| process.send(signal));
        reached.append(&mut found);
    }
}

/// Tells whether `root` has descendants besides `except`, and all of these are zombies whose tracers do
/// not wait for them.
pub(in crate::sys) fn are_held(root: &Process, except: &Process) -> bool {
    let rest = descendants(root);
    let mut rest = rest.iter().filter(|process| !process.is(except)).peekable();
    rest.peek().is_some() && rest.all(|process| process.unreported_status().is_some())
}

/// Maximum number of scans for descendants that a signal has not reached.
const MAX_SCANS: usize = 16;

/// Lists all descendants of `process`, parents before children.
fn descendants(process: &Process) -> Vec<Process> {
    let parents = parents();
    let mut found = children_of(process, &parents);
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.append(&mut children_of(process, &parents));
        next += 1;
    }
    found
}

/// Lists the children of `process`, by the PIDs of all processes and of their parents.
fn children_of(process: &Process, parents: &[(ProcessId, i32)]) -> Vec<Process> {
    let theirs = parents.iter().filter(|(_, parent)| *parent == process.pid().number());
    let children = theirs.map(|(child, _)| Process::child_of(*child, process.pid())).collect();
    // If it has ended, its PID and the children may be another's.
    if process.has_ended() { vec![] } else { children }
}

/// Lists every process and the PID of its parent.
fn parents() -> Vec<(ProcessId, i32)> {
    process::lift_limits();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: ProcessId| Some((pid, Stat::read(pid.number())?.parent))).collect()
}
