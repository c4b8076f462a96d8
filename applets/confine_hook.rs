//! `confine_hook DIRECTORY`: an OCI hook of the stage `createContainer`, which `sarus run` adds for
//! runtimes that bind the root file system anew and lift its restrictions with that, as crun does:
//! an image of the user's own making could then bring devices of the host.
//!
//! The stage is reached in the container's mount namespace, after the runtime's mounts and before
//! the root changes. See <https://github.com/opencontainers/runtime-spec/blob/main/config.md>.

use sarus::error::{Because, Error, Result};
use sarus::sys::mount;
use std::ffi::OsString;
use std::path::Path;

pub fn main(args: &[OsString]) -> Result<u8> {
    let [directory] = args else {
        return Err(Error::new("no root file system given").hint("usage: confine_hook DIRECTORY"));
    };
    // The state tells nothing that is needed here, but a runtime may not expect to be left alone
    // with it.
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
        .because(|| "cannot read the container's state".into())?;
    mount::confine(Path::new(directory))?;
    Ok(0)
}
