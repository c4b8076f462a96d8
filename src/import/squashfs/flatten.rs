//! The tree as a list of inodes, in which all names of a file have one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::blocks::Source;
use crate::error::{Context, Error, Result};
use crate::import::tree::{Content, Directory, Node, NodeKind, Tree};
use crate::squashfs::writer::{File, Inode, InodeKind};

/// Most bytes of all files together, holes included: far above any image, and far below what keeps a
/// machine busy for a day with the zeros of a sparse file.
pub const MAX_TOTAL: u64 = 1 << 40;

/// All files of an image.
pub struct Flat {
    /// A directory stands before its names, and these stand side by side.
    pub inodes: Vec<Inode>,
    /// Data of the regular files, in the order of `inodes`.
    pub sources: Vec<Source>,
    /// Bytes of files under further names.
    pub linked: u64,
}

/// Flattens `tree`. `is_plain` tells by the path of a file if its data is to stay uncompressed.
pub fn flatten(tree: Tree, is_plain: &dyn Fn(&[u8]) -> bool) -> Result<Flat> {
    let mut root = tree.into_root();
    let NodeKind::Directory(directory) = std::mem::replace(&mut root.kind, NodeKind::Fifo) else {
        return Err(Error::new("the root is not a directory"));
    };
    let flat = Flat { inodes: Vec::new(), sources: Vec::new(), linked: 0 };
    let mut flattener = Flattener { flat, linked: HashMap::new(), total: 0, is_plain };
    let index = flattener.push(&root, InodeKind::Directory(Vec::new()))?;
    flattener.descend(directory, index, &mut Vec::new())?;
    Ok(flattener.flat)
}

struct Flattener<'a> {
    flat: Flat,
    /// Inodes that may get another name.
    linked: HashMap<Identity, u32>,
    total: u64,
    is_plain: &'a dyn Fn(&[u8]) -> bool,
}

/// Two nodes with this in common are names of one file: a hard link shares the data of its target.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    /// Layer, offset and length of a tar entry's data.
    Data(u16, u64, u64),
    /// Address of a shared map of holes or target of a symbolic link, which stays allocated.
    Shared(usize),
}

impl Identity {
    /// Nothing for what has one name only.
    fn of(node: &Node) -> Option<Self> {
        let shared = |address: *const ()| Some(Self::Shared(address.addr()));
        match &node.kind {
            // No tar entry has its data there: the file stands for a device.
            NodeKind::File(Content::Whole { offset: 0, .. }) => None,
            NodeKind::File(Content::Whole { layer, offset, length }) => {
                Some(Self::Data(*layer, *offset, *length))
            }
            NodeKind::File(Content::Sparse { map, .. }) => shared(Arc::as_ptr(map).cast()),
            NodeKind::Symlink(target) => shared(Arc::as_ptr(target).cast()),
            NodeKind::Directory(_) | NodeKind::Fifo => None,
        }
    }
}

impl Flattener<'_> {
    /// Adds what is in `directory`, whose inode is there.
    fn descend(&mut self, directory: Directory, index: u32, path: &mut Vec<u8>) -> Result<()> {
        let mut names = Vec::with_capacity(directory.len());
        let mut below = Vec::new();
        let parent = path.len();
        for (name, mut node) in directory {
            path.push(b'/');
            path.extend_from_slice(&name);
            let kind = std::mem::replace(&mut node.kind, NodeKind::Fifo);
            let index = match kind {
                NodeKind::Directory(directory) => {
                    let index = self.push(&node, InodeKind::Directory(Vec::new()))?;
                    below.push((name.clone(), index, directory));
                    index
                }
                kind => {
                    node.kind = kind;
                    self.add(node, path)
                        .context(|| format!("cannot store {}", path.escape_ascii()))?
                }
            };
            path.truncate(parent);
            names.push((name, index));
        }
        if let Some(inode) = self.flat.inodes.get_mut(index as usize) {
            inode.kind = InodeKind::Directory(names);
        }
        for (name, index, directory) in below {
            path.push(b'/');
            path.extend_from_slice(&name);
            self.descend(directory, index, path)?;
            path.truncate(parent);
        }
        Ok(())
    }

    /// Adds what is not a directory, or counts another name of it.
    fn add(&mut self, node: Node, path: &[u8]) -> Result<u32> {
        let length = match &node.kind {
            NodeKind::File(content) => content.length(),
            _ => 0,
        };
        self.total = self.total.saturating_add(length);
        if self.total > MAX_TOTAL {
            return Err(Error::new("the image's files have more than 1 TiB"));
        }
        let next = self.next()?;
        if let Some(identity) = Identity::of(&node) {
            match self.linked.entry(identity) {
                Entry::Vacant(place) => _ = place.insert(next),
                Entry::Occupied(place) => {
                    let index = *place.get();
                    self.flat.linked += length;
                    if let Some(inode) = self.flat.inodes.get_mut(index as usize) {
                        inode.links += 1;
                    }
                    return Ok(index);
                }
            }
        }
        let kind = match &node.kind {
            NodeKind::File(_) => InodeKind::File(File::default()),
            NodeKind::Symlink(target) => InodeKind::Symlink(Arc::clone(target)),
            NodeKind::Directory(_) | NodeKind::Fifo => InodeKind::Fifo,
        };
        let inode = self.push(&node, kind)?;
        if let NodeKind::File(content) = node.kind {
            let is_plain = (self.is_plain)(path);
            self.flat.sources.push(Source { inode, content, is_plain });
        }
        Ok(inode)
    }

    /// Index of the next inode.
    fn next(&self) -> Result<u32> {
        u32::try_from(self.flat.inodes.len()).map_err(|_| Error::new("too many files"))
    }

    fn push(&mut self, node: &Node, kind: InodeKind) -> Result<u32> {
        let index = self.next()?;
        let Node { mode, mtime, .. } = *node;
        let xattrs = node.xattrs.clone();
        self.flat.inodes.push(Inode { mode, mtime, links: 1, xattrs, kind });
        Ok(index)
    }
}
