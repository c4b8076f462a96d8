//! The merged tree becomes a squashfs image, written once, front to back: first the data of files, its
//! blocks compressed on all cores, then the tables. Start at [`write()`].

mod blocks;
mod content;
mod duplicates;
mod flatten;
mod output;
mod pool;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::cli::progress::Meter;
use crate::error::{Context, Error, Result};
use crate::import::blob::Blob;
use crate::import::tree::{Node, NodeKind, Tree};
use crate::import::workers::cores;
use crate::squashfs::compression::Compression;
use crate::squashfs::validate;
use crate::squashfs::writer::{self, Image, InodeKind};
use blocks::{Blocks, Layout, Source};
use flatten::Flat;
use output::Output;
use pool::Pool;

/// Multiple of bytes that an image file has, as those of `mksquashfs`: loop devices end at a whole
/// sector.
const PADDING: u64 = 4096;

/// Owner of all files of an image.
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

/// Tells by the path of a file if its blocks are to be stored uncompressed. None are today.
///
/// Later: the files that the first start of a container reads, such as the dynamic linker, libc and the
/// program; a start need not decompress them.
fn is_stored_plain(_path: &[u8]) -> bool {
    false
}

/// Writes `tree` to the beginning of the empty file `out`, which is open for reading too, and
/// validates it. `data` holds the layers' data by index, and `meter` hears of the [`total`] bytes.
/// Returns the image's size in bytes. The same tree gives the same bytes, however many threads write
/// it.
///
/// # Errors
/// When the data cannot be read, the image cannot be written, or the tree exceeds a limit of squashfs.
pub fn write(
    tree: Tree,
    data: &[Blob],
    owner: Owner,
    compression: Compression,
    out: &File,
    meter: &Meter,
) -> Result<u64> {
    let Flat { inodes, sources, linked } = flatten::flatten(tree, &is_stored_plain)?;
    meter.add(linked);
    let mut output = Output::new(out);
    let Owner { uid, gid } = owner;
    let mut image = Image { inodes, uid, gid, compression, ..Image::default() };
    store(&sources, data, meter, &mut image, &mut output, cores())?;
    let position = output.position();
    let head = writer::write(&image, &mut output, position)?;
    let size = head.bytes_used.next_multiple_of(PADDING);
    out.write_all_at(&head.bytes, 0).context(|| "cannot write the superblock".into())?;
    out.set_len(size).context(|| "cannot pad the image".into())?;
    // To fail here rather than when the image is to be run.
    validate::check(&|buffer, offset| out.read_exact_at(buffer, offset), size)
        .context(|| "the image that was written cannot be used".into())?;
    Ok(size)
}

/// Writes the data of all `sources`, and sets blocks, fragments and files of `image`: one thread
/// reads, as many as `workers` compress, this one writes.
fn store(
    sources: &[Source],
    data: &[Blob],
    meter: &Meter,
    image: &mut Image,
    output: &mut Output<'_>,
    workers: usize,
) -> Result<()> {
    let pool = Pool::new(workers);
    let compressors = pool.compressors(image.compression)?;
    let layout = std::thread::scope(|scope| {
        for mut compressor in compressors {
            let pool = &pool;
            scope.spawn(move || pool.work(&mut compressor));
        }
        let reader = scope.spawn(|| {
            let layout = Blocks::new(sources, data, &pool, meter).lay_out();
            pool.end();
            layout
        });
        let written = output.drain(&pool, &mut image.blocks);
        pool.close();
        let layout = reader.join().map_err(|_| Error::new("a thread failed"))?;
        // After a failure to write, the reader only tells that nobody wants its blocks.
        written.and(layout)
    })?;
    let Layout { files, fragments } = layout;
    image.fragments = fragments;
    for (source, file) in sources.iter().zip(files) {
        if let Some(inode) = image.inodes.get_mut(source.inode as usize) {
            inode.kind = InodeKind::File(file);
        }
    }
    Ok(())
}
