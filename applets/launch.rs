//! `launch OPTION... -- PROGRAM [ARG...]`: the last step of `sarus run`, executed as the first process
//! of the container. See [`Handoff`] for the options.
//!
//! It verifies that the root file system is confined, takes the caller's stdin, stdout and stderr,
//! restores the caller's limits, starts the SSH daemon on request, changes into the working directory,
//! announces the program to the engine, and executes it.
//!
//! An OCI runtime would change the directory as root, along a path whose directories the user may
//! change at any moment: a link could lead root where the user may not go. This applet has the user's
//! rights only.

use sarus::container::handoff::{self, Handoff};
use sarus::error::{Context, Error, Result};
use sarus::hook::ssh::daemon;
use sarus::log;
use sarus::sys::fs::mount;
use sarus::sys::process;
use sarus::sys::process::limits::CallerLimits;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Exit status of failures before the program starts.
const FAILED: u8 = 125;

pub fn main(args: &[OsString]) -> Result<u8> {
    let failed = |error: Error| error.with_exit_code(FAILED);
    let (options, program, args) = Handoff::parse(args).map_err(failed)?;
    prepare(&options).map_err(failed)?;
    Err(handoff::explain_exec(process::become_program(program, args), program))
}

fn prepare(handoff: &Handoff) -> Result<()> {
    handoff.take_streams()?;
    log::set_threshold(handoff.level);
    check_root()?;
    // Before the SSH daemon: it must not have more than the caller.
    handoff.limits.as_ref().map_or(Ok(()), CallerLimits::restore)?;
    if handoff.sshd {
        daemon::start()?;
    }
    enter(&handoff.directory)?;
    handoff.announce()
}

/// Verifies once more that the root file system is confined: device files in a user's own image would
/// give access to all disks of the machine.
fn check_root() -> Result<()> {
    if mount::is_confined(Path::new("/")).context(|| "cannot stat the root file system".into())? {
        return Ok(());
    }
    Err(Error::new("cannot start: the root file system is not mounted nosuid and nodev").with_hint(
        "the OCI runtime of sarus.json removes restrictions of the engine: use another one",
    ))
}

fn enter(directory: &OsStr) -> Result<()> {
    std::env::set_current_dir(directory)
        .context(|| format!("cannot start in {}", directory.to_string_lossy()))
}
