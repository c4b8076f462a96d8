//! The data of all files as blocks, in the order of the files: whole blocks of each file but those of
//! zeros; small files side by side in fragment blocks.
//!
//! What lands where depends on the files alone, so the image does not depend on the threads.

use super::content::{ContentReader, is_zero};
use super::duplicates::Duplicates;
use super::pool::{Block, Pool};
use crate::bytes::fill;
use crate::cli::progress::Meter;
use crate::error::{Error, Result};
use crate::import::blob::Blob;
use crate::import::tree::Content;
use crate::squashfs::writer::{BLOCK, File, Fragment, Run};

/// A regular file whose data is to be stored.
#[derive(Debug)]
pub struct Source {
    /// Index of the inode.
    pub inode: u32,
    pub content: Content,
    /// To be stored uncompressed, in blocks of its own.
    pub is_plain: bool,
}

/// Places of the data of all files.
#[derive(Debug, Default)]
pub struct Layout {
    /// In the order of the sources.
    pub files: Vec<File>,
    /// Blocks that are fragments, by the number of the block.
    pub fragments: Vec<u32>,
}

/// Reads files, and puts their blocks into a pool.
pub struct Blocks<'a> {
    sources: &'a [Source],
    data: &'a [Blob],
    pool: &'a Pool,
    meter: &'a Meter,
    layout: Layout,
    duplicates: Duplicates<'a>,
    /// Number of blocks that were put into the pool.
    count: u32,
    /// The fragment block that is filled.
    fragment: Block,
}

impl<'a> Blocks<'a> {
    pub fn new(sources: &'a [Source], data: &'a [Blob], pool: &'a Pool, meter: &'a Meter) -> Self {
        let layout = Layout { files: Vec::with_capacity(sources.len()), fragments: Vec::new() };
        let duplicates = Duplicates::new(sources, data);
        let fragment = pool.block();
        Self { sources, data, pool, meter, layout, duplicates, count: 0, fragment }
    }

    /// Reads all files, and returns the places of their data.
    pub fn lay_out(mut self) -> Result<Layout> {
        for source in self.sources {
            let length = source.content.length();
            let file = match usize::try_from(length) {
                Ok(0) => File::default(),
                Ok(length) if length < BLOCK && !source.is_plain => self.small(source, length)?,
                _ => self.large(source, length)?,
            };
            self.layout.files.push(file);
        }
        if self.fragment.length > 0 {
            let last = self.pool.block();
            self.end_fragment(last)?;
        }
        Ok(self.layout)
    }

    fn push(&mut self, block: Block) -> Result<()> {
        if !self.pool.push(block) {
            return Err(Error::new("no more blocks are wanted"));
        }
        self.count = self.count.checked_add(1).ok_or_else(too_many)?;
        Ok(())
    }

    /// Puts the fragment block into the pool, and goes on with `next`.
    fn end_fragment(&mut self, next: Block) -> Result<()> {
        self.layout.fragments.push(self.count);
        let full = std::mem::replace(&mut self.fragment, next);
        self.push(full)
    }

    /// Stores a file that is smaller than a block in a fragment.
    fn small(&mut self, source: &Source, length: usize) -> Result<File> {
        let mut reader = ContentReader::new(&source.content, self.data);
        let is_full = self.fragment.length + length > BLOCK;
        let mut fresh = is_full.then(|| self.pool.block());
        // Reads where the file will lie; after a duplicate, the next one takes the place.
        let bytes = read(&mut reader, fresh.as_mut().unwrap_or(&mut self.fragment), length)?;
        self.meter.add(length as u64);
        let equal = self.duplicates.find(&self.layout.files, source, bytes)?;
        if let Some(file) = equal {
            fresh.into_iter().for_each(|block| self.pool.give_back(block));
            return Ok(file);
        }
        if let Some(block) = fresh {
            self.end_fragment(block)?;
        }
        let index = u32::try_from(self.layout.fragments.len()).map_err(|_| too_many())?;
        let offset = u32::try_from(self.fragment.length).map_err(|_| too_many())?;
        self.fragment.length += length;
        let fragment = Some(Fragment { index, offset });
        Ok(File { length: length as u64, runs: Box::default(), fragment })
    }

    /// Stores a file in blocks of its own.
    fn large(&mut self, source: &Source, length: u64) -> Result<File> {
        let mut reader = ContentReader::new(&source.content, self.data);
        let mut runs = Vec::new();
        let mut left = length;
        while left > 0 {
            let size = left.min(BLOCK as u64);
            self.meter.add(size);
            // Blocks of holes need not even be filled with zeros.
            if reader.pass_hole(size) {
                add_hole(&mut runs);
                left -= size;
                continue;
            }
            let mut block = self.pool.block();
            let size = usize::try_from(size).unwrap_or(BLOCK);
            let bytes = read(&mut reader, &mut block, size)?;
            if left == length
                && let Some(file) = self.duplicates.find(&self.layout.files, source, bytes)?
            {
                self.pool.give_back(block);
                self.meter.add(length - size as u64);
                return Ok(file);
            }
            left -= size as u64;
            if is_zero(bytes) {
                add_hole(&mut runs);
                self.pool.give_back(block);
                continue;
            }
            (block.length, block.is_plain) = (size, source.is_plain);
            add_stored(&mut runs, self.count);
            self.push(block)?;
        }
        Ok(File { length, runs: runs.into(), fragment: None })
    }
}

/// Reads the next `length` bytes of a file to the end of `block`, whose length stays.
fn read<'b>(
    reader: &mut ContentReader<'_>,
    block: &'b mut Block,
    length: usize,
) -> Result<&'b [u8]> {
    let room = block.room(length);
    match fill(reader, room)? {
        count if count == length => Ok(room),
        _ => Err(Error::new("the data of a layer ends early")),
    }
}

fn add_hole(runs: &mut Vec<Run>) {
    match runs.last_mut() {
        Some(Run::Hole(count)) => *count += 1,
        _ => runs.push(Run::Hole(1)),
    }
}

/// Adds the block with this number, the next after the one that was added before.
fn add_stored(runs: &mut Vec<Run>, number: u32) {
    match runs.last_mut() {
        Some(Run::Stored { count, .. }) => *count += 1,
        _ => runs.push(Run::Stored { first: number, count: 1 }),
    }
}

#[cold]
fn too_many() -> Error {
    Error::new("too many blocks for squashfs")
}
