//! The superblock: the first 96 bytes of an image, and the compressor options that may follow it.

use super::File;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{Context, Error, Result};
use crate::squashfs::compression::Compressor;

/// Size of the superblock in bytes.
pub const SIZE: u64 = 96;

/// Position of a table that the image does not have.
pub const ABSENT: u64 = u64::MAX;

/// Bits of `flags` that have a meaning; the highest says that the id table is stored uncompressed.
const KNOWN_FLAGS: u16 = 0x0fff;

/// Bit of `flags`: compressor options follow the superblock.
const HAS_OPTIONS: u16 = 1 << 10;

/// Fields of the superblock. Positions are in bytes from the start of the file.
#[derive(Debug)]
pub struct Superblock {
    pub inodes: u32,
    block_size: u32,
    pub fragments: u32,
    pub compressor: Compressor,
    block_log: u16,
    flags: u16,
    pub ids: u16,
    version: (u16, u16),
    /// Reference to the root inode: position of its metadata block after the start of the inode
    /// table, shifted left by 16, and its offset in the uncompressed block.
    pub root_inode: u64,
    /// End of the last table.
    pub bytes_used: u64,
    pub id_table: u64,
    pub xattr_table: u64,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: u64,
    pub export_table: u64,
}

impl Superblock {
    fn parse(bytes: &[u8], compressor: Compressor) -> Option<Self> {
        Some(Self {
            inodes: u32_at(bytes, 4)?,
            block_size: u32_at(bytes, 12)?,
            fragments: u32_at(bytes, 16)?,
            compressor,
            block_log: u16_at(bytes, 22)?,
            flags: u16_at(bytes, 24)?,
            ids: u16_at(bytes, 26)?,
            version: (u16_at(bytes, 28)?, u16_at(bytes, 30)?),
            root_inode: u64_at(bytes, 32)?,
            bytes_used: u64_at(bytes, 40)?,
            id_table: u64_at(bytes, 48)?,
            xattr_table: u64_at(bytes, 56)?,
            inode_table: u64_at(bytes, 64)?,
            directory_table: u64_at(bytes, 72)?,
            fragment_table: u64_at(bytes, 80)?,
            export_table: u64_at(bytes, 88)?,
        })
    }
}

/// Reads the superblock, and makes the checks that need nothing but it and the size of the file.
/// Returns the first position at which file data may lie, too.
pub fn read(file: &File<'_>) -> Result<(Superblock, u64)> {
    let too_short = || Error::new(format!("the file has only {} bytes", file.size));
    if file.size < SIZE {
        return Err(too_short());
    }
    let bytes: [u8; SIZE as usize] = file.bytes(0)?;
    if !bytes.starts_with(b"hsqs") {
        return Err(Error::new("bad magic number"));
    }
    let id = u16_at(&bytes, 20).ok_or_else(too_short)?;
    let compressor = Compressor::from_id(id)
        .ok_or_else(|| Error::new(format!("unknown compressor with id {id}")))?;
    let superblock = Superblock::parse(&bytes, compressor).ok_or_else(too_short)?;
    if superblock.version != (4, 0) {
        let (major, minor) = superblock.version;
        return Err(Error::new(format!("version {major}.{minor}, expected 4.0")));
    }
    if superblock.flags & !KNOWN_FLAGS != 0 {
        return Err(Error::new(format!("unknown flags {:#06x}", superblock.flags)));
    }
    check_block_size(&superblock)?;
    let data_start = check_options(file, &superblock)?;
    // A loop device ends at the last whole sector of 512 bytes.
    let (used, size) = (superblock.bytes_used, file.size);
    if used > size & !511 {
        return Err(Error::new(format!("{used} bytes are in use, but the file has {size}")));
    }
    Ok((superblock, data_start))
}

/// Checks the size of data blocks: a power of two from 4 KiB to 1 MiB, stored with its logarithm.
fn check_block_size(superblock: &Superblock) -> Result<()> {
    let (size, log) = (superblock.block_size, superblock.block_log);
    if (12..=20).contains(&log) && size == 1 << log {
        return Ok(());
    }
    Err(Error::new(format!("block size {size} with logarithm {log}")))
}

/// Checks the compressor options, which are a metadata block that is stored uncompressed. Returns the
/// first position after them, or after the superblock if there are none.
fn check_options(file: &File<'_>, superblock: &Superblock) -> Result<u64> {
    let compressor = superblock.compressor;
    if superblock.flags & HAS_OPTIONS == 0 {
        return Ok(SIZE);
    }
    let [low, high, dictionary @ ..]: [u8; 6] =
        file.bytes(SIZE).context(|| format!("{compressor} options"))?;
    let header = u16::from_le_bytes([low, high]);
    let length = compressor.options_size();
    if u64::from(header) != length | 0x8000 {
        return Err(Error::new(format!("{compressor} options with the header {header:#06x}")));
    }
    let dictionary = u32::from_le_bytes(dictionary);
    if compressor == Compressor::Xz && !is_valid_dictionary(dictionary, superblock.block_size) {
        return Err(Error::new(format!("xz dictionary of {dictionary} bytes")));
    }
    Ok(SIZE + 2 + length)
}

/// Returns whether xz may have a dictionary of `size` bytes: 2^n or 3 * 2^n; at least the size of a
/// metadata block, which could not be decompressed otherwise; at most the size of a data block,
/// since the kernel allocates as much as the image asks for.
fn is_valid_dictionary(size: u32, block_size: u32) -> bool {
    let odd = size.checked_shr(size.trailing_zeros()).unwrap_or_default();
    matches!(odd, 1 | 3) && (8 << 10..=block_size).contains(&size)
}
