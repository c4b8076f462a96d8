//! Captures the output of a trusted program.

use crate::error::{Context, Error, Result};
use crate::sys::ids;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Maximum time that the program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `program` with `args` and an empty environment, and returns its stdout, of at most `max` bytes.
/// If this process has effective root, the program is root in every ID, so that no user can stop or
/// trace it.
///
/// # Errors
/// If it cannot be executed, fails, does not end in time, or prints more, or invalid UTF-8.
pub fn output(program: &Path, args: &[&str], max: usize) -> Result<String> {
    let context = || format!("cannot run {}", program.display());
    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if ids::is_effective_root() {
        // SAFETY: the closure runs in the forked child of a program with one thread.
        unsafe { command.pre_exec(|| Ok(ids::become_root()?)) };
    }
    let mut child = command.spawn().context(context)?;
    let text = child.stdout.take().ok_or_else(|| Error::new("no stdout")).and_then(|stdout| {
        let end = Instant::now() + PATIENCE;
        read_until(stdout, max, end)
    });
    if text.is_err() {
        // A child that was not waited for: the PID is its own.
        child.kill().ok();
    }
    let status = child.wait().context(context)?;
    let text = text.context(context)?;
    if status.success() {
        Ok(text)
    } else {
        Err(format!("it ended with {status}")).context(context)
    }
}

fn read_until(
    mut stdout: impl Read + rustix::fd::AsFd,
    max: usize,
    end: Instant,
) -> Result<String> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let ready = poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left));
        if matches!(ready, Ok(0)) {
            return Err(Error::new(format!("no output after {} s", PATIENCE.as_secs())));
        }
        let count = stdout.read(&mut part).context(|| "cannot read its output".into())?;
        if count == 0 {
            return String::from_utf8(bytes).map_err(|_| Error::new("its output is not UTF-8"));
        }
        bytes.extend(part.iter().take(count));
        if bytes.len() > max {
            return Err(Error::new(format!("its output is longer than {max} bytes")));
        }
    }
}
