//! The tables behind the data: inodes, directories, fragments, export, ids and extended attributes,
//! in this order.
//!
//! Inodes and directories are chains of metadata blocks. Each other table is such a chain, followed
//! by an index with the position of each of its blocks, which is what the superblock points to. A
//! metadata block is a header of two bytes, whose lower 15 bits are the size of what follows.

use super::File;
use super::superblock::{ABSENT, Superblock, u64_at};
use crate::error::{Context, Error, Result};

/// Bytes that a metadata block holds when it is uncompressed, and so at most compressed too.
const BLOCK: u64 = 8192;

/// Bytes of the smallest inode, that of a pipe or socket.
const MIN_INODE: u64 = 20;

/// Bytes of an index. The kernel allocates each in one piece, and warns above 4 MiB. Enough for 134
/// million inodes and 67 million fragments.
const MAX_INDEX: u64 = 1 << 20;

/// Bytes that are read at once of a chain of blocks.
const WINDOW: u64 = 64 << 10;

/// A table with an index.
struct Indexed {
    /// Number of entries.
    entries: u64,
    /// Bytes of an entry.
    entry: u64,
    /// Position of the end of the last block.
    blocks_end: u64,
    /// Position of the index.
    index: u64,
}

/// Checks all tables from the last to the first: each has to end where the next one begins.
pub fn check(file: &File<'_>, superblock: &Superblock) -> Result<()> {
    let mut tables = Tables { file, window: Vec::new(), start: 0 };
    let mut end = tables.xattrs(superblock)?;
    for (name, entries, entry, index) in [
        ("id table", superblock.ids.into(), 4, superblock.id_table),
        ("export table", superblock.inodes.into(), 8, superblock.export_table),
        ("fragment table", superblock.fragments.into(), 16, superblock.fragment_table),
    ] {
        // An image without fragments has any position for their table.
        let absent = index == ABSENT || (name == "fragment table" && entries == 0);
        if !absent || name == "id table" {
            let table = Indexed { entries, entry, blocks_end: index, index };
            end = tables.indexed(&table, end).context(|| name.into())?;
        }
    }
    let directories = superblock.directory_table;
    tables.chain(directories, end, |_| Ok(())).context(|| "directory table".into())?;
    tables.inodes(superblock).context(|| "inode table".into())
}

/// A reader of tables, in large pieces.
struct Tables<'a> {
    file: &'a File<'a>,
    /// Bytes of the file from `start` on.
    window: Vec<u8>,
    start: u64,
}

impl Tables<'_> {
    /// Checks extended attributes and their id table; returns where the table before it ends.
    fn xattrs(&mut self, superblock: &Superblock) -> Result<u64> {
        let (position, end) = (superblock.xattr_table, superblock.bytes_used);
        if position == ABSENT {
            return Ok(end);
        }
        let context = || "xattr table".into();
        // A header of 16 bytes: start of the attributes' chain, number of ids.
        let index = position.checked_add(16).filter(|index| *index <= end);
        let index = index.ok_or_else(|| outside(position)).context(context)?;
        let header: [u8; 16] = self.file.bytes(position).context(context)?;
        let (start, entries) = (u64_at(&header, 0), u64_at(&header, 8) & 0xffff_ffff);
        let table = Indexed { entries, entry: 16, blocks_end: position, index };
        let first = self.indexed(&table, end).context(context)?;
        if start >= first {
            return Err(outside(start)).context(context);
        }
        self.chain(start, first, |_| Ok(())).context(context)?;
        Ok(start)
    }

    /// Checks a table whose index ends at `end`; returns the position of its first block.
    fn indexed(&mut self, table: &Indexed, end: u64) -> Result<u64> {
        let length = table.entries.div_ceil(BLOCK / table.entry) * 8;
        if length == 0 || length > MAX_INDEX {
            return Err(Error::new(format!("{} entries", table.entries)));
        }
        // So it lies within the file, and its size is that of something real.
        if table.index.checked_add(length) != Some(end) {
            let index = table.index;
            return Err(Error::new(format!(
                "{length} bytes of index at {index} do not end at {end}"
            )));
        }
        let mut index = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.fill(&mut index, table.index)?;
        let mut positions = index.chunks_exact(8).map(|position| u64_at(position, 0));
        let first = positions.next().unwrap_or(ABSENT);
        let mut expected = Some(first);
        self.chain(first, table.blocks_end, |position| {
            if expected != Some(position) {
                return Err(Error::new(format!("the index does not have the block at {position}")));
            }
            expected = positions.next();
            Ok(())
        })?;
        match expected {
            None => Ok(first),
            Some(position) => Err(Error::new(format!("the index has no block at {position}"))),
        }
    }

    /// Checks the inode table and the reference to the root inode.
    fn inodes(&mut self, superblock: &Superblock) -> Result<()> {
        let start = superblock.inode_table;
        if start < superblock.data {
            return Err(outside(start));
        }
        let root = start.checked_add(superblock.root_inode >> 16);
        let (mut blocks, mut found) = (0_u64, false);
        self.chain(start, superblock.directory_table, |position| {
            blocks += 1;
            found |= root == Some(position);
            Ok(())
        })?;
        let inodes = u64::from(superblock.inodes);
        if inodes == 0 || inodes > blocks.saturating_mul(BLOCK) / MIN_INODE {
            return Err(Error::new(format!("{inodes} inodes in {blocks} blocks")));
        }
        if !found || superblock.root_inode & 0xffff >= BLOCK {
            return Err(Error::new(format!("root inode at {:#x}", superblock.root_inode)));
        }
        Ok(())
    }

    /// Follows the headers of the metadata blocks from `start` on, which must lead exactly to
    /// `end`, and shows each block's position to `visit`.
    fn chain(
        &mut self,
        start: u64,
        end: u64,
        mut visit: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut position = start;
        while position < end {
            let size = u64::from(self.header(position, end)? & 0x7fff);
            if !(1..=BLOCK).contains(&size) {
                return Err(Error::new(format!("block of {size} bytes at {position}")));
            }
            visit(position)?;
            position += 2 + size;
        }
        match position == end {
            true => Ok(()),
            false => Err(Error::new(format!("blocks from {start} on do not end at {end}"))),
        }
    }

    /// The header at `position`, which lies before `end`.
    fn header(&mut self, position: u64, end: u64) -> Result<u16> {
        let offset = position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some([low, high]) = offset.and_then(|at| self.window.get(at..)?.first_chunk()) {
            return Ok(u16::from_le_bytes([*low, *high]));
        }
        let left = end.min(self.file.size).saturating_sub(position);
        if left < 2 {
            return Err(outside(position));
        }
        let mut window = std::mem::take(&mut self.window);
        window.resize(usize::try_from(left.min(WINDOW)).unwrap_or_default(), 0);
        self.file.fill(&mut window, position)?;
        let header = [0, 1].map(|at| window.get(at).copied().unwrap_or_default());
        (self.window, self.start) = (window, position);
        Ok(u16::from_le_bytes(header))
    }
}

fn outside(position: u64) -> Error {
    Error::new(format!("{position} lies outside of its place"))
}
