//! Inode table and directory table, which refer to each other.
//!
//! Directories are written from the leaves to the root: first those below, then the inodes of all
//! names side by side, then the listing. So a listing refers to few blocks of inodes, and reading all
//! attributes of a directory reads few.

use super::directory::{self, Entry, Listing};
use super::inode::{self, Header};
use super::metadata::{Chain, Finished, Place};
use super::xattr::{self, Attributes};
use super::{Image, InodeKind};
use crate::error::{Context, Error, Result};
use crate::squashfs::compression::Compression;

/// Deepest nesting of directories, which are written by recursion.
const MAX_DEPTH: usize = 1024;

/// Reference of an inode that is not written yet.
const PENDING: u64 = u64::MAX;

/// The finished tables.
pub struct Tables {
    pub inodes: Finished,
    pub directories: Finished,
    pub xattrs: Option<xattr::Tables>,
    /// Place of each inode, in the order of their numbers.
    pub references: Vec<u64>,
    /// Place of the root directory.
    pub root: u64,
}

/// Writes all inodes of `image` and all listings.
pub fn tables(image: &Image, compression: Compression) -> Result<Tables> {
    let mut writer = Writer {
        image,
        inodes: Chain::new(compression)?,
        directories: Chain::new(compression)?,
        xattrs: Attributes::new(compression)?,
        references: vec![PENDING; image.inodes.len()],
        bytes: Vec::new(),
    };
    let root = image.inode(0)?;
    let InodeKind::Directory(names) = &root.kind else {
        return Err(Error::new("the root is not a directory"));
    };
    let listing = writer.directory(0, names, 0)?;
    // Nothing holds the root; mksquashfs too gives it a parent that no inode is.
    let parent = u32::try_from(image.inodes.len()).unwrap_or(u32::MAX).saturating_add(1);
    let root = writer.inode(0, parent, Some(&listing))?.reference();
    if writer.references.contains(&PENDING) {
        return Err(Error::new("an inode without a name"));
    }
    Ok(Tables {
        inodes: writer.inodes.finish()?,
        directories: writer.directories.finish()?,
        xattrs: writer.xattrs.finish()?,
        references: writer.references,
        root,
    })
}

struct Writer<'a> {
    image: &'a Image,
    inodes: Chain,
    directories: Chain,
    xattrs: Attributes<'a>,
    references: Vec<u64>,
    /// One inode as stored.
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes what is below the directory with this index, and its listing.
    fn directory(
        &mut self,
        index: u32,
        names: &'a [(Box<[u8]>, u32)],
        depth: usize,
    ) -> Result<Listing> {
        if depth > MAX_DEPTH {
            return Err(Error::new(format!("more than {MAX_DEPTH} directories deep")));
        }
        let mut below = Vec::new();
        for (_, index) in names {
            if let InodeKind::Directory(names) = &self.image.inode(*index)?.kind {
                below.push(self.directory(*index, names, depth + 1)?);
            }
        }
        let mut below = below.iter();
        for (name, index_of_name) in names {
            let kind = &self.image.inode(*index_of_name)?.kind;
            let listing = if let InodeKind::Directory(_) = kind { below.next() } else { None };
            // Another name of an inode that is written needs no second one.
            if self.reference(*index_of_name) == PENDING {
                self.inode(*index_of_name, index + 1, listing)
                    .context(|| format!("cannot store {}", name.escape_ascii()))?;
            }
        }
        let (image, references) = (self.image, &self.references);
        let entries = names.iter().map(|(name, index)| {
            let type_ = image.inode(*index)?.kind.basic_type();
            let reference = references.get(*index as usize).copied().unwrap_or(PENDING);
            Ok(Entry { name, number: index + 1, inode: Place::from(reference), type_ })
        });
        directory::append(&mut self.directories, entries)
    }

    fn reference(&self, index: u32) -> u64 {
        self.references.get(index as usize).copied().unwrap_or(PENDING)
    }

    fn inode(&mut self, index: u32, parent: u32, listing: Option<&Listing>) -> Result<Place> {
        let inode = self.image.inode(index)?;
        let xattrs = inode.xattrs.as_deref().map(|xattrs| self.xattrs.index(xattrs)).transpose()?;
        let header = Header { number: index + 1, parent, xattrs };
        self.bytes.clear();
        inode::encode(&mut self.bytes, self.image, inode, header, listing)?;
        let place = self.inodes.place()?;
        self.inodes.append(&self.bytes)?;
        if let Some(reference) = self.references.get_mut(index as usize) {
            *reference = place.reference();
        }
        Ok(place)
    }
}
