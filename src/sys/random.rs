//! Random bytes for secrets and unique names.

use std::io::Read;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Context, Result};

/// Fills `bytes`, of which there may be 256, by getrandom(2).
///
/// # Errors
/// If the kernel has no random bytes.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    let context = || "cannot get random bytes".to_owned();
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err("too few bytes").context(context),
        Err(Errno::NOSYS) => urandom(bytes).context(context),
        Err(error) => Err(error).context(context),
    }
}

/// Does the same before Linux 3.17.
fn urandom(bytes: &mut [u8]) -> std::io::Result<()> {
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_fill_all_of_it() {
        let mut bytes = [[0; 256]; 2];
        fill(&mut bytes[0]).unwrap();
        urandom(&mut bytes[1]).unwrap();
        // That a line were zeroes has no chance.
        assert!(bytes.as_flattened().chunks(16).all(|line| line.iter().any(|byte| *byte != 0)));
    }
}
