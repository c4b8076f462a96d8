//! `glibc_hook`: an OCI hook of the stage `prestart`. See [`sarus::hook::glibc`].

use sarus::error::Result;
use sarus::hook;
use std::ffi::OsString;

pub fn main(_: &[OsString]) -> Result<u8> {
    hook::run(hook::glibc::run)
}
