//! Bytes that nobody can guess.

use std::io::Read;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Context, Result};

/// Fills `bytes`, of which the kernel gives 256 or fewer at once.
///
/// # Errors
/// When the kernel has none.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    let cannot = || "cannot get random bytes".to_owned();
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err("there are too few").context(cannot),
        Err(Errno::NOSYS) => urandom(bytes).context(cannot),
        Err(error) => Err(error).context(cannot),
    }
}

/// The same, before Linux 3.17.
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
