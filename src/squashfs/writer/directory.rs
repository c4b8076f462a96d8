//! Directory listings, with the index by which the kernel finds a name without reading them all.
//!
//! A listing is a sequence of headers, each followed by up to 256 entries whose inodes lie in one
//! block of the inode table and have numbers near that of the header. The index, part of the inode,
//! has the first name of some headers and where these lie.

use super::MAX_NAME;
use super::metadata::{BLOCK, Chain, Place};
use crate::error::{Error, Result};

/// Most entries behind a header (`SQUASHFS_DIR_COUNT`).
const MAX_ENTRIES: u32 = 256;

/// Bytes of a header.
const HEADER: usize = 12;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    /// Number of the inode.
    pub number: u32,
    /// Place of the inode in its table.
    pub inode: Place,
    /// Type of the inode, as one without extensions has it.
    pub type_: u16,
}

/// A listing that was written, as the inode of its directory describes it.
#[derive(Debug)]
pub struct Listing {
    pub place: Place,
    /// Bytes.
    pub size: u32,
    /// Number of subdirectories.
    pub subdirectories: u32,
    pub index: Index,
}

/// Places in a listing that a search for a name can start at.
#[derive(Debug, Default)]
pub struct Index {
    pub count: u16,
    /// As stored.
    pub bytes: Vec<u8>,
}

/// Appends the listing of a directory, whose names are in the order of their bytes.
pub fn append<'a>(
    chain: &mut Chain,
    entries: impl Iterator<Item = Result<Entry<'a>>>,
) -> Result<Listing> {
    let place = chain.place()?;
    let mut writer = Writer { chain, size: 0, group: Group::default(), index: Index::default() };
    let mut subdirectories = 0;
    for entry in entries {
        let entry = entry?;
        subdirectories += u32::from(entry.type_ == super::inode::DIRECTORY);
        writer.add(&entry)?;
    }
    writer.flush()?;
    let Writer { size, index, .. } = writer;
    Ok(Listing { place, size, subdirectories, index })
}

struct Writer<'a, 'e> {
    chain: &'a mut Chain,
    /// Bytes that were appended.
    size: u32,
    group: Group<'e>,
    index: Index,
}

/// Entries that will get one header.
#[derive(Default)]
struct Group<'e> {
    /// The first entry, which all others are compared with.
    first: Option<Entry<'e>>,
    count: u32,
    /// The entries as stored.
    bytes: Vec<u8>,
}

impl<'e> Writer<'_, 'e> {
    fn add(&mut self, entry: &Entry<'e>) -> Result<()> {
        if !self.group.takes(entry) {
            self.flush()?;
        }
        self.group.push(entry)
    }

    /// Appends the group, and an index entry if the group is the first to start in its 8 KiB of the
    /// listing.
    fn flush(&mut self) -> Result<()> {
        let Group { first: Some(first), count, mut bytes } = std::mem::take(&mut self.group) else {
            return Ok(());
        };
        let unit = |size: u32| size as usize / BLOCK;
        if unit(self.size) > usize::from(self.index.count) && self.index.count < u16::MAX {
            self.index.push(self.size, self.chain.place()?.block, first.name);
        }
        let mut header = [0; HEADER];
        let fields = [count - 1, first.inode.block, first.number].map(u32::to_le_bytes);
        header.copy_from_slice(fields.as_flattened());
        self.chain.append(&header)?;
        self.chain.append(&bytes)?;
        let size = self.size as usize + HEADER + bytes.len();
        self.size =
            u32::try_from(size).map_err(|_| Error::new("a directory has 4 GiB of names"))?;
        bytes.clear();
        self.group.bytes = bytes;
        Ok(())
    }
}

impl<'e> Group<'e> {
    /// Tells if `entry` can stand behind the same header.
    fn takes(&self, entry: &Entry<'_>) -> bool {
        let Some(first) = self.first else { return true };
        let size = HEADER + self.bytes.len() + 8 + entry.name.len();
        self.count < MAX_ENTRIES
            && first.inode.block == entry.inode.block
            && delta(&first, entry).is_some()
            // Or a search would have to read much behind the place that the index tells.
            && size <= BLOCK
    }

    fn push(&mut self, entry: &Entry<'e>) -> Result<()> {
        let first = *self.first.get_or_insert(*entry);
        let length = entry.name.len();
        let length = u16::try_from(length).ok().filter(|_| (1..=MAX_NAME).contains(&length));
        let invalid = || Error::new(format!("invalid name {}", entry.name.escape_ascii()));
        let (length, delta) = length.zip(delta(&first, entry)).ok_or_else(invalid)?;
        self.bytes.extend(entry.inode.offset.to_le_bytes());
        self.bytes.extend(delta.to_le_bytes());
        self.bytes.extend(entry.type_.to_le_bytes());
        self.bytes.extend((length - 1).to_le_bytes());
        self.bytes.extend(entry.name);
        self.count += 1;
        Ok(())
    }
}

/// Difference of the inode numbers, which 16 bits must hold.
fn delta(first: &Entry<'_>, entry: &Entry<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

impl Index {
    fn push(&mut self, offset: u32, block: u32, name: &[u8]) {
        let length = (name.len() as u32).saturating_sub(1);
        for field in [offset, block, length] {
            self.bytes.extend(field.to_le_bytes());
        }
        self.bytes.extend(name);
        self.count += 1;
    }
}
