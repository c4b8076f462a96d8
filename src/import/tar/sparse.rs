//! Sparse files in a tar archive: extents of data, and holes between them.
//!
//! GNU tar has four formats: the old one in the header itself (type `S`), and 0.0, 0.1 and 1.0 in PAX
//! records; see "Storing Sparse Files" in its manual.

use tar::{GnuExtSparseHeader, GnuSparseHeader};

use super::{BLOCK, FileData, number};
use crate::error::{Error, Result};

/// Maximum number of extents of a file: 4 GiB where extents and holes of 8 KiB take turns.
pub const MAX_EXTENTS: usize = 1 << 18;

/// A file with holes, which read as zeros.
#[derive(Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Length of the file in bytes, holes included.
    pub length: u64,
    /// Extents in ascending order, without overlap; none is empty.
    pub extents: Vec<Extent>,
}

/// A range of a file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Position in the file.
    pub at: u64,
    /// Length in bytes.
    pub length: u64,
    /// Position in the archive.
    pub offset: u64,
}

impl Sparse {
    /// Maps extents, given as offset, length, offset and so on, to the `stored` bytes at `offset` of
    /// the archive. The file has `length` bytes.
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

/// Reads the map of format 1.0, which precedes the data: decimal numbers, one a line, the number of
/// pairs first, padded to whole blocks. `next` reads a block. Returns the map and its size in bytes.
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

/// Reads the map of the old GNU format: four pairs in the header, 21 in each block after it.
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
    Error::new("malformed map of a sparse file")
}
