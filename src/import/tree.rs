//! The tree that users will see: all layers merged in memory, the lowest first.
//!
//! Follows the image specification's "Applying Changesets" and what Docker, containerd and umoci
//! do where it is silent; only a link that leads out of the tree, which they bend back, is an
//! error here. Start at [`Tree::apply`].

mod locate;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::import::layer::{EntryKind, LayerEntry};
use crate::import::tar::Sparse;
use crate::squashfs::writer::Xattrs;

/// Deepest nesting of directories: ten times what real images have. Those who walk the tree
/// recurse.
const MAX_DEPTH: usize = 256;

/// Mode of a directory that no layer describes.
const IMPLIED_MODE: u16 = 0o755;

/// The files of a directory by name, in the order of the names' bytes.
pub type Directory = BTreeMap<Box<[u8]>, Node>;

/// A root directory, and all below it.
#[derive(Debug)]
pub struct Tree {
    root: Node,
}

/// One file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permissions, with set-id and sticky bits; the owner may always read and write, and enter a
    /// directory.
    pub mode: u16,
    /// Seconds since 1970, as far as squashfs can tell them.
    pub mtime: u32,
    /// The last layer that described it, by index: whiteouts spare what their own layer brings.
    layer: u16,
    /// Extended attributes, if any.
    pub xattrs: Option<Arc<Xattrs>>,
    /// What it is.
    pub kind: NodeKind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory(Directory),
    /// A regular file.
    File(Content),
    /// A symbolic link to this; names of one link share it.
    Symlink(Arc<[u8]>),
    /// A named pipe.
    Fifo,
}

/// Where the bytes of a regular file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In one piece.
    Whole {
        /// The layer's index.
        layer: u16,
        /// In the layer's data.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// In pieces, with holes between; names of one file share the map.
    Sparse {
        /// The layer's index.
        layer: u16,
        /// The pieces.
        map: Arc<Sparse>,
    },
}

impl Content {
    const EMPTY: Self = Self::Whole { layer: 0, offset: 0, length: 0 };

    /// In bytes, holes included.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Whole { length, .. } => *length,
            Self::Sparse { map, .. } => map.length,
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::implied(0) }
    }
}

impl Tree {
    /// An empty root directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The root directory itself.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The root directory, with a `/dev` in it in any case.
    #[must_use]
    pub fn into_root(mut self) -> Node {
        // Something to mount the container's own /dev on.
        if let NodeKind::Directory(root) = &mut self.root.kind {
            root.entry((*b"dev").into()).or_insert_with(|| Node::implied(0));
        }
        self.root
    }

