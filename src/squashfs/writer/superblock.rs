//! The superblock: the first 96 bytes of an image, and the compressor options that may follow it.

use super::{BLOCK, Image};
use crate::error::{Error, Result};
use crate::squashfs::compression::Compression;

/// Position of a table that the image does not have.
pub const ABSENT: u64 = u64::MAX;

/// Bits of `flags`. The kernel reads the last one; tools print the others.
const PLAIN_INODES: u16 = 1 << 0;
const PLAIN_DATA: u16 = 1 << 1;
const DUPLICATES_FOUND: u16 = 1 << 6;
const EXPORTABLE: u16 = 1 << 7;
const HAS_OPTIONS: u16 = 1 << 10;

/// Positions of the tables, in bytes from the start of the file.
#[derive(Debug)]
pub struct Positions {
    pub bytes_used: u64,
    pub id_table: u64,
    pub xattr_table: u64,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: u64,
    pub export_table: u64,
}

/// The start of an image.
#[derive(Debug, Clone)]
pub struct Head {
    /// Superblock and compressor options.
    pub bytes: Vec<u8>,
    /// Bytes of the image that are in use: where its last table ends.
    pub bytes_used: u64,
}

impl Head {
    pub(super) fn new(
        image: &Image,
        ids: &[u32],
        root: u64,
        positions: &Positions,
        has_plain_tables: bool,
    ) -> Result<Self> {
        let count = |number: usize| u32::try_from(number).map_err(|_| too_many());
        let block = BLOCK as u32;
        let compression = image.compression;
        let compressor = compression.compressor();
        let flag = |bit, is_set| if is_set { bit } else { 0 };
        let flags = DUPLICATES_FOUND
            | EXPORTABLE
            | flag(PLAIN_INODES, has_plain_tables)
            | flag(PLAIN_DATA, compression == Compression::None)
            | flag(HAS_OPTIONS, !compressor.options().is_empty());
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(b"hsqs");
        bytes.extend(count(image.inodes.len())?.to_le_bytes());
        // The newest file, so that the same image has the same bytes whenever it is written.
        let newest = image.inodes.iter().map(|inode| inode.mtime).max().unwrap_or_default();
        bytes.extend(newest.to_le_bytes());
        bytes.extend(block.to_le_bytes());
        bytes.extend(count(image.fragments.len())?.to_le_bytes());
        bytes.extend(compressor.id().to_le_bytes());
        bytes.extend((block.ilog2() as u16).to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(u16::try_from(ids.len()).map_err(|_| too_many())?.to_le_bytes());
        // Version 4.0.
        bytes.extend([4, 0, 0, 0]);
        for position in [
            root,
            positions.bytes_used,
            positions.id_table,
            positions.xattr_table,
            positions.inode_table,
            positions.directory_table,
            positions.fragment_table,
            positions.export_table,
        ] {
            bytes.extend(position.to_le_bytes());
        }
        bytes.extend(compressor.options());
        Ok(Self { bytes, bytes_used: positions.bytes_used })
    }
}

#[cold]
fn too_many() -> Error {
    Error::new("too many files for squashfs")
}
