//! Processes: children, their wait statuses, signals, limits. The child that is the OCI runtime is in
//! [`runtime_child`].

pub mod container_child;
pub mod daemon;
mod descendants;
pub mod hook_program;
mod id;
pub mod limits;
pub mod output;
pub mod pidfd;
pub mod runtime_child;
pub mod seccomp;
pub mod signals;
pub mod start_notify;
pub mod supervisor;
pub mod user_stderr;

pub use id::ProcessId;

use crate::error::{Context, Error, Result};
use crate::sys::ids;
use crate::sys::process::signals::{Signals, empty_set};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, RawFd};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Clears the environment of this process and returns it: no variable that a user can set reaches code
/// that runs as root.
#[must_use]
pub fn take_environment() -> Vec<(OsString, OsString)> {
    let environment: Vec<_> = std::env::vars_os().collect();
    // Not one by one: that would panic at a name that holds `=`, and leave what has none.
    // SAFETY: this program has one thread now.
    unsafe { libc::clearenv() };
    environment
}

/// Runs `work` in a child that is root in every ID, in a session of its own, with no descriptor open
/// but those of `keep`. It never has `sign`, the end of a pipe that the parent closes as a signal.
///
/// # Errors
/// If fork(2) fails.
pub fn fork_detached(
    keep: &[RawFd],
    sign: RawFd,
    work: impl FnOnce(),
) -> std::io::Result<ProcessId> {
    // SAFETY: this program has one thread, so the child may go on as it likes.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: this process never uses it.
            unsafe { libc::close(sign) };
            if detach(keep).is_ok() {
                work();
            }
            // SAFETY: ends this process at once; buffers of the parent are not flushed twice.
            unsafe { libc::_exit(0) }
        }
        child => ProcessId::new(child).ok_or_else(std::io::Error::last_os_error),
    }
}

fn detach(keep: &[RawFd]) -> Result<()> {
    ids::become_root().context(|| "cannot become root".into())?;
    rustix::process::setsid().context(|| "cannot leave the session".into())?;
    // A reader of the engine's output shall not wait for this process.
    close_all_but(keep);
    lift_limits();
    Ok(())
}

/// Closes every descriptor, 0 to 2 too, but those of `keep` and regular files of the caller's: closing
/// one may wait for a file server, which may be the caller's own. Those close as this process ends.
pub(in crate::sys) fn close_all_but(keep: &[RawFd]) {
    let files = (0..OWN_DESCRIPTORS).filter(|fd| is_file(*fd));
    let keep = keep.iter().copied().chain(files).filter_map(|fd| u32::try_from(fd).ok());
    let mut keep: Vec<u32> = keep.collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for end in keep.into_iter().chain([u32::MAX]) {
        // SAFETY: what is closed is not used in this process.
        let answer =
            unsafe { libc::syscall(libc::SYS_close_range, first, end.saturating_sub(1), 0) };
        if answer != 0 && first < end {
            for fd in first..end.min(MANY_DESCRIPTORS) {
                // SAFETY: as above.
                unsafe { libc::close(fd.cast_signed()) };
            }
        }
        first = end.saturating_add(1);
    }
}

/// First descriptor that is neither the caller's nor a copy of one: see `container::plan::handoff`.
const OWN_DESCRIPTORS: RawFd = 8;

/// Waits for the child `pid` to end, and returns its wait status.
///
/// # Errors
/// Those of waitpid(2).
pub fn wait_for_child(pid: ProcessId) -> Result<WaitStatus> {
    use rustix::process::{WaitOptions, waitpid};
    loop {
        match waitpid(Some(pid.as_pid()), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(WaitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context(|| "cannot wait for a process".into()),
        }
    }
}

/// Tells whether a descriptor is a file with a name: not a pipe, socket or device, for whose end others
/// may wait.
fn is_file(fd: RawFd) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    name.is_ok_and(|name| name.is_absolute() && !name.starts_with("/dev"))
}

/// Above every descriptor that is open while the OCI runtime runs; used before Linux 5.9.
const MANY_DESCRIPTORS: u32 = 1024;

fn enter_pid_namespace(namespace: impl AsFd) -> rustix::io::Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
}

/// Sends signal `number` to every process of a PID namespace but the first.
pub(in crate::sys) fn signal_all_in(namespace: impl AsFd, number: i32) {
    // kill(-1) reaches all processes of the sender's namespace, so a process in there sends it.
    if enter_pid_namespace(namespace).is_err() {
        return;
    }
    // SAFETY: this program has one thread, and the child makes two system calls.
    match unsafe { libc::fork() } {
        // SAFETY: passes numbers, and ends the child at once.
        0 => unsafe {
            libc::kill(-1, number);
            libc::_exit(0)
        },
        // Without a process in it, the namespace takes no other.
        child => wait_for_forked(child),
    }
}

/// Stops this process until SIGCONT. SIGSTOP always stops it; SIGTSTP does not in an orphaned process
/// group, which no shell could continue.
pub fn stop(signal: i32) {
    let mut set = empty_set();
    // SAFETY: sends a signal to this process, and unblocks it for a moment.
    unsafe {
        libc::sigaddset(&raw mut set, signal);
        libc::kill(libc::getpid(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Raises the limit of open files and lowers the out-of-memory score, for processes that must not fail.
/// Called when nothing is started any more that would inherit both.
pub(in crate::sys) fn lift_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // For pidfds: processes above the limit are known by their PIDs.
    let most = Some(NR_OPEN);
    // Root without CAP_SYS_RESOURCE goes as far as its caller.
    let own = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: own, maximum: own }))
        .ok();
    // The memory of this process is small beside that of those that it kills.
    let set = |score| std::fs::write("/proc/self/oom_score_adj", score);
    set("-1000").or_else(|_| set("0")).ok();
}

