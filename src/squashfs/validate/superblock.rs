//! The superblock: the first 96 bytes, and the compressor's options behind it.

use super::File;
use crate::error::{Context, Error, Result};
use crate::squashfs::compression::Compressor;

/// Bytes of the superblock.
pub const SIZE: u64 = 96;

/// Position of a table that the image does not have.
pub const ABSENT: u64 = u64::MAX;

/// Bits of `flags` that have a meaning; the highest says that the id table is stored uncompressed.
const KNOWN_FLAGS: u16 = 0x0fff;

/// The bit that says that compressor options follow the superblock.
const HAS_OPTIONS: u16 = 1 << 10;

/// What the tables are checked against. Positions are bytes from the start of the file.
#[derive(Debug)]
pub struct Superblock {
    pub compressor: Compressor,
    pub inodes: u32,
    pub fragments: u32,
    pub ids: u16,
    /// Position of a metadata block behind the inode table's start, shifted left by 16, and the
    /// offset of the root inode in it.
    pub root_inode: u64,
    /// Where the last table ends.
    pub bytes_used: u64,
    /// First byte that data may lie at.
    pub data: u64,
    pub id_table: u64,
    pub xattr_table: u64,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: u64,
    pub export_table: u64,
}

/// Reads and checks what can be judged by the superblock and the file's size alone.
pub fn read(file: &File<'_>) -> Result<Superblock> {
    if file.size < SIZE {
        return Err(Error::new(format!("the file has {} bytes only", file.size)));
    }
    let bytes: [u8; SIZE as usize] = file.bytes(0)?;
    if !bytes.starts_with(b"hsqs") {
        return Err(Error::new("the magic number is missing"));
    }
    let version = (u16_at(&bytes, 28), u16_at(&bytes, 30));
    if version != (4, 0) {
        return Err(Error::new(format!("version {}.{}, expected 4.0", version.0, version.1)));
    }
    let flags = u16_at(&bytes, 24);
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Error::new(format!("unknown flags {flags:#06x}")));
    }
    let block_size = check_block_size(&bytes)?;
    let (compressor, data) = compressor(file, &bytes, flags, block_size)?;
    let superblock = Superblock {
        compressor,
        inodes: u32_at(&bytes, 4),
        fragments: u32_at(&bytes, 16),
        ids: u16_at(&bytes, 26),
        root_inode: u64_at(&bytes, 32),
        bytes_used: u64_at(&bytes, 40),
        data,
        id_table: u64_at(&bytes, 48),
        xattr_table: u64_at(&bytes, 56),
        inode_table: u64_at(&bytes, 64),
        directory_table: u64_at(&bytes, 72),
        fragment_table: u64_at(&bytes, 80),
        export_table: u64_at(&bytes, 88),
    };
    // A loop device ends at the last whole sector of 512 bytes.
    if superblock.bytes_used > file.size & !511 {
        let (used, size) = (superblock.bytes_used, file.size);
        return Err(Error::new(format!("{used} bytes are in use, but the file has {size}")));
    }
    Ok(superblock)
}

/// The size of data blocks: a power of two from 4 KiB to 1 MiB, stored together with its logarithm.
fn check_block_size(bytes: &[u8]) -> Result<u32> {
    let (size, log) = (u32_at(bytes, 12), u16_at(bytes, 22));
    match (12..=20).contains(&log) && size == 1 << log {
        true => Ok(size),
        false => Err(Error::new(format!("block size {size} with logarithm {log}"))),
    }
}

/// Returns the compressor and the first byte that data may lie at: behind the options of the
/// compressor, if there are any. They are a metadata block that is stored uncompressed.
fn compressor(
    file: &File<'_>,
    bytes: &[u8],
    flags: u16,
    block_size: u32,
) -> Result<(Compressor, u64)> {
    let id = u16_at(bytes, 20);
    let compressor = Compressor::from_id(id)
        .ok_or_else(|| Error::new(format!("unknown compressor with id {id}")))?;
    if flags & HAS_OPTIONS == 0 {
        return Ok((compressor, SIZE));
    }
    let options: [u8; 6] = file.bytes(SIZE).context(|| format!("{compressor} options"))?;
    let header = u16_at(&options, 0);
    let length = compressor.options_size();
    if u64::from(header) != length | 0x8000 {
        return Err(Error::new(format!("{compressor} options with the header {header:#06x}")));
    }
    let dictionary = u32_at(&options, 2);
    if compressor == Compressor::Xz && !is_dictionary(dictionary, block_size) {
        return Err(Error::new(format!("xz dictionary of {dictionary} bytes")));
    }
    Ok((compressor, SIZE + 2 + length))
}

/// Whether xz may have a dictionary of `size` bytes: 2^n or 3 * 2^n, at least a metadata block, or it
/// could not be read, and at most a block of data: the kernel allocates as much as it is told.
fn is_dictionary(size: u32, block_size: u32) -> bool {
    let odd = size.checked_shr(size.trailing_zeros()).unwrap_or_default();
    matches!(odd, 1 | 3) && (8 << 10..=block_size).contains(&size)
}

/// `N` bytes at `at`.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// The number of eight bytes at `at`, as positions are stored.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
