//! The image file while it is written: its blocks go to the disk as they come, so that the fsync at
//! the end, which makes an image safe, has little left to wait for.

use std::fs::File;
use std::io::{Result, Seek, SeekFrom, Write};

use crate::squashfs::validate::RESERVED;
use crate::sys::fs::writeback;

/// How many bytes are handed to the disk at a time: large enough to be written in one piece.
const STRIDE: u64 = 16 << 20;

/// A file that is written from start to end, but for a few bytes.
pub struct Output<'a> {
    file: &'a File,
    position: u64,
    /// Up to where the disk has been told to write.
    told: u64,
    /// Whether something other than the superblock and the compressor's options was begun.
    has_data: bool,
}

impl<'a> Output<'a> {
    /// At the start of an empty file.
    pub fn new(file: &'a File) -> Self {
        Self { file, position: 0, told: 0, has_data: false }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = self.file.write(bytes)?;
        self.position += count as u64;
        let ahead = self.position.saturating_sub(self.told);
        if ahead >= STRIDE {
            writeback::start(self.file, self.told, ahead);
            self.told = self.position;
        }
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Seek for Output<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }

    /// Asked for before each block: no reason for a system call. The first time, the superblock and
    /// the compressor's options have been written, and what follows goes behind a hole: data so near
    /// to the start could be taken for the superblock of another file system.
    fn stream_position(&mut self) -> Result<u64> {
        if !std::mem::replace(&mut self.has_data, true) {
            self.seek(SeekFrom::Start(RESERVED))?;
        }
        Ok(self.position)
    }
}
