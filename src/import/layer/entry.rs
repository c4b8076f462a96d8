//! One tar member, judged: its path made safe, its type told, whiteouts recognised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Context, Error, Result};
use crate::import::tar::{FileData, Sparse, TarEntries, TarEntry, TarEntryKind, TarInput};
use crate::squashfs::writer::Xattrs;

/// Longest path, as the kernel's `PATH_MAX` without its final zero byte.
const MAX_PATH: usize = 4095;
/// Longest name in a directory, as the kernel's `NAME_MAX`; squashfs has the same limit.
const MAX_NAME: usize = 255;
/// Most entries of all layers: ten times a large Conda environment. About 300 bytes of memory each.
const MAX_ENTRIES: u64 = 4_000_000;
/// Most bytes of all paths, links and extended attributes: 64 for each possible entry.
const MAX_TEXT: u64 = 256 << 20;

/// A file that a layer adds or, as a whiteout, hides.
#[derive(Debug, PartialEq, Eq)]
pub struct LayerEntry {
    /// Relative to the root, without `.`, `..` or double slashes; empty for the root itself.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions, with set-id and sticky bits.
    pub mode: u16,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, if any.
    pub xattrs: Option<Arc<Xattrs>>,
}

/// What an [`LayerEntry`] does.
#[derive(Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with so many bytes from an offset of the layer's data.
    File {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// A regular file with holes.
    Sparse(Arc<Sparse>),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Box<[u8]>),
    /// Another name of the file at this path, which is as safe as [`LayerEntry::path`].
    Link(Box<[u8]>),
    /// A device node, which no user may make.
    Device,
    /// A named pipe.
    Fifo,
    /// Hides what layers below have at the path.
    Whiteout,
    /// Hides what layers below have in the directory at the path.
    Opaque,
}

/// How much all layers of an image may still bring.
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
pub fn read<T: TarInput>(members: &mut TarEntries<T>, budget: &Budget) -> Result<Vec<LayerEntry>> {
    let mut entries = Vec::new();
    while let Some(member) = members.next()? {
        let TarEntry { path, kind, mode, mtime, xattrs } = member;
        if let Some((path, kind)) =
            judge(&path, kind).context(|| path.escape_ascii().to_string())?
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

/// What a member means, or nothing if it is a remark of AUFS.
fn judge(path: &[u8], kind: TarEntryKind) -> Result<Option<(Box<[u8]>, EntryKind)>> {
    let path = normal(path)?;
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[][..], &*path),
    };
    if name == b".wh..wh..opq" {
        return Ok(Some((parent.into(), EntryKind::Opaque)));
    }
    // Where AUFS, Docker's first storage driver, kept its own files.
    if path.split(|byte| *byte == b'/').any(|name| name.starts_with(b".wh..wh.")) {
        return Ok(None);
    }
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::new("a whiteout of nothing"));
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
        TarEntryKind::Symlink(target) => EntryKind::Symlink(link(target)?),
        TarEntryKind::Link(target) => {
            EntryKind::Link(normal(&target).context(|| "its target".into())?)
        }
        TarEntryKind::Device => EntryKind::Device,
        TarEntryKind::Fifo => EntryKind::Fifo,
    };
    if path.is_empty() && kind != EntryKind::Directory {
        return Err(Error::new("the root is not a directory"));
    }
    Ok(Some((path, kind)))
}

fn link(target: Vec<u8>) -> Result<Box<[u8]>> {
    match target.len() {
        0 => Err(Error::new("a symbolic link to nothing")),
        1..=MAX_PATH => Ok(target.into()),
        _ => Err(Error::new(format!("its target is longer than {MAX_PATH} bytes"))),
    }
}

/// The path without what does not matter: a leading `/` or `./`, doubled slashes.
fn normal(path: &[u8]) -> Result<Box<[u8]>> {
    if path.len() > MAX_PATH {
        return Err(Error::new(format!("longer than {MAX_PATH} bytes")));
    }
    let mut normal = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(Error::new("a path with `..` in it")),
            name if name.len() > MAX_NAME => {
                return Err(Error::new(format!("a name longer than {MAX_NAME} bytes")));
            }
            name if name.contains(&0) => return Err(Error::new("a zero byte in a name")),
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
