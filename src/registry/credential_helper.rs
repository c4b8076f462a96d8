//! Docker credential helpers: programs `docker-credential-<name>` that store a user's secrets.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Context, Error, Result};

/// Maximum size of a response in bytes; far more than any password or token.
const MAX_RESPONSE: usize = 1 << 20;
/// Time limit. A helper may ask its user for the password of a keyring.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Asks the helper `name` for the credentials of `server`
/// (<https://github.com/docker/docker-credential-helpers>). Returns `None` if it has none.
///
/// The helper is found by the caller's `PATH` and gets the caller's environment, which it needs to
/// find the user's keyring, so it never runs with more privileges than the caller.
///
/// # Errors
/// The helper cannot be run, or fails.
#[expect(clippy::disallowed_methods, reason = "runs with the privileges of the caller alone")]
pub fn ask(name: &str, server: &str) -> Result<Option<String>> {
    if crate::sys::ids::are_raised() {
        return Err(Error::new("credential helpers do not run with set-user-id privileges"));
    }
    let program = find(name)?;
    let context = || format!("cannot run {}", program.display());
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read may still respond.
        stdin.write_all(server.as_bytes()).ok();
    }
    let output = child.stdout.take().map_or(Ok(Vec::new()), |stdout| read_response(stdout.into()));
    if output.is_err() {
        child.kill().ok();
    }
    let status = child.wait().context(context)?;
    let output = output.context(context)?;
    let text = String::from_utf8_lossy(&output).into_owned();
    if status.success() {
        return Ok(Some(text));
    }
    // The protocol has no other sign of it than this text.
    if text.contains("credentials not found") {
        return Ok(None);
    }
    Err(Error::new(format!("the helper failed: {:.200}", text.trim()))).context(context)
}

/// Reads the response from `stdout`, bounded in size and time.
fn read_response(stdout: OwnedFd) -> Result<Vec<u8>> {
    let until = Instant::now() + TIMEOUT;
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let ready = poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left));
        match ready.context(|| "poll".into())? {
            0 => return Err(Error::new(format!("no response within {} s", TIMEOUT.as_secs()))),
            _ => match rustix::io::read(&stdout, &mut buffer).context(|| "read".into())? {
                0 => return Ok(output),
                count => output.extend(buffer.get(..count).unwrap_or_default()),
            },
        }
        if output.len() > MAX_RESPONSE {
            return Err(Error::new(format!("the response is longer than {MAX_RESPONSE} bytes")));
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
    // A name with a slash would lead out of the directories of PATH.
    found.filter(|_| !name.contains('/')).ok_or_else(|| {
        Error::new(format!("cannot find {program:.100} on PATH"))
            .with_hint("install it, or remove it from the credentials file")
    })
}
