//! The file tree of an image: all layers merged in memory, the lowest first.
//!
//! Follows "Applying Changesets" of the OCI image specification, and Docker, containerd and umoci
//! where it is silent. A link that leads out of the tree, which they clamp to its root, is an error
//! here. Start at [`Tree::apply`].

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

/// Maximum depth of directories, ten times that of real images: functions on the tree recurse.
const MAX_DEPTH: usize = 256;

/// Mode of a directory without an entry in any layer.
const IMPLIED_MODE: u16 = 0o755;

/// Files of a directory by name, in bytewise order.
pub type Directory = BTreeMap<Box<[u8]>, Node>;

/// A root directory with its descendants.
#[derive(Debug)]
pub struct Tree {
    root: Node,
}

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permissions, with set-user-ID, set-group-ID and sticky bit. The owner may always read and
    /// write, and search a directory.
    pub mode: u16,
    /// Modification time in seconds since 1970, clamped to the range of squashfs.
    pub mtime: u32,
    /// Index of the last layer with an entry for it: whiteouts do not apply to their own layer.
    layer: u16,
    /// Extended attributes, if any.
    pub xattrs: Option<Arc<Xattrs>>,
    /// File type.
    pub kind: NodeKind,
}

/// File type of a [`Node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory(Directory),
    /// A regular file.
    File(Content),
    /// A symbolic link, with its target; names of one link share it.
    Symlink(Arc<[u8]>),
    /// A named pipe.
    Fifo,
}

/// Position of the content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Content in one piece.
    Whole {
        /// Index of the layer.
        layer: u16,
        /// Position in the data of the layer, in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Content with holes; names of one file share the map.
    Sparse {
        /// Index of the layer.
        layer: u16,
        /// Extents in the data of the layer.
        map: Arc<Sparse>,
    },
}

impl Content {
    const EMPTY: Self = Self::Whole { layer: 0, offset: 0, length: 0 };

    /// Length in bytes, holes included.
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

    /// Returns the root directory.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Returns the root directory, and adds a missing `/dev`.
    #[must_use]
    pub fn into_root(mut self) -> Node {
        // Mount point of the container's own /dev.
        if let NodeKind::Directory(root) = &mut self.root.kind {
            root.entry((*b"dev").into()).or_insert_with(|| Node::implied(0));
        }
        self.root
    }

    /// Applies the entries of a layer to the tree of the lower ones. `layer` is its index.
    ///
    /// # Errors
    /// The parent of an entry is not a directory or leads out of the tree; the target of a hard link
    /// does not exist.
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
            EntryKind::Opaque => return self.make_opaque(layer, path),
            EntryKind::Whiteout => return self.white_out(layer, path),
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
            // Users may not create device nodes; umoci also leaves an empty file.
            EntryKind::Device => Node { mode: 0o600, ..node(0, NodeKind::File(Content::EMPTY)) },
            EntryKind::Fifo => node(0o600, NodeKind::Fifo),
            EntryKind::Opaque | EntryKind::Whiteout => return Ok(()),
        };
        if path.is_empty() {
            self.root.replace(node);
            return Ok(());
        }
        let (parent, name) = split(path);
        let parent = self.locate(parent)?;
        // Files below /dev would be hidden by the container's own /dev.
        let device = parent.is_empty() && name == b"dev" && !node.is_directory();
        if device || &*parent == b"dev" || parent.starts_with(b"dev/") {
            return Ok(());
        }
        match self.create_directories(layer, &parent)?.entry(name.into()) {
            btree_map::Entry::Vacant(place) => _ = place.insert(node),
            btree_map::Entry::Occupied(mut place) => place.get_mut().replace(node),
        }
        Ok(())
    }

    /// Returns a copy of the linked file. Both have their data at the same position, so the image gets
    /// one file with two names.
    fn linked(&self, layer: u16, target: &[u8]) -> Result<Node> {
        let context = || format!("cannot link to /{}", target.escape_ascii());
        let (parent, name) = split(target);
        let parent = self.locate(parent).context(context)?;
        let found = self.directory(&parent).and_then(|directory| directory.get(name));
        match found {
            None => Err(Error::new("no such file in this or a lower layer")).context(context),
            Some(node) if node.is_directory() => Err(Error::new("is a directory")).context(context),
            Some(node) => Ok(Node { layer, ..node.clone() }),
        }
    }

    /// Applies a whiteout: removes the file at `path` of the lower layers, if any.
    fn white_out(&mut self, layer: u16, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let parent = self.locate(parent)?;
        if let Some(directory) = self.directory_mut(&parent)
            && let Some(node) = directory.get_mut(name)
            && !node.retain_layer(layer)
        {
            directory.remove(name);
        }
        Ok(())
    }

    /// Applies an opaque whiteout: removes the content that the lower layers have in the directory at
    /// `path`.
    fn make_opaque(&mut self, layer: u16, path: &[u8]) -> Result<()> {
        let location = self.locate(path)?;
        if let Some(directory) = self.directory_mut(&location) {
            directory.retain(|_, node| node.retain_layer(layer));
        }
        Ok(())
    }

    /// Returns the directory at `location`, and creates missing ones on the way.
    fn create_directories(&mut self, layer: u16, location: &[u8]) -> Result<&mut Directory> {
        let mut node = &mut self.root;
        for (depth, name) in names(location).enumerate() {
            if depth >= MAX_DEPTH {
                return Err(Error::new(format!("more than {MAX_DEPTH} nested directories")));
            }
            let NodeKind::Directory(directory) = &mut node.kind else {
                return Err(not_a_directory());
            };
            // Most exist: looking them up by reference saves an allocation.
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

    /// Returns the path of the directory at `path` after following all symbolic links.
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

    /// Replaces `self`; a directory that replaces a directory keeps its content.
    fn replace(&mut self, new: Self) {
        match (&mut self.kind, new) {
            (
                NodeKind::Directory(_),
                Self { mode, mtime, layer, xattrs, kind: NodeKind::Directory(_) },
            ) => (self.mode, self.mtime, self.layer, self.xattrs) = (mode, mtime, layer, xattrs),
            (_, new) => *self = new,
        }
    }

    /// Drops the descendants that `layer` did not add. Returns whether to keep the node itself.
    fn retain_layer(&mut self, layer: u16) -> bool {
        if let NodeKind::Directory(directory) = &mut self.kind {
            directory.retain(|_, node| node.retain_layer(layer));
            return self.layer == layer || !directory.is_empty();
        }
        self.layer == layer
    }
}

/// Splits a path other than the root into parent and file name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

/// Returns the components of a path; none for the root.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

#[cold]
fn not_a_directory() -> Error {
    Error::new("the parent is not a directory")
}
