//! The image file while it is written: its blocks go to the disk as they come, so that the fsync at
//! the end, which makes an image safe, has little left to wait for.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::pool::Pool;
use crate::error::{Context, Result};
use crate::squashfs::validate::RESERVED;
use crate::squashfs::writer::Stored;
use crate::sys::fs::writeback;

/// Bytes that are handed to the disk at a time: large enough to be written in one piece.
const STRIDE: u64 = 16 << 20;

/// A file that is written from the end of the [`RESERVED`] bytes on: data nearer to the start could
/// be taken for the superblock of another file system.
pub struct Output<'a> {
    file: &'a File,
    position: u64,
    /// End of what the disk has been told to write.
    told: u64,
}

impl<'a> Output<'a> {
    /// Output to an empty file.
    pub fn new(file: &'a File) -> Self {
        Self { file, position: RESERVED, told: 0 }
    }

    /// Position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes all blocks that come out of `pool`, and adds their places to `blocks`.
    pub fn drain(&mut self, pool: &Pool, blocks: &mut Vec<Stored>) -> Result<()> {
        while let Some(block) = pool.next() {
            let bytes = block.stored();
            blocks.push(Stored::new(self.position, bytes.len(), block.is_compressed())?);
            self.write_all(bytes).context(|| "cannot write a data block".into())?;
            pool.give_back(block);
        }
        Ok(())
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.position)?;
        self.position += count as u64;
        let ahead = self.position.saturating_sub(self.told);
        if ahead >= STRIDE {
            writeback::start(self.file, self.told, ahead);
            self.told = self.position;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
