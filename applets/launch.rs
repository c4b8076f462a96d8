//! `launch SOCKET STREAMS DIRECTORY PROGRAM [ARG...]`: the last step of `sarus run`, the first in the
//! container. It makes sure that the image is confined, takes stdin, stdout and stderr from the three
//! descriptors from STREAMS on (`-`: they are a terminal of the container's own), goes into the
//! directory, tells the engine on the descriptor SOCKET that the program starts, and becomes it.
//!
//! An OCI runtime would go there as root, and the way may lead through directories of the host that
//! the user can change at any moment: through a link of theirs root would go where they may not,
//! and they would start there. This applet goes with the user's rights and no others.

use sarus::error::{Because, Error, Result};
use sarus::sys::{announce, descriptors, mount, process};
use std::ffi::OsString;
use std::path::Path;

/// As all that fails before the program starts.
const FAILED: u8 = 125;

pub fn main(args: &[OsString]) -> Result<u8> {
    let [socket, streams, directory, program, args @ ..] = args else {
        return Err(Error::new("nothing to launch")
            .hint("usage: launch SOCKET STREAMS DIRECTORY PROGRAM [ARG...]")
            .exit(FAILED));
    };
    take_streams(streams)
        .and_then(|()| start_in(directory))
        .and_then(|()| announce::announce(number(socket)?, streams == "-"))
        .map_err(|error| error.exit(FAILED))?;
    let error = process::become_program(program, args);
    Err(match error.code() {
        127 if program.as_encoded_bytes().starts_with(b"-") => {
            error.hint("options of 'sarus run' stand before the name of the image")
        }
        127 => error.hint("it is not in the image, or not in the image's PATH"),
        _ => error,
    })
}

/// What a runtime made of stdin, stdout and stderr gives way to what the caller had: runc puts pipes
/// in between, which are neither terminals nor files, and read ahead.
fn take_streams(first: &OsString) -> Result<()> {
    if first == "-" {
        return Ok(());
    }
    descriptors::take_streams(number(first)?)
}

fn number(word: &OsString) -> Result<i32> {
    let number = word.to_str().and_then(|text| text.parse().ok()).filter(|fd| *fd > 2);
    number
        .ok_or_else(|| Error::new(format!("'{}' is no descriptor above 2", word.to_string_lossy())))
}

fn start_in(directory: &OsString) -> Result<()> {
    // Device files of an image of the user's own would open every disk of the machine.
    if !mount::is_confined(Path::new("/")).because(|| "cannot look at the root".into())? {
        return Err(Error::new(
            "cannot start: the root file system is not mounted nosuid and nodev",
        )
        .hint("the OCI runtime of sarus.json lifts what the engine restricts: use another one"));
    }
    std::env::set_current_dir(directory)
        .because(|| format!("cannot start in {}", directory.to_string_lossy()))
}
