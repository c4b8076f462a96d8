//! `mpi_hook`: an OCI hook of the stage `prestart`. See [`sarus::hook::mpi`].

use sarus::error::Result;
use sarus::hook;
use std::ffi::OsString;

pub fn main(_: &[OsString]) -> Result<u8> {
    hook::run(hook::mpi::run)
}
