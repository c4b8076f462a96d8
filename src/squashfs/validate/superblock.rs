//! The superblock: the first 96 bytes of an image, and the compressor options that may follow it.

use super::File;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{Context, Error, Result};

/// Size of the superblock in bytes.
pub const SIZE: u64 = 96;

/// Position of a table that the image does not have.
pub const ABSENT: u64 = u64::MAX;

/// Bits of `flags` that have a meaning; the highest says that the id table is stored uncompressed.
const KNOWN_FLAGS: u16 = 0x0fff;

/// Bit of `flags`: compressor options follow the superblock.
const HAS_OPTIONS: u16 = 1 << 10;

/// Compressors that the kernel reads: name, id in the superblock, size of the options in bytes.
pub const COMPRESSORS: [(&str, u16, u64); 5] =
    [("gzip", 1, 8), ("lzo", 3, 8), ("xz", 4, 8), ("lz4", 5, 8), ("zstd", 6, 4)];

/// Fields of the superblock. Positions are in bytes from the start of the file.
#[derive(Debug)]
pub struct Superblock {
    pub inodes: u32,
    block_size: u32,
    pub fragments: u32,
    compressor: u16,
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
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            inodes: u32_at(bytes, 4)?,
            block_size: u32_at(bytes, 12)?,
            fragments: u32_at(bytes, 16)?,
            compressor: u16_at(bytes, 20)?,
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

/// Compressor of an image.
#[derive(Debug)]
pub struct Compressor {
    pub name: &'static str,
    /// First position at which file data may lie: after the compressor options, if there are any.
    pub data_start: u64,
}

/// Reads the superblock, and makes the checks that need nothing but it and the size of the file.
pub fn read(file: &File<'_>) -> Result<(Superblock, Compressor)> {
    let too_short = || Error::new(format!("the file has only {} bytes", file.size));
    if file.size < SIZE {
        return Err(too_short());
    }
    let bytes: [u8; SIZE as usize] = file.bytes(0)?;
    let superblock = Superblock::parse(&bytes).ok_or_else(too_short)?;
    if !bytes.starts_with(b"hsqs") {
        return Err(Error::new("bad magic number"));
    }
    if superblock.version != (4, 0) {
        let (major, minor) = superblock.version;
        return Err(Error::new(format!("version {major}.{minor}, expected 4.0")));
    }
    if superblock.flags & !KNOWN_FLAGS != 0 {
        return Err(Error::new(format!("unknown flags {:#06x}", superblock.flags)));
    }
    check_block_size(&superblock)?;
    let compressor = read_compressor(file, &superblock)?;
    // A loop device ends at the last whole sector of 512 bytes.
    let (used, size) = (superblock.bytes_used, file.size);
    if used > size & !511 {
        return Err(Error::new(format!("{used} bytes are in use, but the file has {size}")));
    }
    Ok((superblock, compressor))
}

/// Checks the size of data blocks: a power of two from 4 KiB to 1 MiB, stored with its logarithm.
fn check_block_size(superblock: &Superblock) -> Result<()> {
    let (size, log) = (superblock.block_size, superblock.block_log);
    if (12..=20).contains(&log) && size == 1 << log {
        return Ok(());
    }
    Err(Error::new(format!("block size {size} with logarithm {log}")))
}

/// Reads the compressor options, which are a metadata block that is stored uncompressed.
fn read_compressor(file: &File<'_>, superblock: &Superblock) -> Result<Compressor> {
    let id = superblock.compressor;
    let known = COMPRESSORS.iter().find(|(_, known, _)| *known == id);
    let (name, _, length) =
        *known.ok_or_else(|| Error::new(format!("unknown compressor with id {id}")))?;
    if superblock.flags & HAS_OPTIONS == 0 {
        return Ok(Compressor { name, data_start: SIZE });
    }
    let [low, high, dictionary @ ..]: [u8; 6] =
        file.bytes(SIZE).context(|| format!("{name} options"))?;
    let header = u16::from_le_bytes([low, high]);
    if u64::from(header) != length | 0x8000 {
        return Err(Error::new(format!("{name} options with the header {header:#06x}")));
    }
    let dictionary = u32::from_le_bytes(dictionary);
    if name == "xz" && !is_valid_dictionary(dictionary, superblock.block_size) {
        return Err(Error::new(format!("xz dictionary of {dictionary} bytes")));
    }
    Ok(Compressor { name, data_start: SIZE + 2 + length })
}

/// Returns whether xz may have a dictionary of `size` bytes: 2^n or 3 * 2^n; at least the size of a
/// metadata block, which could not be decompressed otherwise; at most the size of a data block,
/// since the kernel allocates as much as the image asks for.
fn is_valid_dictionary(size: u32, block_size: u32) -> bool {
    let odd = size.checked_shr(size.trailing_zeros()).unwrap_or_default();
    matches!(odd, 1 | 3) && (8 << 10..=block_size).contains(&size)
}
