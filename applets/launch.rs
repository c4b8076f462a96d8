//! `launch DIRECTORY PROGRAM [ARG...]`: goes into a directory and becomes the program. `sarus run`
//! puts it before a program that starts elsewhere than in `/`.
//!
//! An OCI runtime goes there as root, and the way may lead through directories of the host that
//! the user can change at any moment: through a link of theirs root would go where they may not,
//! and they would start there. This applet goes with the user's rights and no others.

use sarus::error::{Because, Error, Result};
use sarus::sys::process;
use std::ffi::OsString;

/// As all that fails before the program starts.
const FAILED: u8 = 125;

pub fn main(args: &[OsString]) -> Result<u8> {
    let [directory, program, args @ ..] = args else {
        return Err(Error::new("nothing to launch")
            .hint("usage: launch DIRECTORY PROGRAM [ARG...]")
            .exit(FAILED));
    };
    std::env::set_current_dir(directory)
        .because(|| format!("cannot start in {}", directory.to_string_lossy()))
        .map_err(|error| error.exit(FAILED))?;
    Err(process::become_program(program, args))
}
