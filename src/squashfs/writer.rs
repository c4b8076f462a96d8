//! Writer of the tables of a squashfs image: superblock, inodes, directories with their index,
//! fragments, export table, ids and extended attributes.
//!
//! Pure: takes an [`Image`], which says where the data blocks lie that were written before, and
//! appends the tables to them. Start at [`write()`]. The same image gives the same bytes. Format:
//! <https://docs.kernel.org/filesystems/squashfs.html>.
//!
//! The structures are our own: those of `backhand` have no constructor for directory entries, end
//! symbolic links at 255 bytes, and can be written by its derive macros alone.

mod directory;
mod inode;
mod metadata;
#[cfg(test)]
pub(crate) mod reading;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;
mod xattr;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

pub use superblock::Head;

use crate::error::{Context, Error, Result};
use crate::squashfs::compression::Compression;
use metadata::{Chain, Finished};
use superblock::{ABSENT, Positions};

/// Size of a data block in bytes, `mksquashfs`'s default. Larger ones compress better and make a
/// first look at a file slower.
pub const BLOCK: usize = 128 << 10;

/// Longest name in a directory, and longest target of a symbolic link that the kernel reads
/// (`PATH_MAX` with its final zero byte), in bytes.
pub const MAX_NAME: usize = 255;
/// See [`MAX_NAME`].
pub const MAX_TARGET: usize = 4095;

/// Fewest bytes of data for each inode with which the tables stay uncompressed. A first start reads
/// a few of their blocks and then need not decompress them, which saves 5 % of it; at this size they
/// make an image at most 1 % larger. Images of many small files keep them compressed.
const PLAIN_TABLES: u64 = 8 << 10;

/// An image whose data blocks are written.
#[derive(Debug, Default)]
pub struct Image {
    /// All inodes; the number of each is its index plus 1. The first is the root directory.
    pub inodes: Vec<Inode>,
    /// All data and fragment blocks.
    pub blocks: Vec<Stored>,
    /// Fragment blocks, as indexes of `blocks`.
    pub fragments: Vec<u32>,
    /// Owner of all files.
    pub uid: u32,
    /// Group of all files.
    pub gid: u32,
    /// Compressor of the blocks, and of the tables.
    pub compression: Compression,
}

/// A file of any type, without its names.
#[derive(Debug)]
pub struct Inode {
    /// Permissions, with set-id and sticky bits.
    pub mode: u16,
    /// Time of the last modification, in seconds since 1970.
    pub mtime: u32,
    /// Number of names; that of a directory is counted here.
    pub links: u32,
    /// Extended attributes, if any.
    pub xattrs: Option<Arc<Xattrs>>,
    /// Type and content.
    pub kind: InodeKind,
}

/// Extended attributes of the namespace `user.`: names without that prefix, and values.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Type and content of an [`Inode`].
#[derive(Debug)]
pub enum InodeKind {
    /// Names and indexes of inodes, in the order of the names' bytes. A directory has one name.
    Directory(Vec<(Box<[u8]>, u32)>),
    /// Regular file.
    File(File),
    /// Symbolic link to this.
    Symlink(Arc<[u8]>),
    /// Named pipe.
    Fifo,
}

/// Content of a regular file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Size in bytes, holes included.
    pub length: u64,
    /// Blocks in the order of the file: all of them, or all but the end that a fragment holds. Those
    /// that are stored follow each other in the image.
    pub runs: Box<[Run]>,
    /// Place of the end of the file, or of a small file, in a block that files share.
    pub fragment: Option<Fragment>,
}

/// Blocks of a file that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Indexes of [`Image::blocks`].
    Stored {
        /// First index.
        first: u32,
        /// Number of blocks.
        count: u32,
    },
    /// Number of blocks of zeros, which are not stored.
    Hole(u32),
}

/// Place of the end of a file in a fragment block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Index of [`Image::fragments`].
    pub index: u32,
    /// Bytes in the uncompressed block.
    pub offset: u32,
}

/// Place of a block in the image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Bytes from the start of the file.
    start: u64,
    /// Bytes, and a bit that says that they are uncompressed.
    size: u32,
}

impl Stored {
    /// Bit of a size: the block is uncompressed.
    const PLAIN: u32 = 1 << 24;

    /// A block of `size` bytes at `start`.
    ///
    /// # Errors
    /// When it has more than [`BLOCK`] bytes.
    pub fn new(start: u64, size: usize, is_compressed: bool) -> Result<Self> {
        let plain = if is_compressed { 0 } else { Self::PLAIN };
        let size = u32::try_from(size).ok().filter(|size| *size as usize <= BLOCK);
        let size = size.ok_or_else(|| Error::new("a data block is too large"))?;
        Ok(Self { start, size: size | plain })
    }
}

