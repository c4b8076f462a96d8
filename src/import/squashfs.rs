//! The merged tree becomes a squashfs image: written once, front to back, by `backhand`, its blocks
//! compressed ahead of it on all cores. Start at [`write`].

mod compressor;
mod content;
mod output;
mod pool;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use backhand::kind::Kind as Format;
use backhand::{BackhandError, FilesystemWriter, NodeHeader};

pub use compressor::Compression;

use crate::cli::progress::Meter;
use crate::error::{Cause, Context, Error, Result};
use crate::import::blob::Blob;
use crate::import::tree::{Content, Directory, Node, NodeKind, Tree};
use crate::import::workers::cores;
use crate::squashfs::validate;
use compressor::Engine;
use content::ContentReader;
use output::Output;
use pool::{Ahead, Queue};

/// Bytes of a data block: `mksquashfs`'s default. Larger ones compress better and make a first
/// look at a file slower.
const BLOCK: usize = 128 << 10;

/// Bytes of all files together, holes included: far above any image, far below what keeps a
/// machine busy for a day with the zeros of a sparse file.
const MAX_TOTAL: u64 = 1 << 40;

/// Longest target of a symbolic link that `backhand` writes.
const MAX_LINK: usize = 255;

/// Who owns all files of an image.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The calling user.
    #[must_use]
    pub fn caller() -> Self {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        Self { uid: uid.as_raw(), gid: gid.as_raw() }
    }
}

/// An image that is ready to be written.
struct Plan<'a> {
    writer: FilesystemWriter<'a, 'a, 'a>,
    /// The files' contents in the order in which `backhand` will read them.
    contents: Vec<Content>,
    total: u64,
    data: &'a [Blob],
    meter: &'a Meter,
    owner: Owner,
}

/// Bytes of all files of `tree`, holes included.
#[must_use]
pub fn total(tree: &Tree) -> u64 {
    fn below(node: &Node) -> u64 {
        match &node.kind {
            NodeKind::File(content) => content.length(),
            NodeKind::Directory(directory) => {
                directory.values().map(below).fold(0, u64::saturating_add)
            }
            _ => 0,
        }
    }
    below(tree.root())
}

/// Writes `tree` to the beginning of the empty file `out`, which is open for reading too, and validates
/// it. `data` holds the layers' data by index, and `meter` hears of the [`total`] bytes. Tells the
/// image's size in bytes.
///
/// # Errors
/// When the data cannot be read, the image cannot be written, or the tree holds what squashfs
/// cannot.
pub fn write(
    tree: Tree,
    data: &[Blob],
    owner: Owner,
    compression: Compression,
    out: &File,
    meter: &Meter,
) -> Result<u64> {
    let queue = Queue::new(cores());
    let mut plan = Plan::new(compression, &queue, data, owner, meter)?;
    plan.fill(tree)?;
    let Plan { mut writer, contents, .. } = plan;
    let size = std::thread::scope(|scope| {
        for _ in 0..queue.workers() {
            scope.spawn(|| queue.work(compression));
        }
        scope.spawn(|| content::walk(&contents, data, &queue));
        let result = writer.write(Output::new(out));
        queue.close();
        result.map(|(_, size)| size).map_err(failure)
    })?;
    // A duplicate is found only after it was written; at the end its remains would stay.
    let mut end = out;
    out.set_len(size).context(|| "cannot cut the image to its size".into())?;
    end.rewind().context(|| "cannot rewind the image".into())?;
    // To fail here rather than when it is to be run.
    validate::check(&|buffer, offset| out.read_exact_at(buffer, offset), size)
        .context(|| "the image that was written cannot be used".into())?;
    Ok(size)
}

impl<'a> Plan<'a> {
    fn new(
        compression: Compression,
        queue: &std::sync::Arc<Queue>,
        data: &'a [Blob],
        owner: Owner,
        meter: &'a Meter,
    ) -> Result<Self> {
        let mut writer = FilesystemWriter::default();
        // `backhand` wants its compressor for ever. One image a process makes this no leak.
        let ahead = Box::leak(Box::new(Ahead::new(queue, Engine::new(compression)?)));
        writer.set_kind(Format::new_v4(ahead));
        writer.set_compressor(compression.superblock().map_err(failure)?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        writer.set_time(u32::try_from(now).unwrap_or(u32::MAX));
        Ok(Self { writer, contents: Vec::new(), total: 0, data, meter, owner })
    }

    fn fill(&mut self, tree: Tree) -> Result<()> {
        let root = tree.into_root();
        self.writer.set_root_mode(root.mode);
        self.writer.set_root_uid(self.owner.uid);
        self.writer.set_root_gid(self.owner.gid);
        match root.kind {
            NodeKind::Directory(directory) => self.descend(&mut PathBuf::from("/"), directory),
            _ => Err(Error::new("the root is not a directory")),
        }
    }

    /// Adds what is below `path`, in order: `backhand` keeps all nodes in one sorted table.
    fn descend(&mut self, path: &mut PathBuf, directory: Directory) -> Result<()> {
        for (name, node) in directory {
            path.push(OsStr::from_bytes(&name));
            self.add(path, node)?;
            path.pop();
        }
        Ok(())
    }

    fn add(&mut self, path: &mut PathBuf, node: Node) -> Result<()> {
        let Owner { uid, gid } = self.owner;
        let header = NodeHeader { permissions: node.mode, uid, gid, mtime: node.mtime };
        let about = || format!("cannot store {}", path.display());
        match node.kind {
            NodeKind::Directory(directory) => {
                self.writer.push_dir(&path, header).map_err(failure).context(about)?;
                return self.descend(path, directory);
            }
            NodeKind::File(content) => {
                self.total = self.total.saturating_add(content.length());
                if self.total > MAX_TOTAL {
                    return Err(Error::new("the image's files have more than 1 TiB"))
                        .context(about);
                }
                let reader = ContentReader::new(content.clone(), self.data, Some(self.meter));
                self.contents.push(content);
                self.writer.push_file(reader, &path, header)
            }
            NodeKind::Symlink(target) if target.len() > MAX_LINK => {
                let length = target.len();
                return Err(format!("its link has {length} bytes, more than {MAX_LINK}"))
                    .context(about);
            }
            NodeKind::Symlink(target) => {
                let target = PathBuf::from(OsStr::from_bytes(&target));
                self.writer.push_symlink(target, &path, header)
            }
            NodeKind::Fifo => self.writer.push_fifo(&path, header),
        }
        .map_err(failure)
        .context(about)
    }
}

/// `backhand`'s errors tell nothing but their variant when built small.
#[cold]
fn failure(error: BackhandError) -> Error {
    match error {
        BackhandError::StdIo(error) => error.into_error(),
        BackhandError::NumericConversion(_) => Error::new("it is too large for squashfs"),
        BackhandError::DuplicatedFileName => Error::new("the path is there twice"),
        BackhandError::InvalidFilePath => Error::new("the path is not valid in squashfs"),
        _ => Error::new("the squashfs writer failed"),
    }
}
