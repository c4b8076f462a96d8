//! All that came from a process: found by parents, signalled one by one. A process group or a session
//! may hold others too: that of the caller is as often as not a workload manager's.

use crate::sys::fs::read::read_proc;
use crate::sys::proc::stat::Stat;
use crate::sys::process::pidfd::Process;
use crate::sys::process::{self, ProcessId};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::time::Duration;

/// Kills all children of this process, and what comes to it from them, until none is left that runs.
/// Zombies that stay are traced by somebody else, who may never wait for them.
pub(in crate::sys) fn kill_children() {
    end(|| {
        let children = children();
        // Who makes processes faster than they are ended is the youngest.
        children.iter().rev().for_each(|child| child.send(libc::SIGKILL));
        children
    });
}

/// Ends those children of this process that `is_ours` proves to be of the container, and all that
/// came from them: children from before the start, and theirs, are the caller's own.
pub(in crate::sys) fn kill_proven(is_ours: impl Fn(ProcessId) -> bool) {
    let mut known: Vec<Process> = Vec::new();
    end(|| {
        known.retain(|process| !process.has_ended());
        let mut found = children();
        found.retain(|child| is_ours(child.pid()) || known.iter().any(|one| one.is(child)));
        for root in &found {
            // Those that it makes meanwhile would come to us without a proof.
            root.send(libc::SIGSTOP);
            signal_descendants(root, None, libc::SIGSTOP, |_| true);
            known.append(&mut descendants(root));
        }
        known.iter().chain(&found).for_each(|process| process.send(libc::SIGKILL));
        found
    });
}

/// Repeats `kill`, which gives the children that it meant, until none of them is left that runs.
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
        // One that has just become a zombie may have left children, which come to us.
        if is_same && were_zombies {
            return;
        }
        if is_same {
            were_zombies = !children.iter().any(runs);
            std::thread::sleep(patience);
            // Some wait for a file server before they go.
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

/// How long those that were killed get before they are looked at again.
const SHORT: Duration = Duration::from_micros(200);
const LONG: Duration = Duration::from_millis(100);

/// The children of this process, which has one thread. They keep their numbers until it has waited
/// for them.
fn children() -> Vec<Process> {
    let own = ProcessId::current();
    let find = |pid| Process::child_of(pid, own);
    match read_proc(format!("/proc/{own}/task/{own}/children")) {
        Ok(text) => text.split_whitespace().flat_map(str::parse).map(find).collect(),
        // Kernels before 3.5, or built without it.
        Err(_) => {
            let is_ours = |(_, parent): &(ProcessId, i32)| *parent == own.number();
            parents().into_iter().filter(is_ours).map(|(pid, _)| find(pid)).collect()
        }
    }
}

/// Sends `signal` to those of whom `is_meant` among all that came from `root`, but not to `except`.
/// `root` is a child of ours, or proved to be of the container.
pub(in crate::sys) fn signal_descendants(
    root: &Process,
    except: Option<&Process>,
    signal: i32,
    is_meant: impl Fn(ProcessId) -> bool,
) {
    let mut reached: Vec<Process> = Vec::new();
    // Who was about to fork when a SIGSTOP came has had children since. Not for ever: an answer to
    // SIGCONT may be to fork.
    for _ in 0..LOOKS {
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

/// Whether nothing is left of what came from `root`, but for `except`, than zombies whose tracers do
/// not wait for them.
pub(in crate::sys) fn are_held(root: &Process, except: &Process) -> bool {
    let rest = descendants(root);
    let mut rest = rest.iter().filter(|process| !process.is(except)).peekable();
    rest.peek().is_some() && rest.all(|process| process.unreported_status().is_some())
}

/// How often those are looked for that a signal has not reached yet.
const LOOKS: usize = 16;

/// All that came from `process`, parents before children.
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

/// Those that are children of `process` still, among the numbers of all and their parents.
fn children_of(process: &Process, parents: &[(ProcessId, i32)]) -> Vec<Process> {
    let theirs = parents.iter().filter(|(_, parent)| *parent == process.pid().number());
    let children = theirs.map(|(child, _)| Process::child_of(*child, process.pid())).collect();
    // Its number may be another's by now, and so may they.
    if process.has_ended() { vec![] } else { children }
}

/// The numbers of every process and its parent.
fn parents() -> Vec<(ProcessId, i32)> {
    process::lift_limits();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: ProcessId| Some((pid, Stat::read(pid.number())?.parent))).collect()
}
