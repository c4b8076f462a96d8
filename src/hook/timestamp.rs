//! The hook that writes the time, with a message, into a file that the container's environment names.
//! Put between other hooks, it tells how long each of them takes. Manual, "Timestamp hook".

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::{Container, setting};
use crate::error::{Context, Error, Result};
use crate::log::{self, Level};
use crate::sys::fs::resolve;
use crate::sys::ids;

/// Where to write; set by the user, and nothing happens without it.
const LOGFILE: &str = "TIMESTAMP_HOOK_LOGFILE";

/// What to write; set by the site.
const MESSAGE: &str = "TIMESTAMP_HOOK_MESSAGE";

/// Writes the line, with the rights of the container's user: it is they who name the file.
///
/// # Errors
/// When the user may not write there.
pub fn run(container: &Container) -> Result<()> {
    let Some(path) = container.spec.variable(LOGFILE).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    // The time of the call, not of what follows.
    let message = setting(MESSAGE).unwrap_or_default();
    let line = log::line(Level::Info, "hook", format!("Timestamp hook: {message}").trim_end());
    let path = PathBuf::from(path);
    let cannot = || format!("cannot write a timestamp to {}", path.display());
    if !path.is_absolute() {
        let hint = format!("{LOGFILE} must be an absolute path of the host");
        return Err(Error::caused_by(cannot(), "the path is not absolute").with_hint(hint));
    }
    ids::as_other_user(&container.spec.user, || append(&path, line.as_bytes())).context(cannot)
}

fn append(path: &Path, line: &[u8]) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).context(|| "cannot open /".into())?;
    // A pipe in its place must not make the start wait, and a descriptor of ours is no file of
    // the user's.
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = resolve::open_in_root(&root, path, flags, Mode::from_raw_mode(0o644))?;
    let status = resolve::status(&file).context(|| "cannot stat it".into())?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Error::new("it is no regular file"));
    }
    // One write, so that lines of several ranks do not mix.
    std::fs::File::from(file).write_all(line).context(|| "cannot write to it".into())
}
