//! Processes: our own descriptors and limits, and the OCI runtime as a child that cannot outlive us.

use super::signal::Signals;
use super::{guard, ids};
use crate::error::{Because, Error, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;
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

/// A program to execute as root, by its checked absolute path.
#[derive(Debug)]
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
}

/// A child that ends when we do.
#[derive(Debug)]
pub struct Contained {
    /// Its number in our own PID namespace.
    pub pid: u32,
    /// Closed by the kernel when this process ends, and not before.
    _alive: std::io::PipeWriter,
    /// The PID namespace whose first process it is.
    namespace: Option<std::fs::File>,
}

impl Contained {
    /// Sends signal `number` to all that it started, directly or not, but not to itself. Unlike
    /// others, SIGSTOP then stops the first process of a container too.
    pub fn signal_all(&self, number: i32) {
        self.signal_inside(-1, number);
    }

    /// Sends signal `number` to the process that has the number `pid` in its namespace.
    pub fn signal_inside(&self, pid: i32, number: i32) {
        let Some(namespace) = &self.namespace else { return };
        // Numbers, and -1 for all, mean what the sender sees: so a process in there sends it.
        if enter_pid_namespace(namespace).is_err() {
            return;
        }
        // SAFETY: this program has one thread, and the child makes two system calls.
        match unsafe { libc::fork() } {
            // SAFETY: passes numbers, and ends the child at once.
            0 => unsafe {
                libc::kill(pid, number);
                libc::_exit(0)
            },
            // Without a process in it, the namespace takes no other.
            child => wait_for(u32::try_from(child).unwrap_or_default()),
        }
    }
}

/// Starts `program` with all ids of root, as the first process of a PID namespace: when it ends or
/// is killed, the kernel kills everything that it started; and it is killed when we are.
///
/// # Errors
/// When the kernel refuses a step; then nothing runs.
pub fn spawn_contained(program: Program<'_>) -> Result<Contained> {
    // SAFETY: CLONE_NEWPID changes only in which namespace children are born.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
        .because(|| "cannot make a PID namespace".into())?;
    let (alive, ours) = std::io::pipe().because(|| "cannot make a pipe".into())?;
    let directory = program.directory.as_raw_fd();
    let mask = program.signals.mask_before();
    let takes_stdio = program.takes_stdio;
    let other_end = ours.as_raw_fd();
    let mut command = Command::new(program.path);
    command.args(program.args).env_clear().envs(program.env.iter().copied());
    if let Some(file) = program.stderr {
        command.stderr(file);
    }
    if !program.takes_stdin {
        command.stdin(std::process::Stdio::null());
    }
    // SAFETY: the closure runs in the forked child of a program with one thread, so allocation and
    // every other call are sound there.
    unsafe {
        command.pre_exec(move || {
            mask.restore();
            // Ours is inherited too: as long as it is open, the pipe tells nothing of the parent.
            libc::close(other_end);
            before_exec(directory, &alive)?;
            // For all, in case that another one does it too; kernels that cannot are rare and old.
            guard::keep_owner_of_stdio().or_else(|e| if takes_stdio { Err(e) } else { Ok(()) })
        });
    }
    let child =
        command.spawn().because(|| format!("cannot execute {}", program.path.to_string_lossy()))?;
    // /proc is its own by now. It may have ended already.
    let namespace = std::fs::File::open("/proc/1/ns/pid").ok();
    Ok(Contained { pid: child.id(), _alive: ours, namespace })
}

/// The last steps of the child.
fn before_exec(directory: RawFd, parent_is_alive: &std::io::PipeReader) -> std::io::Result<()> {
    // Its own /proc, or it would look up the numbers of its children in the host's.
    mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )?;
    // SAFETY: open all the time; see `spawn_contained`.
    rustix::process::fchdir(unsafe { BorrowedFd::borrow_raw(directory) })?;
    // After the last change of ids, which would clear it.
    ids::become_root()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // If our parent died before that, the other end of the pipe is closed already.
    let mut poll = [rustix::event::PollFd::new(parent_is_alive, rustix::event::PollFlags::IN)];
    if rustix::event::poll(&mut poll, Some(&rustix::event::Timespec::default()))? > 0 {
        return Err(std::io::Error::from_raw_os_error(libc::ECHILD));
    }
    Ok(())
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
    ids::become_root().because(|| "cannot become root".into())?;
    rustix::process::setsid().because(|| "cannot leave the session".into())?;
    // A reader of our output shall not wait for this process. There is no /proc to list them.
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
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
    Ok(())
}

/// More than this program has open when the OCI runtime runs; for kernels before 5.9.
const MANY_DESCRIPTORS: u32 = 1024;

/// Lets the children that come from now on be born in `namespace`, as before [`spawn_contained`].
///
/// # Errors
/// When the kernel refuses.
pub fn leave_pid_namespace(namespace: impl AsFd) -> Result<()> {
    enter_pid_namespace(namespace).because(|| "cannot leave the runtime's PID namespace".into())
}

fn enter_pid_namespace(namespace: impl AsFd) -> rustix::io::Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
}

/// Stops this process, until someone continues it.
pub fn stop() {
    // SAFETY: sends a signal to this process. SIGSTOP, since SIGTSTP would be ignored where nobody
    // of the session is left to continue us.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// Waits for the child `pid` to end.
pub fn wait_for(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let wait = || rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
}

/// Sends signal `number` to the process `pid`, which must be a child of ours that was not waited
/// for: only then is the number surely still its own.
pub fn send(pid: u32, number: i32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: passes numbers. A process that has just ended is no error here.
        unsafe { libc::kill(pid, number) };
    }
}

/// Sends signal `number` to the process group that the child `leader` leads.
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
    Error::caused_by(format!("cannot execute {}", program.to_string_lossy()), error).exit(code)
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
