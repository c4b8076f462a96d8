//! Processes: children, what becomes of them, and signals for them. The OCI runtime is a child of a
//! kind of its own: see [`contained`](crate::sys::process::runtime_child).

pub mod daemon;
pub mod limits;
mod offspring;
pub mod output;
pub mod pidfd;
pub mod runtime_child;
pub mod seccomp;
pub mod signals;
pub mod start_notify;
pub mod supervisor;
pub mod user_stderr;

use crate::error::{Context, Error, Result};
use crate::sys::ids;
use crate::sys::process::signals::{Signals, empty_set};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, RawFd};
use rustix::process::Pid;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Takes the environment away from this process and gives it to the caller, who may hand parts of
/// it on: nothing that a user can set reaches code that runs as root.
#[must_use]
pub fn take_environment() -> Vec<(OsString, OsString)> {
    let environment: Vec<_> = std::env::vars_os().collect();
    // Not one by one: that would panic at a name that holds `=`, and leave what has none.
    // SAFETY: this program has one thread now.
    unsafe { libc::clearenv() };
    environment
}

/// Runs `work` in a child that nothing of the caller's touches: root in every id, in a session of
/// its own, with no descriptor open but those of `keep`, and surely without `sign`, whose end is a
/// sign that the parent gives.
///
/// # Errors
/// When no process can be made.
pub fn fork_detached(keep: &[RawFd], sign: RawFd, work: impl FnOnce()) -> std::io::Result<u32> {
    // SAFETY: this program has one thread, so the child may go on as it likes.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            // SAFETY: this process never uses it.
            unsafe { libc::close(sign) };
            if detach(keep).is_ok() {
                work();
            }
            // SAFETY: ends this process at once; nothing of the parent's is flushed twice.
            unsafe { libc::_exit(0) }
        }
        child => Ok(child.unsigned_abs()),
    }
}

fn detach(keep: &[RawFd]) -> Result<()> {
    ids::become_root().context(|| "cannot become root".into())?;
    rustix::process::setsid().context(|| "cannot leave the session".into())?;
    // A reader of our output shall not wait for this process.
    close_all_but(keep);
    lift_limits();
    Ok(())
}

/// Closes every descriptor, 0 to 2 too, but those of `keep` and files that the caller brought along.
/// To close a file, a file system may have to ask its server, and that may be the caller's own: only
/// this process's end does it, when there is nothing left to do.
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

/// The first descriptor that is not the caller's, nor a copy of one: see `handoff`.
const OWN_DESCRIPTORS: RawFd = 8;

/// Whether a descriptor is a file with a name, and neither a pipe, a socket nor a device. Nobody waits
/// for the end of a file.
fn is_file(fd: RawFd) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    name.is_ok_and(|name| name.is_absolute() && !name.starts_with("/dev"))
}

/// More than this program has open when the OCI runtime runs; for kernels before 5.9.
const MANY_DESCRIPTORS: u32 = 1024;

fn enter_pid_namespace(namespace: impl AsFd) -> rustix::io::Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
}

/// Sends signal `number` to every process of a PID namespace but the first.
pub(in crate::sys) fn signal_all_in(namespace: impl AsFd, number: i32) {
    // -1 means all that the sender sees: so a process in there sends it.
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
        child => wait_for(u32::try_from(child).unwrap_or_default()),
    }
}

/// Stops this process, until someone continues it: by SIGSTOP surely, by SIGTSTP not where the kernel
/// finds nobody in the session who could.
pub fn stop(signal: i32) {
    let mut set = empty_set();
    // SAFETY: sends a signal to this process, and lets it come, all the same if it is blocked.
    unsafe {
        libc::sigaddset(&raw mut set, signal);
        libc::kill(libc::getpid(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Lifts the limits that could keep this process from its work: for what must not fail, when nothing
/// is started any more that shall be under them.
pub(in crate::sys) fn lift_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // For handles of processes: those above the limit are known by their numbers.
    let most = Some(MANY_HANDLES);
    // Root without CAP_SYS_RESOURCE goes as far as its caller.
    let own = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: own, maximum: own }))
        .ok();
    // Its memory is nothing beside what it may have to end.
    let set = |score| std::fs::write("/proc/self/oom_score_adj", score);
    set("-1000").or_else(|_| set("0")).ok();
}

