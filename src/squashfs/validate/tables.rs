//! The tables after the file data: inodes, directories, fragments, export, ids and extended
//! attributes, in this order.
//!
//! The inode and the directory table are chains of metadata blocks. Each other table is such a
//! chain, followed by an index with the position of each block; the superblock points to the index.
//! A metadata block is a header of two bytes, whose lower 15 bits are the size of the rest.

use super::File;
use super::superblock::{ABSENT, Superblock};
use crate::bytes::{u16_at, u64_at};
use crate::error::{Context, Error, Result};

/// Largest size in bytes of a metadata block, uncompressed and so compressed too.
const BLOCK: u64 = 8192;

/// Size in bytes of the smallest inode: a pipe or a socket.
const MIN_INODE: u64 = 20;

/// Largest index in bytes: 134 million inodes, 67 million fragments. The kernel allocates an index
/// in one piece, and warns above 4 MiB.
const MAX_INDEX: u64 = 1 << 20;

/// Bytes of a chain that are read at once.
const WINDOW: u64 = 64 << 10;

/// A table with an index.
struct IndexedTable {
    entries: u64,
    /// Size of an entry in bytes.
    entry_size: u64,
    /// End of the last metadata block.
    blocks_end: u64,
    /// Position of the index.
    index: u64,
}

/// Checks all tables from the last to the first: each must end where the next one starts. File data
/// starts at `data_start` at the earliest.
pub fn check(file: &File<'_>, superblock: &Superblock, data_start: u64) -> Result<()> {
    let mut tables = Tables { file, window: Vec::new(), start: 0 };
    let mut end = tables.check_xattrs(superblock)?;
    for (name, entries, entry_size, index) in [
        ("id table", superblock.ids.into(), 4, superblock.id_table),
        ("export table", superblock.inodes.into(), 8, superblock.export_table),
        ("fragment table", superblock.fragments.into(), 16, superblock.fragment_table),
    ] {
        // Without fragments, the position of their table means nothing.
        let absent = index == ABSENT || (name == "fragment table" && entries == 0);
        if !absent || name == "id table" {
            let table = IndexedTable { entries, entry_size, blocks_end: index, index };
            end = tables.check_indexed(&table, end).context(|| name.into())?;
        }
    }
    let directories = superblock.directory_table;
    tables.follow_chain(directories, end, |_| Ok(())).context(|| "directory table".into())?;
    tables.check_inodes(superblock, data_start).context(|| "inode table".into())
}

/// Reads the headers of metadata blocks through a window on the file.
struct Tables<'a> {
    file: &'a File<'a>,
    /// Bytes of the file from `start` on.
    window: Vec<u8>,
    start: u64,
}

impl Tables<'_> {
    /// Checks the extended attributes and their id table. Returns where the table before them ends.
    fn check_xattrs(&mut self, superblock: &Superblock) -> Result<u64> {
        let (position, end) = (superblock.xattr_table, superblock.bytes_used);
        if position == ABSENT {
            return Ok(end);
        }
        let context = || "xattr table".into();
        // The index has a header of 16 bytes: start of the attributes, number of ids.
        let index = position.checked_add(16).filter(|index| *index <= end);
        let index = index.ok_or_else(|| out_of_bounds(position)).context(context)?;
        let [start, entries] = self.xattr_header(position).context(context)?;
        let table = IndexedTable { entries, entry_size: 16, blocks_end: position, index };
        let first = self.check_indexed(&table, end).context(context)?;
        if start >= first {
            return Err(out_of_bounds(start)).context(context);
        }
        self.follow_chain(start, first, |_| Ok(())).context(context)?;
        Ok(start)
    }

    fn xattr_header(&self, position: u64) -> Result<[u64; 2]> {
        let start = u64::from_le_bytes(self.file.bytes(position)?);
        let ids = u32::from_le_bytes(self.file.bytes(position + 8)?);
        Ok([start, ids.into()])
    }

    /// Checks a table whose index ends at `end`. Returns the position of its first block.
    fn check_indexed(&mut self, table: &IndexedTable, end: u64) -> Result<u64> {
        let length = table.entries.div_ceil(BLOCK / table.entry_size) * 8;
        if length == 0 || length > MAX_INDEX {
            return Err(Error::new(format!("{} entries", table.entries)));
        }
        // So the index lies within the file, which also bounds its size.
        if table.index.checked_add(length) != Some(end) {
            let index = table.index;
            return Err(Error::new(format!(
                "index of {length} bytes at {index} does not end at {end}"
            )));
        }
        let mut index = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.fill(&mut index, table.index)?;
        let mut positions = index.chunks_exact(8).filter_map(|position| u64_at(position, 0));
        let first = positions.next().unwrap_or(ABSENT);
        let mut expected = Some(first);
        self.follow_chain(first, table.blocks_end, |position| {
            if expected != Some(position) {
                return Err(Error::new(format!("block at {position} is not in the index")));
            }
            expected = positions.next();
            Ok(())
        })?;
        match expected {
            None => Ok(first),
            Some(position) => Err(Error::new(format!("no block at {position}, as the index says"))),
        }
    }

    /// Checks the inode table, and that the root inode lies in one of its blocks.
    fn check_inodes(&mut self, superblock: &Superblock, data_start: u64) -> Result<()> {
        let start = superblock.inode_table;
        if start < data_start {
            return Err(out_of_bounds(start));
        }
        let root = start.checked_add(superblock.root_inode >> 16);
        let (mut blocks, mut found) = (0_u64, false);
        self.follow_chain(start, superblock.directory_table, |position| {
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

    /// Follows the chain of metadata blocks from `start`, which must end exactly at `end`, and calls
    /// `visit` with the position of each.
    fn follow_chain(
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
        if position == end {
            return Ok(());
        }
        Err(Error::new(format!("blocks from {start} on do not end at {end}")))
    }

    /// Returns the header of the block at `position`, which is less than `end`.
    fn header(&mut self, position: u64, end: u64) -> Result<u16> {
        let offset = position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some(header) = offset.and_then(|offset| u16_at(&self.window, offset)) {
            return Ok(header);
        }
        let left = end.min(self.file.size).saturating_sub(position);
        if left < 2 {
            return Err(out_of_bounds(position));
        }
        let mut window = std::mem::take(&mut self.window);
        window.resize(usize::try_from(left.min(WINDOW)).unwrap_or_default(), 0);
        self.file.fill(&mut window, position)?;
        (self.window, self.start) = (window, position);
        u16_at(&self.window, 0).ok_or_else(|| out_of_bounds(position))
    }
}

fn out_of_bounds(position: u64) -> Error {
    Error::new(format!("position {position} is out of bounds"))
}
