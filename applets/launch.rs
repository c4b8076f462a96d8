//! `launch OPTION... -- PROGRAM [ARG...]`: the last step of `sarus run`, the first in the container;
//! [`Handoff`] has the options. It makes sure that the image is confined, takes over the caller's
//! stdin, stdout and stderr, restores the caller's limits, starts the SSH daemon if it was asked for,
//! goes into the working directory, tells the engine that the program starts, and becomes it.
//!
//! An OCI runtime would go there as root, and the way may lead through directories of the host that
//! the user can change at any moment: through a link of theirs root would go where they may not,
//! and they would start there. This applet goes with the user's rights and no others.

use sarus::container::plan::handoff::Handoff;
use sarus::error::{Context, Error, Result};
use sarus::hook::ssh::daemon;
use sarus::log;
use sarus::sys::fs::mount;
use sarus::sys::process::limits::CallerLimits;
use sarus::sys::process::start_notify;
use sarus::sys::{descriptors, process};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The exit status of all that fails before the program starts.
const FAILED: u8 = 125;

pub fn main(args: &[OsString]) -> Result<u8> {
    let failed = |error: Error| error.with_exit_code(FAILED);
    let (handoff, program, args) = Handoff::parse(args).map_err(failed)?;
    prepare(&handoff).map_err(failed)?;
    let error = process::become_program(program, args);
    Err(match error.exit_code() {
        127 if program.as_encoded_bytes().starts_with(b"-") => {
            error.with_hint("options of 'sarus run' stand before the name of the image")
        }
        127 => error.with_hint("it is not in the image, or not in the image's PATH"),
        _ => error,
    })
}

fn prepare(handoff: &Handoff) -> Result<()> {
    // runc puts pipes in between, which are neither terminals nor files, and reads ahead.
    handoff.streams.map_or(Ok(()), descriptors::take_streams)?;
    log::set_threshold(handoff.level);
    check_root()?;
    // Nothing that starts from here on may have more than the caller.
    handoff.limits.as_ref().map_or(Ok(()), CallerLimits::restore)?;
    if handoff.sshd {
        daemon::start()?;
    }
    enter(&handoff.directory)?;
    start_notify::notify(handoff.socket, handoff.streams.is_none())
}

/// Looks once more that the root is confined: device files of an image of the user's own would open
/// every disk of the machine.
fn check_root() -> Result<()> {
    if mount::is_confined(Path::new("/")).context(|| "cannot look at the root".into())? {
        return Ok(());
    }
    Err(Error::new("cannot start: the root file system is not mounted nosuid and nodev").with_hint(
        "the OCI runtime of sarus.json lifts what the engine restricts: use another one",
    ))
}

fn enter(directory: &OsStr) -> Result<()> {
    std::env::set_current_dir(directory)
        .context(|| format!("cannot start in {}", directory.to_string_lossy()))
}
