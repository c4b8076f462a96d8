//! Sparse files in a tar: the pieces that are there, and the holes between them.
//!
//! GNU tar has written four forms: in the header itself (`S`), and 0.0, 0.1 and 1.0 as PAX
//! records; see "Storing Sparse Files" in its manual.

use tar::{GnuExtSparseHeader, GnuSparseHeader};

use super::{BLOCK, FileData, number};
use crate::error::{Error, Result};

/// Most pieces of one file: 4 GiB with every second 8 KiB a hole.
pub const MAX_EXTENTS: usize = 1 << 18;

/// A file with holes, which read as zeros.
#[derive(Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Of the file with its holes, in bytes.
    pub length: u64,
    /// In order, not overlapping, none empty.
    pub extents: Vec<Extent>,
}

/// A piece of a file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it lies in the file.
    pub at: u64,
    /// In bytes.
    pub length: u64,
    /// Where it lies in the tar.
    pub offset: u64,
}

impl Sparse {
    /// Lays the pieces of `map` (offset, length, offset, ...) over the `stored` bytes at `offset`.
    pub fn new(map: &[u64], mut offset: u64, stored: u64, length: u64) -> Result<Self> {
        let (pairs, rest) = map.as_chunks::<2>();
        let mut extents = Vec::with_capacity(pairs.len());
        let (mut end, mut used) = (0, 0u64);
        for [at, piece] in pairs {
            if *at < end || !rest.is_empty() {
                return Err(bad());
            }
            end = at.checked_add(*piece).filter(|end| *end <= length).ok_or_else(bad)?;
            used = used.checked_add(*piece).filter(|used| *used <= stored).ok_or_else(bad)?;
            if *piece > 0 {
                extents.push(Extent { at: *at, length: *piece, offset });
                offset = offset.checked_add(*piece).ok_or_else(bad)?;
            }
        }
        if used == stored { Ok(Self { length, extents }) } else { Err(bad()) }
    }
}

impl From<Sparse> for FileData {
    fn from(sparse: Sparse) -> Self {
        Self::Sparse(Box::new(sparse))
    }
}

/// The map that opens a file's data in format 1.0: decimal numbers, one a line, their count of
/// pairs first, padded to whole blocks. `next` reads a block. Tells how long the map is, too.
pub fn read_map(mut next: impl FnMut(&mut [u8]) -> Result<bool>) -> Result<(Vec<u64>, u64)> {
    let mut block = [0; BLOCK as usize];
    let (mut map, mut used) = (Vec::new(), 0);
    let (mut count, mut value) = (None, None::<u64>);
    while count != Some(map.len()) {
        if !next(&mut block)? {
            return Err(bad());
        }
        used += BLOCK;
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let more = value
                        .unwrap_or(0)
                        .checked_mul(10)
                        .and_then(|value| value.checked_add(digit));
                    value = Some(more.filter(|value| *value < 1 << 63).ok_or_else(bad)?);
                }
                b'\n' => match (count, value.take().ok_or_else(bad)?) {
                    (None, pairs) => {
                        let pairs = usize::try_from(pairs).ok();
                        let pairs = pairs.filter(|pairs| *pairs <= MAX_EXTENTS);
                        count = Some(2 * pairs.ok_or_else(bad)?);
                    }
                    (Some(_), number) => map.push(number),
                },
                _ => return Err(bad()),
            }
            if count == Some(map.len()) {
                break;
            }
        }
    }
    Ok((map, used))
}

/// The map of the old GNU format: four pairs in the header, 21 in each block that follows.
pub fn old_map(
    first: &[GnuSparseHeader],
    mut more: bool,
    mut next: impl FnMut(&mut [u8]) -> Result<bool>,
) -> Result<Vec<u64>> {
    let mut map = Vec::new();
    let mut take = |pairs: &[GnuSparseHeader]| {
        for pair in pairs.iter().filter(|pair| !pair.is_empty()) {
            map.push(number(&pair.offset).ok_or_else(bad)?);
            map.push(number(&pair.numbytes).ok_or_else(bad)?);
        }
        if map.len() > 2 * MAX_EXTENTS { Err(bad()) } else { Ok(()) }
    };
    take(first)?;
    while more {
        let mut block = GnuExtSparseHeader::new();
        if !next(block.as_mut_bytes())? {
            return Err(bad());
        }
        take(block.sparse())?;
        more = block.is_extended();
    }
    Ok(map)
}

#[cold]
pub fn bad() -> Error {
    Error::new("a malformed map of a sparse file in the tar")
}
