//! Entries of a layer: tar entries with safe paths, and whiteouts recognised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Context, Error, Result};
use crate::import::tar::{FileData, Sparse, TarEntries, TarEntry, TarEntryKind, TarInput};
use crate::squashfs::writer::Xattrs;

/// Longest path in bytes: `PATH_MAX` of the kernel, without the final zero byte.
const MAX_PATH: usize = 4095;
/// Longest file name in bytes: `NAME_MAX` of the kernel, and of squashfs.
const MAX_NAME: usize = 255;
/// Maximum number of entries in all layers: ten times a large Conda environment. An entry takes about
/// 300 bytes of memory.
const MAX_ENTRIES: u64 = 4_000_000;
/// Maximum size in bytes of all paths, link targets and extended attributes: 64 for each possible entry.
const MAX_TEXT: u64 = 256 << 20;

/// A file that a layer adds or, as a whiteout, removes.
#[derive(Debug, PartialEq, Eq)]
pub struct LayerEntry {
    /// Path relative to the root, without `.`, `..` or double slashes; empty for the root itself.
    pub path: Box<[u8]>,
    /// File type, or kind of whiteout.
    pub kind: EntryKind,
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u16,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, if any.
    pub xattrs: Option<Arc<Xattrs>>,
}

/// Kind of a [`LayerEntry`].
#[derive(Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Position of its content in the data of the layer, in bytes.
        offset: u64,
        /// Length of its content in bytes.
        length: u64,
    },
    /// A regular file with holes.
    Sparse(Arc<Sparse>),
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(Box<[u8]>),
    /// A hard link, with the path of the linked file, which is as safe as [`LayerEntry::path`].
    Link(Box<[u8]>),
    /// A device node.
    Device,
    /// A named pipe.
    Fifo,
    /// Removes the file at the path from the lower layers (`.wh.NAME`).
    Whiteout,
    /// Removes the content of the directory at the path from the lower layers (`.wh..wh..opq`).
    Opaque,
}

/// Counts the entries of all layers of an image against the limits.
#[derive(Debug, Default)]
pub struct Budget {
    entries: AtomicU64,
    text: AtomicU64,
}

impl Budget {
    fn take(&self, text: usize) -> Result<()> {
        let text = text as u64;
        if self.entries.fetch_add(1, Ordering::Relaxed) >= MAX_ENTRIES {
            return Err(Error::new(format!("more than {MAX_ENTRIES} entries in the image")));
        }
        if self.text.fetch_add(text, Ordering::Relaxed) + text > MAX_TEXT {
            return Err(Error::new(format!("more than {MAX_TEXT} bytes of names in the image")));
        }
        Ok(())
    }
}

/// Reads all entries of a layer.
pub fn read<T: TarInput>(tar: &mut TarEntries<T>, budget: &Budget) -> Result<Vec<LayerEntry>> {
    let mut entries = Vec::new();
    while let Some(entry) = tar.next()? {
        let TarEntry { path, kind, mode, mtime, xattrs } = entry;
        if let Some((path, kind)) =
            classify(&path, kind).context(|| path.escape_ascii().to_string())?
        {
            // The kernel lets no other type have attributes of users (xattr(7)).
            let may_have_xattrs = matches!(
                kind,
                EntryKind::File { .. } | EntryKind::Sparse(_) | EntryKind::Directory
            );
            let xattrs = xattrs.filter(|_| may_have_xattrs).map(|xattrs| Arc::new(*xattrs));
            let entry = LayerEntry { path, kind, mode, mtime, xattrs };
            let link = match &entry.kind {
                EntryKind::Symlink(link) | EntryKind::Link(link) => link.len(),
                EntryKind::Sparse(sparse) => size_of_val(sparse.extents.as_slice()),
                _ => 0,
            };
            let pairs = entry.xattrs.iter().flat_map(|xattrs| xattrs.iter());
            let pairs: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
            budget.take(entry.path.len() + link + pairs)?;
            entries.push(entry);
        }
    }
    entries.shrink_to_fit();
    Ok(entries)
}

/// Classifies a tar entry. Returns `None` for the bookkeeping files of AUFS.
fn classify(path: &[u8], kind: TarEntryKind) -> Result<Option<(Box<[u8]>, EntryKind)>> {
    let path = normalise(path)?;
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[][..], &*path),
    };
    if name == b".wh..wh..opq" {
        return Ok(Some((parent.into(), EntryKind::Opaque)));
    }
    // Files of AUFS, Docker's first storage driver.
    if path.split(|byte| *byte == b'/').any(|name| name.starts_with(b".wh..wh.")) {
        return Ok(None);
    }
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::new("whiteout without a file name"));
        }
        let slash: &[u8] = if parent.is_empty() { b"" } else { b"/" };
        let path = [parent, slash, hidden].concat().into();
        return Ok(Some((path, EntryKind::Whiteout)));
    }
    let kind = match kind {
        TarEntryKind::File(FileData::Plain { offset, length }) => {
            EntryKind::File { offset, length }
        }
        TarEntryKind::File(FileData::Sparse(sparse)) => EntryKind::Sparse(Arc::new(*sparse)),
        TarEntryKind::Directory => EntryKind::Directory,
        TarEntryKind::Symlink(target) => EntryKind::Symlink(symlink_target(target)?),
        TarEntryKind::Link(target) => {
            EntryKind::Link(normalise(&target).context(|| "link target".into())?)
        }
        TarEntryKind::Device => EntryKind::Device,
        TarEntryKind::Fifo => EntryKind::Fifo,
    };
    if path.is_empty() && kind != EntryKind::Directory {
        return Err(Error::new("the root is not a directory"));
    }
    Ok(Some((path, kind)))
}

fn symlink_target(target: Vec<u8>) -> Result<Box<[u8]>> {
    match target.len() {
        0 => Err(Error::new("symbolic link with an empty target")),
        1..=MAX_PATH => Ok(target.into()),
        _ => Err(Error::new(format!("link target longer than {MAX_PATH} bytes"))),
    }
}

/// Normalises a path: no leading `/` or `./`, no double slashes.
fn normalise(path: &[u8]) -> Result<Box<[u8]>> {
    if path.len() > MAX_PATH {
        return Err(Error::new(format!("path longer than {MAX_PATH} bytes")));
    }
    let mut normal = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(Error::new("path with `..`")),
            name if name.len() > MAX_NAME => {
                return Err(Error::new(format!("file name longer than {MAX_NAME} bytes")));
            }
            name if name.contains(&0) => return Err(Error::new("file name with a zero byte")),
            name => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(name);
            }
        }
    }
    Ok(normal.into())
}
