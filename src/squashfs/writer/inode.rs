//! Inodes as stored. Each type has two forms: a basic one, and an extended one for what the basic one
//! has no field for, such as the link count of a regular file.

use super::directory::Listing;
use super::{BLOCK, File, Image, Inode, InodeKind, MAX_TARGET, Run};
use crate::error::{Error, Result};

/// Types of basic inodes; an extended one has [`EXTENDED`] more.
pub const DIRECTORY: u16 = 1;
const FILE: u16 = 2;
const SYMLINK: u16 = 3;
const FIFO: u16 = 6;

/// Difference of the types of extended and basic inodes.
const EXTENDED: u16 = 7;

/// Fragment of a file that has none, and attributes of an inode that has none.
const NONE: u32 = u32::MAX;

/// Facts about an inode that its position in the tree decides.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub number: u32,
    /// Number of the directory that holds it.
    pub parent: u32,
    /// Index of its attributes.
    pub xattrs: Option<u32>,
}

impl InodeKind {
    /// Type in a directory entry.
    pub fn basic_type(&self) -> u16 {
        match self {
            Self::Directory(_) => DIRECTORY,
            Self::File(_) => FILE,
            Self::Symlink(_) => SYMLINK,
            Self::Fifo => FIFO,
        }
    }
}

/// Appends the stored form of `inode` to `bytes`; a directory has a `listing`.
pub fn encode(
    bytes: &mut Vec<u8>,
    image: &Image,
    inode: &Inode,
    header: Header,
    listing: Option<&Listing>,
) -> Result<()> {
    let mut form = Form { bytes, image, inode, header };
    match (&inode.kind, listing) {
        (InodeKind::Directory(_), Some(listing)) => form.directory(listing),
        (InodeKind::Directory(_), None) => Err(Error::new("a directory without a listing")),
        (InodeKind::File(file), _) => form.file(file),
        (InodeKind::Symlink(target), _) => form.symlink(target),
        (InodeKind::Fifo, _) => {
            form.start(header.xattrs.is_some());
            form.put(inode.links);
            form.attributes();
            Ok(())
        }
    }
}

/// One inode that is encoded.
struct Form<'a> {
    bytes: &'a mut Vec<u8>,
    image: &'a Image,
    inode: &'a Inode,
    header: Header,
}

impl Form<'_> {
    fn put(&mut self, number: u32) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_short(&mut self, number: u16) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_long(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    /// Puts the fields that all inodes begin with.
    fn start(&mut self, is_extended: bool) {
        let type_ = self.inode.kind.basic_type();
        self.put_short(if is_extended { type_ + EXTENDED } else { type_ });
        self.put_short(self.inode.mode & 0o7777);
        // Indexes of the id table, which has one entry if owner and group have the same number.
        self.put_short(0);
        self.put_short(u16::from(self.image.uid != self.image.gid));
        self.put(self.inode.mtime);
        self.put(self.header.number);
    }

    /// Puts the last field of an extended inode of a type without others.
    fn attributes(&mut self) {
        if let Some(index) = self.header.xattrs {
            self.put(index);
        }
    }

    fn directory(&mut self, listing: &Listing) -> Result<()> {
        // The names `.` and `..`, which are not stored, count as three bytes.
        let size = listing.size.checked_add(3).ok_or_else(too_large)?;
        let links = listing.subdirectories.saturating_add(2);
        let short = u16::try_from(size).ok();
        let is_basic = listing.index.count == 0 && self.header.xattrs.is_none();
        match short.filter(|_| is_basic) {
            Some(size) => {
                self.start(false);
                self.put(listing.place.block);
                self.put(links);
                self.put_short(size);
                self.put_short(listing.place.offset);
                self.put(self.header.parent);
            }
            None => {
                self.start(true);
                self.put(links);
                self.put(size);
                self.put(listing.place.block);
                self.put(self.header.parent);
                self.put_short(listing.index.count);
                self.put_short(listing.place.offset);
                self.put(self.header.xattrs.unwrap_or(NONE));
                self.bytes.extend(&listing.index.bytes);
            }
        }
        Ok(())
    }

    fn file(&mut self, file: &File) -> Result<()> {
        let (start, holes) = self.extent(file)?;
        let (fragment, offset) =
            file.fragment.map_or((NONE, 0), |fragment| (fragment.index, fragment.offset));
        let short = u32::try_from(start).ok().zip(u32::try_from(file.length).ok());
        let is_basic = self.inode.links == 1 && holes == 0 && self.header.xattrs.is_none();
        match short.filter(|_| is_basic) {
            Some((start, length)) => {
                self.start(false);
                self.put(start);
                self.put(fragment);
                self.put(offset);
                self.put(length);
            }
            None => {
                self.start(true);
                self.put_long(start);
                self.put_long(file.length);
                self.put_long(holes);
                self.put(self.inode.links);
                self.put(fragment);
                self.put(offset);
                self.put(self.header.xattrs.unwrap_or(NONE));
            }
        }
        self.sizes(file)
    }

    /// Position of the first stored block, 0 if there is none, and bytes of all holes.
    fn extent(&self, file: &File) -> Result<(u64, u64)> {
        let (mut start, mut blocks, mut holes) = (None, 0_u64, 0_u64);
        for run in &file.runs {
            match *run {
                Run::Stored { first, count } => {
                    blocks += u64::from(count);
                    start = start.or(Some(first));
                }
                Run::Hole(count) => {
                    blocks += u64::from(count);
                    // The last block of a file may be shorter.
                    let end = file.length.min(blocks * BLOCK as u64);
                    let begin = (blocks - u64::from(count)) * BLOCK as u64;
                    holes += end.saturating_sub(begin);
                }
            }
        }
        let all = match file.fragment {
            Some(_) => file.length / BLOCK as u64,
            None => file.length.div_ceil(BLOCK as u64),
        };
        // The kernel refuses a fragment of nothing.
        if blocks != all || (file.fragment.is_some() && file.length.is_multiple_of(BLOCK as u64)) {
            return Err(Error::new("a file has blocks of another size"));
        }
        let start =
            start.map_or(Ok(0), |first| self.image.block(first).map(|block| block.start))?;
        Ok((start, holes))
    }

    fn sizes(&mut self, file: &File) -> Result<()> {
        for run in &file.runs {
            match *run {
                Run::Stored { first, count } => {
                    for index in first..first.saturating_add(count) {
                        let size = self.image.block(index)?.size;
                        self.put(size);
                    }
                }
                Run::Hole(count) => {
                    let end = self.bytes.len() + 4 * count as usize;
                    self.bytes.resize(end, 0);
                }
            }
        }
        Ok(())
    }

    fn symlink(&mut self, target: &[u8]) -> Result<()> {
        if !(1..=MAX_TARGET).contains(&target.len()) {
            let length = target.len();
            return Err(Error::new(format!("a symbolic link to {length} bytes")));
        }
        self.start(self.header.xattrs.is_some());
        self.put(self.inode.links);
        self.put(u32::try_from(target.len()).map_err(|_| too_large())?);
        self.bytes.extend(target);
        self.attributes();
        Ok(())
    }
}

#[cold]
fn too_large() -> Error {
    Error::new("a directory has 4 GiB of names")
}
