//! Validation of a squashfs image that a user may have written by hand, before the kernel mounts it.
//!
//! The superblock and every table that the kernel reads at mount time must agree with each other
//! and with the size of the file, more strictly than the kernel asks for: tables lie in the order in
//! which all writers put them, without gaps, and each is a chain of metadata blocks whose headers
//! lead exactly from its start to its end. The content of inodes and directories stays unread.
//! Besides, no bytes of the image may make it look like a member of something else (see
//! [`signatures`]).
//!
//! Pure: reads the image through [`Read`], and allocates nothing by a number that was not checked
//! against the file's size. Format: <https://docs.kernel.org/filesystems/squashfs.html>.

mod signatures;
mod superblock;
mod tables;

use crate::error::{Context, Result};
use crate::squashfs::compression::Compressor;

pub use signatures::RESERVED;

/// Reads a range of the image: fills the buffer from the byte offset on, or fails.
pub type Read<'a> = dyn Fn(&mut [u8], u64) -> std::io::Result<()> + 'a;

/// Checks an image of `size` bytes, and returns its compressor.
///
/// # Errors
/// If the image is invalid, looks like something else too, or cannot be read.
pub fn check(read: &Read<'_>, size: u64) -> Result<Compressor> {
    let file = File { read, size };
    let superblock = superblock::read(&file).context(|| "invalid squashfs superblock".into())?;
    tables::check(&file, &superblock).context(|| "invalid squashfs image".into())?;
    signatures::check(&file)?;
    Ok(superblock.compressor)
}

/// The file of an image.
struct File<'a> {
    read: &'a Read<'a>,
    /// In bytes.
    size: u64,
}

impl File<'_> {
    /// Fills `buffer` from the byte `at` on.
    fn fill(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        (self.read)(buffer, at).context(|| format!("cannot read {} bytes at {at}", buffer.len()))
    }

    /// The `N` bytes at `at`.
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, at)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
