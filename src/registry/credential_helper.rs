//! Programs that keep a user's secrets, named `docker-credential-<name>`.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Context, Error, Result};

/// Far more than any password or token takes, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// A helper may ask its user for the password of a keyring.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks the helper `name` for the credentials of `server`
/// (<https://github.com/docker/docker-credential-helpers>): its answer, or nothing if it has none.
///
/// It is found by the caller's `PATH` and gets the caller's environment, as it must to find the
/// user's keyring: so never with more rights than the caller has.
///
/// # Errors
/// When it cannot be run, or fails.
#[expect(
    clippy::disallowed_methods,
    reason = "runs as the caller alone, with all that is the caller's"
)]
pub fn ask(name: &str, server: &str) -> Result<Option<String>> {
    if crate::sys::ids::are_raised() {
        return Err(Error::new("not while the program has more rights than its caller"));
    }
    let program = find(name)?;
    let about = || format!("cannot run {}", program.display());
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(about)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read may still answer.
        stdin.write_all(server.as_bytes()).ok();
    }
    let output = child.stdout.take().map_or(Ok(Vec::new()), |stdout| answer(stdout.into()));
    if output.is_err() {
        child.kill().ok();
    }
    let status = child.wait().context(about)?;
    let output = output.context(about)?;
    let text = String::from_utf8_lossy(&output).into_owned();
    match status.success() {
        true => Ok(Some(text)),
        // The one error that is none.
        false if text.contains("credentials not found") => Ok(None),
        false => Err(Error::new(format!("it says: {:.200}", text.trim()))).context(about),
    }
}

/// All that comes from `stdout`, within bounds of size and time.
fn answer(stdout: OwnedFd) -> Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let ready = poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left));
        match ready.context(|| "poll".into())? {
            0 => return Err(Error::new(format!("no answer within {} s", PATIENCE.as_secs()))),
            _ => match rustix::io::read(&stdout, &mut buffer).context(|| "read".into())? {
                0 => return Ok(output),
                count => output.extend(buffer.get(..count).unwrap_or_default()),
            },
        }
        if output.len() > MAX_ANSWER {
            return Err(Error::new(format!("it says more than {MAX_ANSWER} bytes")));
        }
    }
}

fn find(name: &str) -> Result<PathBuf> {
    let program = format!("docker-credential-{name}");
    let is_program = |path: &PathBuf| {
        let status = std::fs::metadata(path);
        status.is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absolute = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let found = absolute.map(|folder| folder.join(&program)).find(is_program);
    // A name with a slash would lead elsewhere.
    found.filter(|_| !name.contains('/')).ok_or_else(|| {
        Error::new(format!("cannot find {program:.100} on PATH"))
            .with_hint("install it, or remove it from the file that names it")
    })
}
