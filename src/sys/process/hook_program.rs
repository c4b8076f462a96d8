//! Executes a hook of the site: as root, with the site's environment alone, in a session of its own,
//! without descriptors of the engine. See "POSIX-platform Hooks" of the OCI runtime specification.

use crate::error::{Context, Error, Result};
use crate::sys::process::ProcessId;
use crate::sys::process::container_child::close_at_exec;
use crate::sys::process::signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sys::process::pidfd::Process;

/// A hook to execute.
#[derive(Debug)]
pub struct HookProgram<'a> {
    /// The program, absolute.
    pub path: &'a Path,
    /// All of argv, the name that it is called by first; empty for the path alone.
    pub args: &'a [String],
    /// The whole environment, as `NAME=value`.
    pub env: &'a [String],
    /// Time that it gets.
    pub timeout: Option<Duration>,
    /// Text for its stdin.
    pub input: &'a str,
    /// Where it writes stdout and stderr to.
    /// Those of this process if there is none.
    pub output: Option<&'a File>,
}

/// Time between two looks at a hook where the kernel has no pidfds (before 5.3).
const LOOK: Duration = Duration::from_millis(5);

impl HookProgram<'_> {
    /// Executes the hook and waits for its end.
    ///
    /// # Errors
    /// When it cannot be executed, exits with another status than 0, is killed, or does not end in
    /// time: then it is killed.
    pub fn run(&self) -> Result<()> {
        let mut child = self.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A hook that does not read its state gets along without.
            stdin.write_all(self.input.as_bytes()).ok();
        }
        let process = Process::from_pid(ProcessId::from_child(&child));
        let in_time = self.timeout.is_none_or(|timeout| wait(&process, timeout));
        if !in_time {
            process.send(libc::SIGKILL);
        }
        let status = child.wait().context(|| "cannot wait for it".into())?;
        match self.timeout.filter(|_| !in_time) {
            Some(timeout) => {
                Err(Error::new(format!("no end within its time of {} s", timeout.as_secs())))
            }
            None if status.success() => Ok(()),
            None => Err(Error::new(status.to_string())),
        }
    }

    fn spawn(&self) -> Result<Child> {
        let output = || -> Result<Stdio> {
            let Some(file) = self.output else { return Ok(Stdio::inherit()) };
            file.try_clone().map(Stdio::from).context(|| "cannot keep its output".into())
        };
        let mut command = Command::new(self.path);
        if let Some((name, args)) = self.args.split_first() {
            command.arg0(name).args(args);
        }
        let variables = self.env.iter().filter_map(|variable| variable.split_once('='));
        command.env_clear().envs(variables.map(|(name, value)| (OsStr::new(name), value)));
        command.current_dir("/");
        command.stdin(Stdio::piped()).stdout(output()?).stderr(output()?);
        // SAFETY: the closure makes system calls only, in the child of a program with one thread.
        unsafe {
            command.pre_exec(|| {
                signals::unblock_all();
                rustix::process::setsid()?;
                close_at_exec(3).map_err(std::io::Error::other)
            });
        }
        command.spawn().context(|| "cannot execute it".into())
    }
}

/// Waits for the end of a child, but no longer than `timeout`; false if it runs still.
fn wait(process: &Process, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).ok();
        match process.handle() {
            Some(handle) => {
                let mut handle = [PollFd::new(&handle, PollFlags::IN)];
                if matches!(poll(&mut handle, time.as_ref()), Ok(1..)) {
                    return true;
                }
            }
            None => std::thread::sleep(LOOK),
        }
        if process.has_ended() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}