/// Default of `fs.nr_open`, the kernel's maximum of RLIMIT_NOFILE.
const NR_OPEN: u64 = 1 << 20;

/// Waits for a child of [`fork_detached`] to end.
pub fn wait(child: ProcessId) {
    let wait =
        || rustix::process::waitpid(Some(child.as_pid()), rustix::process::WaitOptions::empty());
    while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
}

/// Waits for the child that fork(2) gave as `child`; below 0, there is none.
fn wait_for_forked(child: libc::pid_t) {
    if let Some(child) = ProcessId::new(child) {
        wait(child);
    }
}

/// Tells whether a read would not block: there is data, or the end of a pipe.
pub(in crate::sys) fn is_readable(file: impl AsFd) -> std::io::Result<bool> {
    let mut file = [PollFd::new(&file, PollFlags::IN)];
    Ok(poll(&mut file, Some(&Timespec::default()))? > 0)
}

/// Sends signal `number` to this process.
pub fn raise(number: i32) {
    // SAFETY: passes a number.
    unsafe { libc::raise(number) };
}

/// Sends signal `number` to the process group of the child `leader`. For `init`, which has its user's
/// rights and no others, and has not waited for that child.
pub fn send_to_group(leader: ProcessId, number: i32) {
    // SAFETY: passes numbers. That a group has just ended is not an error.
    unsafe { libc::kill(-leader.number(), number) };
}

/// Exit code of a program that `signal` ended, as in shells: 128 plus its number.
#[must_use]
pub fn signal_exit_code(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// Status of a child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    /// It exited with this code.
    Exited(u8),
    /// This signal killed it.
    Killed(i32),
}

impl WaitStatus {
    /// Converts a status of waitpid(2).
    pub(in crate::sys) fn from_raw(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Killed(libc::WTERMSIG(status))
        } else {
            Self::Exited(libc::WEXITSTATUS(status) as u8)
        }
    }
}

/// Ends this process with the status of another: by the same exit code or signal.
pub(in crate::sys) fn exit_like(change: WaitStatus) -> ! {
    let status = match change {
        WaitStatus::Exited(status) => status,
        WaitStatus::Killed(signal) => {
            // SAFETY: changes what this process does on signals, as it ends; it leaves no core.
            unsafe {
                libc::prctl(libc::PR_SET_DUMPABLE, 0);
                libc::signal(signal, libc::SIG_DFL);
                let mut set = empty_set();
                libc::sigaddset(&raw mut set, signal);
                libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
                libc::raise(signal);
            }
            signal_exit_code(signal)
        }
    };
    // SAFETY: ends this process at once; buffers of the parent are not flushed twice.
    unsafe { libc::_exit(status.into()) }
}

/// Waits for a child that has ended already; `None` if there is none.
#[must_use]
pub fn reap() -> Option<(ProcessId, WaitStatus)> {
    use rustix::process::{WaitOptions, wait};
    let (pid, status) = wait(WaitOptions::NOHANG).ok().flatten()?;
    let change = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => WaitStatus::Exited(code as u8),
        (_, Some(signal)) => WaitStatus::Killed(signal),
        _ => return None,
    };
    Some((pid.into(), change))
}

/// Starts `program` for `init`, with this process's environment and descriptors, as the leader of a new
/// process group, which becomes the terminal's foreground group.
///
/// # Errors
/// If it cannot be executed. The exit code is 127 if it does not exist, else 126.
pub fn spawn_in_own_group(
    program: &OsStr,
    args: &[OsString],
    signals: &Signals,
) -> Result<ProcessId> {
    let mask = signals.previous_mask();
    let mut command = Command::new(program);
    command.args(args);
    // SAFETY: the closure runs in the forked child of a program with one thread.
    unsafe {
        command.pre_exec(move || {
            mask.restore();
            lead_a_foreground_group()
        });
    }
    let child = command.spawn().map_err(|error| cannot_execute(program, error))?;
    Ok(ProcessId::from_child(&child))
}

/// Replaces this process by the program `words`, found by the PATH of `variables`, its whole environment.
/// Returns only if it cannot be executed; exit code 127 if it does not exist, otherwise 126.
#[must_use]
pub fn become_program_with(words: &[String], variables: &BTreeMap<String, String>) -> Error {
    let Some((program, args)) = words.split_first() else {
        return Error::new("no program to execute").with_exit_code(126);
    };
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables);
    cannot_execute(OsStr::new(program), command.exec())
}

/// Executes `program` in this process, with its environment and descriptors. Returns only an error; the
/// exit code is 127 if the program does not exist, else 126.
#[must_use]
pub fn become_program(program: &OsStr, args: &[OsString]) -> Error {
    cannot_execute(program, Command::new(program).args(args).exec())
}

fn cannot_execute(program: &OsStr, error: std::io::Error) -> Error {
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Error::caused_by(format!("cannot execute {}", program.to_string_lossy()), error)
        .with_exit_code(code)
}

fn lead_a_foreground_group() -> std::io::Result<()> {
    rustix::process::setpgid(None, None)?;
    // A background process that takes the terminal is stopped by SIGTTOU unless it ignores it.
    // SAFETY: SIG_IGN and SIG_DFL run no code of ours.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    // SAFETY: descriptor 0 is open: std opens /dev/null where the caller closed it.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    // Without a terminal there is no foreground to take.
    rustix::termios::tcsetpgrp(stdin, rustix::process::getpgrp()).ok();
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_DFL) };
    Ok(())
}