/// The kernel's own default for the most that a process may have (`fs.nr_open`).
const MANY_HANDLES: u64 = 1 << 20;

/// Waits for the child `pid` to end; 0 is none.
pub fn wait_for(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let wait = || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
}

/// Whether there is something to read of a descriptor: of a pipe, its end too.
pub(in crate::sys) fn is_readable(file: impl AsFd) -> std::io::Result<bool> {
    let mut file = [PollFd::new(&file, PollFlags::IN)];
    Ok(poll(&mut file, Some(&Timespec::default()))? > 0)
}

/// Sends signal `number` to this process.
pub fn raise(number: i32) {
    // SAFETY: passes a number.
    unsafe { libc::raise(number) };
}

/// Sends signal `number` to the process group that the child `leader` leads: for `init`, which has
/// its user's rights and no others, and has not waited for that child.
pub fn send_to_group(leader: u32, number: i32) {
    if let Ok(leader) = libc::pid_t::try_from(leader) {
        // SAFETY: passes numbers. A group that has just ended is no error here.
        unsafe { libc::kill(-leader, number) };
    }
}

/// The exit status that tells of a program ended by `signal`, as shells have it.
#[must_use]
pub fn status_of(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// What has become of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It ended with this status.
    Exited(u8),
    /// This signal ended it.
    Killed(i32),
}

impl Change {
    /// From a status of waitpid(2).
    pub(in crate::sys) fn of_status(status: i32) -> Self {
        match libc::WIFSIGNALED(status) {
            true => Self::Killed(libc::WTERMSIG(status)),
            false => Self::Exited(libc::WEXITSTATUS(status) as u8),
        }
    }
}

/// Ends this process as another ended.
pub(in crate::sys) fn end_as(change: Change) -> ! {
    let status = match change {
        Change::Exited(status) => status,
        Change::Killed(signal) => {
            // SAFETY: changes what this process does on signals, as it ends; it leaves no core.
            unsafe {
                libc::prctl(libc::PR_SET_DUMPABLE, 0);
                libc::signal(signal, libc::SIG_DFL);
                let mut set = empty_set();
                libc::sigaddset(&raw mut set, signal);
                libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
                libc::raise(signal);
            }
            status_of(signal)
        }
    };
    // SAFETY: ends this process at once; nothing of a parent's is flushed twice.
    unsafe { libc::_exit(status.into()) }
}

/// The next child that ended, without waiting for one: its number and what became of it.
#[must_use]
pub fn next_change() -> Option<(u32, Change)> {
    use rustix::process::{WaitOptions, wait};
    let (pid, status) = wait(WaitOptions::NOHANG).ok().flatten()?;
    let pid = u32::try_from(Pid::as_raw(Some(pid))).ok()?;
    let change = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Change::Exited(code as u8),
        (_, Some(signal)) => Change::Killed(signal),
        _ => return None,
    };
    Some((pid, change))
}

/// Starts `program` with our environment and descriptors as the leader of a new process group, in
/// the terminal's foreground if we are: what `init` runs.
///
/// # Errors
/// When it cannot be executed; the exit status is 127 when it is not there, else 126.
pub fn spawn_in_own_group(program: &OsStr, args: &[OsString], signals: &Signals) -> Result<u32> {
    let mask = signals.mask_before();
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
    Ok(child.id())
}

/// Goes on as `program`, with our environment and descriptors. Comes back only when it cannot be
/// executed; the exit status is 127 when it is not there, else 126.
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
