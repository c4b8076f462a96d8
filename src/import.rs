//! The story of an import: an image made by others becomes one squashfs file.
//!
//! Nothing is unpacked: layers stay tars, their entries are merged in memory, and only the image is
//! written. Start at [`merge`], then [`Merged::write`].

pub mod blob;
pub mod layer;
pub mod pull;
pub mod source;
pub mod squashfs;
pub mod tar;
pub mod temp;
pub mod tree;
pub mod workers;

use std::fs::File;

use crate::cli::progress::{Meter, Progress};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::metadata::Metadata;
use crate::import::blob::Blob;
use crate::import::layer::{DeferredDigest, Layer};
use crate::import::source::SourceImage;
use crate::import::squashfs::{Compression, Owner};
use crate::import::temp::TempDir;
use crate::import::tree::Tree;

/// An image that was written, and all of whose parts have the digests that they should have. Only
/// [`Merged::write`] makes one: what takes it may publish the file.
#[derive(Debug)]
pub struct Imported {
    metadata: Metadata,
    digest: Digest,
    size: u64,
}

impl Imported {
    /// What a container needs of the image's configuration.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What identifies the image to users.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Of the squashfs file, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Reads all layers of `image`, `workers` at a time, and merges them in memory. `failed` is called
/// as soon as one cannot be read.
///
/// # Errors
/// When a layer is damaged, is not what its digest says, or cannot be merged; when the temporary
/// space is full.
pub fn merge(
    image: SourceImage,
    temp_dir: &TempDir,
    workers: usize,
    meter: &Meter,
    failed: &(dyn Fn() + Sync),
) -> Result<Merged> {
    let SourceImage { metadata, digest, layers } = image;
    let layers = layer::expand_all(&layers, temp_dir, workers, meter, failed)?;
    let (mut tree, mut data, mut deferred) = (Tree::new(), Vec::new(), Vec::new());
    for (index, layer) in layers.into_iter().enumerate() {
        let Layer { name, entries, data: blob, deferred: check } = layer;
        let index = u16::try_from(index).map_err(|_| Error::new("too many layers"))?;
        tree.apply(index, entries).context(|| format!("cannot use layer {name}"))?;
        data.push(blob);
        deferred.extend(check);
    }
    Ok(Merged { metadata, digest, tree, data, deferred })
}

/// All layers as one tree, and what it was made from.
#[derive(Debug)]
pub struct Merged {
    metadata: Metadata,
    digest: Digest,
    tree: Tree,
    data: Vec<Blob>,
    deferred: Vec<DeferredDigest>,
}

impl Merged {
    /// Writes the image as squashfs into the empty file `out`. All files belong to the caller. On
    /// failure `out` holds nothing of use.
    ///
    /// # Errors
    /// When a layer is not what its digest says, or the space of `out` is full.
    pub fn write(
        self,
        compression: Compression,
        out: &File,
        progress: Progress,
    ) -> Result<Imported> {
        let Self { metadata, digest, tree, data, deferred } = self;
        let size = progress.during(squashfs::total(&tree), |meter| {
            std::thread::scope(|scope| {
                // The tars that were read in place are hashed while their files are compressed: the
                // image is worth nothing until both have come to a good end.
                let workers = workers::cores();
                let checks = scope.spawn(move || {
                    workers::in_parallel(&deferred, workers, &|| {}, DeferredDigest::check)
                });
                let owner = Owner::caller();
                let size = squashfs::write(tree, &data, owner, compression, out, meter)
                    .context(|| "cannot make the squashfs image".into());
                // A damaged layer explains more than what the writer made of it.
                checks.join().map_err(|_| Error::new("a thread failed"))??;
                size
            })
        })?;
        Ok(Imported { metadata, digest, size })
    }
}
