//! `slurm_global_sync_hook`: an OCI hook of the stage `prestart`, which waits for the other containers
//! of a Slurm job step. See [`sarus::hook::slurm`].

use sarus::error::Result;
use sarus::hook;
use std::ffi::OsString;

pub fn main(_: &[OsString]) -> Result<u8> {
    hook::run(hook::slurm::run)
}
