//! The hook that appends the time and a message to a file that the container's environment names.
//! Between other hooks, it measures how long each of them takes. Manual, "Timestamp hook".

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::{Container, setting};
use crate::error::{Context, Error, Result};
use crate::log::{self, Level};
use crate::sys::fs::resolve;
use crate::sys::ids;

/// Variable of the container with the path of the file; without it, the hook does nothing.
const LOGFILE: &str = "TIMESTAMP_HOOK_LOGFILE";

/// Variable of the hook with the message.
const MESSAGE: &str = "TIMESTAMP_HOOK_MESSAGE";

/// Appends the line with the rights of the container's user, who names the file.
///
/// # Errors
/// If the path is not absolute, or the user may not write there.
pub fn run(container: &Container) -> Result<()> {
    let Some(path) = container.spec.variable(LOGFILE).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    // Now, before the file is opened: the time of the call.
    let message = setting(MESSAGE).unwrap_or_default();
    let line = log::line(Level::Info, "hook", format!("Timestamp hook: {message}").trim_end());
    let path = PathBuf::from(path);
    let context = || format!("cannot write a timestamp to {}", path.display());
    if !path.is_absolute() {
        let hint = format!("{LOGFILE} must be an absolute path of the host");
        return Err(Error::caused_by(context(), "the path is not absolute").with_hint(hint));
    }
    ids::as_other_user(&container.spec.user, || append(&path, line.as_bytes())).context(context)
}

fn append(path: &Path, line: &[u8]) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).context(|| "cannot open /".into())?;
    // A pipe must not make the start wait. Links of /proc to descriptors of this process are not
    // followed.
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = resolve::open_in_root(&root, path, flags, Mode::from_raw_mode(0o644))?;
    let status = resolve::status(&file).context(|| "cannot stat the file".into())?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Error::new("not a regular file"));
    }
    // One write, so that lines of several ranks do not mix.
    std::fs::File::from(file).write_all(line).context(|| "cannot write".into())
}
