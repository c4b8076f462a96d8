//! Validation of a squashfs image, which a user may have written by hand, before the kernel mounts
//! it.
//!
//! The superblock and every table that the kernel reads at mount time must agree with each other
//! and with the size of the file, more strictly than the kernel asks for: tables lie in the order
//! in which all writers put them, without gaps, and each is a chain of metadata blocks whose
//! headers lead exactly from its start to its end. The contents of inodes and directories are not
//! read. Besides, no part of the image may look like another format that the host acts on (see
//! `signatures.rs`).
//!
//! Pure: reads the image through [`Read`], and allocates nothing by a number that was not checked
//! against the size of the file. Format: <https://docs.kernel.org/filesystems/squashfs.html>.

mod signatures;
mod superblock;
mod tables;

use crate::error::{Context, Result};
use crate::squashfs::compression::Compressor;

pub use signatures::RESERVED;

/// Fills the buffer with the bytes of the image from an offset on, or fails.
pub type Read<'a> = dyn Fn(&mut [u8], u64) -> std::io::Result<()> + 'a;

/// Checks an image of `size` bytes. Returns its compressor.
///
/// # Errors
/// The image is invalid, looks like another format too, or cannot be read.
pub fn check(read: &Read<'_>, size: u64) -> Result<Compressor> {
    let file = File { read, size };
    let (superblock, data_start) =
        superblock::read(&file).context(|| "invalid squashfs superblock".into())?;
    tables::check(&file, &superblock, data_start).context(|| "invalid squashfs image".into())?;
    signatures::check(&file)?;
    Ok(superblock.compressor)
}

/// The file of an image.
struct File<'a> {
    read: &'a Read<'a>,
    /// Size in bytes.
    size: u64,
}

impl File<'_> {
    /// Fills `buffer` with the bytes from `offset` on.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        (self.read)(buffer, offset)
            .context(|| format!("cannot read {} bytes at {offset}", buffer.len()))
    }

    /// Returns the `N` bytes at `offset`.
    fn bytes<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, offset)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
