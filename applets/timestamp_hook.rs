//! `timestamp_hook`: an OCI hook for any stage, which writes the time to a file. See [`sarus::hook::timestamp`].

use sarus::error::Result;
use sarus::hook;
use std::ffi::OsString;

pub fn main(_: &[OsString]) -> Result<u8> {
    hook::run(hook::timestamp::run)
}