    /// Puts the entries of the layer with this index over what is there.
    ///
    /// # Errors
    /// When an entry lies below a file, behind a link out of the tree, or links to what is not
    /// there.
    pub fn apply(&mut self, layer: u16, entries: Vec<LayerEntry>) -> Result<()> {
        for entry in entries {
            let LayerEntry { path, kind, mode, mtime, xattrs } = entry;
            self.put(layer, &path, kind, mode, mtime, xattrs)
                .context(|| format!("cannot merge /{}", path.escape_ascii()))?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        layer: u16,
        path: &[u8],
        kind: EntryKind,
        mode: u16,
        mtime: i64,
        xattrs: Option<Arc<Xattrs>>,
    ) -> Result<()> {
        match kind {
            EntryKind::Opaque => return self.hide_all(layer, path),
            EntryKind::Whiteout => return self.hide(layer, path),
            _ => {}
        }
        let mtime = u32::try_from(mtime.max(0)).unwrap_or(u32::MAX);
        let node = |rights: u16, kind| Node { mode: mode | rights, mtime, layer, xattrs, kind };
        let node = match kind {
            EntryKind::Directory => node(0o700, NodeKind::Directory(Directory::new())),
            EntryKind::File { offset, length } => {
                node(0o600, NodeKind::File(Content::Whole { layer, offset, length }))
            }
            EntryKind::Sparse(map) => node(0o600, NodeKind::File(Content::Sparse { layer, map })),
            EntryKind::Symlink(target) => {
                Node { mode: 0o777, ..node(0, NodeKind::Symlink(target.into())) }
            }
            EntryKind::Link(target) => self.linked(layer, &target)?,
            // No user may make one; umoci too leaves an empty file that nobody can use.
            EntryKind::Device => Node { mode: 0o600, ..node(0, NodeKind::File(Content::EMPTY)) },
            EntryKind::Fifo => node(0o600, NodeKind::Fifo),
            EntryKind::Opaque | EntryKind::Whiteout => return Ok(()),
        };
        if path.is_empty() {
            self.root.describe(node);
            return Ok(());
        }
        let (parent, name) = split(path);
        let parent = self.locate(parent)?;
        // The container's own devices will cover them.
        let device = parent.is_empty() && name == b"dev" && !node.is_directory();
        if device || &*parent == b"dev" || parent.starts_with(b"dev/") {
            return Ok(());
        }
        match self.create(layer, &parent)?.entry(name.into()) {
            btree_map::Entry::Vacant(place) => _ = place.insert(node),
            btree_map::Entry::Occupied(mut place) => place.get_mut().describe(node),
        }
        Ok(())
    }

    /// A copy of an earlier entry. Both tell the same place of their data, so the image gets one file
    /// with two names.
    fn linked(&self, layer: u16, target: &[u8]) -> Result<Node> {
        let context = || format!("cannot link to /{}", target.escape_ascii());
        let (parent, name) = split(target);
        let parent = self.locate(parent).context(context)?;
        let found = self.directory(&parent).and_then(|directory| directory.get(name));
        match found {
            None => Err(Error::new("no such file in this layer or below")).context(context),
            Some(node) if node.is_directory() => {
                Err(Error::new("it is a directory")).context(context)
            }
            Some(node) => Ok(Node { layer, ..node.clone() }),
        }
    }

    /// Removes what the layers below have at `path`, if anything.
    fn hide(&mut self, layer: u16, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let parent = self.locate(parent)?;
        if let Some(directory) = self.directory_mut(&parent)
            && let Some(node) = directory.get_mut(name)
            && !node.keep(layer)
        {
            directory.remove(name);
        }
        Ok(())
    }

    /// Removes what the layers below have in the directory at `path`.
    fn hide_all(&mut self, layer: u16, path: &[u8]) -> Result<()> {
        let location = self.locate(path)?;
        if let Some(directory) = self.directory_mut(&location) {
            directory.retain(|_, node| node.keep(layer));
        }
        Ok(())
    }

    /// The directory at `location`, made with all its parents where it is missing.
    fn create(&mut self, layer: u16, location: &[u8]) -> Result<&mut Directory> {
        let mut node = &mut self.root;
        for (depth, name) in names(location).enumerate() {
            if depth >= MAX_DEPTH {
                return Err(Error::new(format!("more than {MAX_DEPTH} directories deep")));
            }
            let NodeKind::Directory(directory) = &mut node.kind else {
                return Err(not_a_directory());
            };
            // A name that is there is looked up by reference: most are.
            if !directory.contains_key(name) {
                directory.insert(name.into(), Node::implied(layer));
            }
            node = directory.get_mut(name).ok_or_else(not_a_directory)?;
        }
        match &mut node.kind {
            NodeKind::Directory(directory) => Ok(directory),
            _ => Err(not_a_directory()),
        }
    }

    fn directory_mut(&mut self, location: &[u8]) -> Option<&mut Directory> {
        names(location).try_fold(self.root.directory_mut()?, |directory, name| {
            directory.get_mut(name)?.directory_mut()
        })
    }

    fn directory(&self, location: &[u8]) -> Option<&Directory> {
        names(location)
            .try_fold(self.root.directory()?, |directory, name| directory.get(name)?.directory())
    }

    /// Where the directory at `path` really lies, when all links in `path` are followed.
    fn locate<'p>(&self, path: &'p [u8]) -> Result<Cow<'p, [u8]>> {
        locate::locate(&self.root, path)
    }
}

impl Node {
    fn implied(layer: u16) -> Self {
        let kind = NodeKind::Directory(Directory::new());
        Self { mode: IMPLIED_MODE, mtime: 0, layer, xattrs: None, kind }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory(_))
    }

    fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Takes the place of `self`; a directory over a directory leaves what is in it.
    fn describe(&mut self, new: Self) {
        match (&mut self.kind, new) {
            (
                NodeKind::Directory(_),
                Self { mode, mtime, layer, xattrs, kind: NodeKind::Directory(_) },
            ) => (self.mode, self.mtime, self.layer, self.xattrs) = (mode, mtime, layer, xattrs),
            (_, new) => *self = new,
        }
    }

    /// Removes what is not of `layer` below this node, and tells whether anything is left to keep.
    fn keep(&mut self, layer: u16) -> bool {
        if let NodeKind::Directory(directory) = &mut self.kind {
            directory.retain(|_, node| node.keep(layer));
            return self.layer == layer || !directory.is_empty();
        }
        self.layer == layer
    }
}

/// Directory and name of a path that is not the root's.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

/// The names in a path, none for the root.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

#[cold]
fn not_a_directory() -> Error {
    Error::new("its parent is not a directory")
}