/// Appends the tables of `image` to `out`, which has `position` bytes, and returns what to write to
/// its start.
///
/// # Errors
/// When `out` fails, or the image exceeds a limit of the format.
pub fn write(image: &Image, out: &mut dyn Write, position: u64) -> Result<Head> {
    let compression = image.table_compression(position);
    let tables = tree::tables(image, compression)?;
    let mut sink = Sink { out, position };
    let inode_table = sink.chain(&tables.inodes)?;
    let directory_table = sink.chain(&tables.directories)?;
    let fragment_table = sink.fragments(image, compression)?;
    // No container reads it.
    let export_table = sink.export(&tables.references, image.compression)?;
    let ids = image.ids();
    let id_table = sink.ids(&ids, compression)?;
    let xattr_table = match tables.xattrs {
        None => ABSENT,
        Some(xattrs) => sink.xattrs(&xattrs)?,
    };
    let bytes_used = sink.position;
    let positions = Positions {
        bytes_used,
        id_table,
        xattr_table,
        inode_table,
        directory_table,
        fragment_table,
        export_table,
    };
    Head::new(image, &ids, tables.root, &positions, compression == Compression::None)
}

impl Image {
    fn inode(&self, index: u32) -> Result<&Inode> {
        self.inodes.get(index as usize).ok_or_else(|| Error::new("no such inode"))
    }

    fn block(&self, index: u32) -> Result<Stored> {
        self.blocks.get(index as usize).copied().ok_or_else(|| Error::new("no such block"))
    }

    /// Entries of the id table.
    fn ids(&self) -> Vec<u32> {
        let mut ids = vec![self.uid, self.gid];
        ids.dedup();
        ids
    }

    /// Compression of tables behind `data` bytes: see [`PLAIN_TABLES`].
    fn table_compression(&self, data: u64) -> Compression {
        match data / PLAIN_TABLES >= self.inodes.len() as u64 {
            true => Compression::None,
            false => self.compression,
        }
    }
}

/// The image file from its data on.
struct Sink<'a> {
    out: &'a mut dyn Write,
    /// Bytes that it has.
    position: u64,
}

impl Sink<'_> {
    /// Appends `bytes`, and returns their position.
    fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        let start = self.position;
        self.out.write_all(bytes).context(|| "cannot write the tables".into())?;
        self.position += bytes.len() as u64;
        Ok(start)
    }

    fn chain(&mut self, chain: &Finished) -> Result<u64> {
        self.put(&chain.bytes)
    }

    /// Appends a table and the positions of its blocks, and returns the position of those.
    fn indexed(&mut self, chain: &Finished) -> Result<u64> {
        let start = self.chain(chain)?;
        self.index(chain, start)
    }

    fn index(&mut self, chain: &Finished, start: u64) -> Result<u64> {
        let index: Vec<u8> =
            chain.starts.iter().flat_map(|at| (start + u64::from(*at)).to_le_bytes()).collect();
        self.put(&index)
    }

    fn fragments(&mut self, image: &Image, compression: Compression) -> Result<u64> {
        if image.fragments.is_empty() {
            return Ok(ABSENT);
        }
        let mut chain = Chain::new(compression)?;
        for index in &image.fragments {
            let Stored { start, size } = image.block(*index)?;
            chain.append(&start.to_le_bytes())?;
            // Four bytes are not used.
            chain.append(&u64::from(size).to_le_bytes())?;
        }
        self.indexed(&chain.finish()?)
    }

    fn export(&mut self, references: &[u64], compression: Compression) -> Result<u64> {
        let mut chain = Chain::new(compression)?;
        for reference in references {
            chain.append(&reference.to_le_bytes())?;
        }
        self.indexed(&chain.finish()?)
    }

    fn ids(&mut self, ids: &[u32], compression: Compression) -> Result<u64> {
        let mut chain = Chain::new(compression)?;
        for id in ids {
            chain.append(&id.to_le_bytes())?;
        }
        self.indexed(&chain.finish()?)
    }

    /// Appends attributes, their id table and its header, and returns the position of the header.
    fn xattrs(&mut self, xattrs: &xattr::Tables) -> Result<u64> {
        let start = self.chain(&xattrs.pairs)?;
        let ids = self.chain(&xattrs.ids)?;
        let header = self.put(&start.to_le_bytes())?;
        self.put(&u64::from(xattrs.count).to_le_bytes())?;
        self.index(&xattrs.ids, ids)?;
        Ok(header)
    }
}
