//! Process that cleans up after an OCI runtime: it removes the runtime's cgroups and restores the
//! caller's terminal.
//!
//! runc makes a cgroup for each container, and a terminal raw, and undoes both at the end; not if it
//! is killed, as it is with the engine. So a [`Janitor`] waits for the end of the engine. If the
//! janitor is killed too (a workload manager ends all of a job at once), that of the next container
//! removes the cgroups.

use super::cgroups;
use crate::error::{Context, Result};
use crate::log;
use crate::sys::process::pidfd::Process;
use crate::sys::process::{self, ProcessId};
use crate::sys::terminal::Terminal;
use rustix::fd::{AsFd, AsRawFd};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time that killed processes get to end: some wait for a file server.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a runtime of unknown PID gets to end, after the engine was killed.
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between two attempts.
const INTERVAL: Duration = Duration::from_millis(2);

/// Messages from the engine: everything has ended; the terminal is in use by another process group;
/// the terminal is the container's again.
const ENDED: u8 = b'.';
const LEFT: u8 = b'-';
const TAKEN: u8 = b'+';

/// Age from which an empty cgroup is stale. A younger one may be in preparation by a runtime.
const STALE: Duration = Duration::from_secs(60);

/// First part of the name of each container; sixteen random letters follow.
pub const PREFIX: &str = "container-";

/// Length of the random part of a name.
pub const RANDOM_LETTERS: usize = 16;

/// A process of root's that outlives the engine by a moment.
#[derive(Debug)]
pub struct Janitor {
    pid: ProcessId,
    /// Pipe to the process. Its end of file, at the latest when the engine ends, starts the work.
    /// Before that come the PID of the runtime's process, or 0, in four bytes, and messages of one
    /// byte each.
    engine: PipeWriter,
}

impl Janitor {
    /// Starts the process for the container `id`, which uses `terminal`. Must be called before the
    /// runtime starts: otherwise a kill of the engine in between would leave no janitor.
    ///
    /// # Errors
    /// If no pipe or process can be made.
    pub fn start(id: &str, terminal: Option<&Terminal>) -> Result<Self> {
        // Looked up here: this process has a /proc that shows itself.
        let paths = cgroups::candidates(id);
        log::debug("runtime", || format!("cgroups of {id}: {paths:?}"));
        let (reader, engine) = std::io::pipe().context(|| "cannot create a pipe".into())?;
        let mut keep = vec![reader.as_raw_fd()];
        keep.extend(terminal.map(|terminal| terminal.as_fd().as_raw_fd()));
        let work = || clean_up(reader, &paths, terminal);
        let pid = process::fork_detached(&keep, engine.as_raw_fd(), work)
            .context(|| "cannot start the process that cleans up after the OCI runtime".into())?;
        Ok(Self { pid, engine })
    }

    /// Sets the child whose end is the end of the container; `None` if there is no child.
    pub fn expect(&self, child: Option<ProcessId>) {
        self.send(&child.map_or(0, ProcessId::number).to_ne_bytes());
    }

    /// Tells whether the terminal is in use by another process group, whose modes must stay.
    pub fn set_terminal_left(&self, is_left: bool) {
        self.send(&[if is_left { LEFT } else { TAKEN }]);
    }

    fn send(&self, message: &[u8]) {
        // If this janitor was killed, that of the next container does the work.
        (&self.engine).write_all(message).ok();
    }

    /// PID of the process.
    pub fn pid(&self) -> ProcessId {
        self.pid
    }

    /// Starts the work now, and waits for its end.
    pub fn dismiss(self) {
        self.send(&[ENDED]);
        drop(self.engine);
        process::wait(self.pid);
    }
}

/// The janitor's life: removes stale cgroups of others, waits for the engine, restores the terminal,
/// and removes each of `paths` as soon as it is empty.
fn clean_up(mut engine: PipeReader, paths: &[PathBuf], terminal: Option<&Terminal>) {
    paths.iter().filter_map(|path| path.parent()).for_each(remove_stale);
    let mut pid = [0; 4];
    let child = engine.read_exact(&mut pid).ok();
    let child = child.and_then(|()| ProcessId::new(i32::from_ne_bytes(pid)));
    let child = child.map(Process::from_pid);
    let mut messages = vec![];
    engine.read_to_end(&mut messages).ok();
    let last = messages.iter().rfind(|message| [LEFT, TAKEN].contains(*message));
    if let Some(terminal) = terminal.filter(|_| last != Some(&LEFT)) {
        terminal.restore();
    }
    let start = Instant::now();
    let retry = |is_pending: bool, timeout: Duration| {
        let retries = is_pending && start.elapsed() < timeout;
        if retries {
            std::thread::sleep(INTERVAL);
        }
        retries
    };
    // When the engine is killed, the kernel kills the runtime after it, which may make cgroups until
    // then.
    match child {
        _ if messages.contains(&ENDED) => {}
        Some(child) => while retry(!child.has_ended(), KILL_TIMEOUT) {},
        None => while retry(true, UNKNOWN_TIMEOUT) {},
    }
    for path in paths {
        let is_busy = |error: std::io::Error| error.raw_os_error() == Some(libc::EBUSY);
        while retry(std::fs::remove_dir(path).is_err_and(is_busy), KILL_TIMEOUT) {}
    }
}

/// Removes stale cgroups of containers below `parent`; the kernel refuses those with processes.
fn remove_stale(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_container = entry.file_name().to_str().is_some_and(is_id);
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_container && age().is_some_and(|age| age > STALE) {
            std::fs::remove_dir(entry.path()).ok();
        }
    }
}

/// True for the name of a container of this engine. Other programs use the prefix too.
fn is_id(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == RANDOM_LETTERS && rest.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_other_programs_are_not_taken_for_ours() {
        for (name, expected) in [
            ("container-abcdefghijklmnop", true),
            ("container-abcdefghijklmno", false),
            ("container-abcdefghijklmnoP", false),
            ("container-0123456789abcdef", false),
            ("machine-abcdefghijklmnop", false),
        ] {
            assert_eq!(is_id(name), expected, "{name}");
        }
    }
}
