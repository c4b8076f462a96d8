//! Files with equal contents, found before the second one is written.

use std::collections::HashMap;

use super::blocks::Source;
use super::content::{ContentReader, same};
use crate::bytes::fill;
use crate::error::Result;
use crate::import::blob::Blob;
use crate::import::tree::Content;
use crate::squashfs::writer::{BLOCK, File};

/// Files by size and checksum of their first block, the first of each.
///
/// A file is compared byte by byte with at most one other, so that no image can make an import read
/// much more than its bytes. So of large files with equal size and first block, only equals of the
/// first are found.
pub struct Duplicates<'a> {
    sources: &'a [Source],
    data: &'a [Blob],
    seen: HashMap<Key, usize>,
    buffers: [Box<[u8]>; 2],
}

/// Facts that equal files have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    length: u64,
    /// CRC-32 of the first block.
    checksum: u32,
    is_plain: bool,
}

impl<'a> Duplicates<'a> {
    /// None yet, of these files.
    pub fn new(sources: &'a [Source], data: &'a [Blob]) -> Self {
        let buffers = [(); 2].map(|()| vec![0; BLOCK].into());
        Self { sources, data, seen: HashMap::new(), buffers }
    }

    /// Finds a file among `files`, which the first sources became, that equals `source`, the next one.
    /// `first` is its first block.
    pub fn find(&mut self, files: &[File], source: &Source, first: &[u8]) -> Result<Option<File>> {
        let (length, checksum) = (source.content.length(), libdeflater::crc32(first));
        let key = Key { length, checksum, is_plain: source.is_plain };
        let number = *self.seen.entry(key).or_insert(files.len());
        match (self.sources.get(number), files.get(number)) {
            (Some(other), Some(file))
                if self.are_equal(&other.content, &source.content, first)? =>
            {
                Ok(Some(file.clone()))
            }
            _ => Ok(None),
        }
    }

    /// Tells if two files of one size are equal; `other` starts with `first`.
    fn are_equal(&mut self, one: &Content, other: &Content, first: &[u8]) -> Result<bool> {
        let [left, right] = &mut self.buffers;
        let mut one = ContentReader::new(one, self.data);
        let start = left.get_mut(..first.len()).unwrap_or_default();
        if fill(&mut one, start)? != first.len() || !same(start, first) {
            return Ok(false);
        }
        let mut other = ContentReader::new(other, self.data);
        other.pass(first.len() as u64);
        loop {
            let (left_count, right_count) = (fill(&mut one, left)?, fill(&mut other, right)?);
            let left = left.get(..left_count).unwrap_or_default();
            let right = right.get(..right_count).unwrap_or_default();
            match same(left, right) {
                true if left.is_empty() => return Ok(true),
                true => {}
                false => return Ok(false),
            }
        }
    }
}
