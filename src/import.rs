//! Import: the layers of an image, from a registry or a file, become one squashfs file.
//!
//! Nothing is unpacked: layers stay tar archives, their entries are merged in memory, and only the
//! squashfs file is written. Start at [`merge`], then [`Merged::write`].

pub mod blob;
pub mod layer;
pub mod load;
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
use crate::import::squashfs::Owner;
use crate::import::temp::TempDir;
use crate::import::tree::Tree;
use crate::squashfs::compression::Compression;
use crate::store::{Image, ImageWriter};

/// Proof that an image was written and that all of its digests were verified. Only
/// [`Merged::write`] returns one, so code that has it may publish the file.
#[derive(Debug)]
pub struct Imported {
    metadata: Metadata,
    digest: Digest,
    size: u64,
}

impl Imported {
    /// Configuration of containers of the image.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Digest that identifies the image: of its manifest if it was pulled, else of its
    /// configuration.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Size of the squashfs file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Reads all layers of `image`, `workers` at a time, and merges them in memory. `on_failure` is
/// called as soon as a layer cannot be read.
///
/// # Errors
/// A layer is damaged, has another digest, or cannot be merged; the temporary directory is full.
pub fn merge(
    image: SourceImage,
    temp_dir: &TempDir,
    workers: usize,
    meter: &Meter,
    on_failure: &(dyn Fn() + Sync),
) -> Result<Merged> {
    let SourceImage { metadata, digest, layers } = image;
    let layers = layer::expand_all(&layers, temp_dir, workers, meter, on_failure)?;
    let (mut tree, mut data, mut deferred) = (Tree::new(), Vec::new(), Vec::new());
    for (index, layer) in layers.into_iter().enumerate() {
        let Layer { name, entries, data: blob, deferred: digest } = layer;
        let index = u16::try_from(index).map_err(|_| Error::new("too many layers"))?;
        tree.apply(index, entries).context(|| format!("cannot use layer {name}"))?;
        data.push(blob);
        deferred.extend(digest);
    }
    Ok(Merged { metadata, digest, tree, data, deferred })
}

/// All layers of an image, merged into one tree.
#[derive(Debug)]
pub struct Merged {
    metadata: Metadata,
    digest: Digest,
    tree: Tree,
    data: Vec<Blob>,
    deferred: Vec<DeferredDigest>,
}

impl Merged {
    /// Writes the image as squashfs into the empty file `out`. All files belong to the caller. After
    /// a failure the content of `out` is undefined.
    ///
    /// # Errors
    /// A layer has another digest, or the file system of `out` is full.
    pub fn write(
        self,
        compression: Compression,
        out: &File,
        progress: Progress,
    ) -> Result<Imported> {
        let Self { metadata, digest, tree, data, deferred } = self;
        let size = progress.during(squashfs::total(&tree), |meter| {
            std::thread::scope(|scope| {
                // Layers that were read in place are hashed while the image is compressed from them:
                // it counts only if both succeed.
                let workers = workers::cores();
                let checks = scope.spawn(move || {
                    workers::in_parallel(&deferred, workers, &|| {}, DeferredDigest::check)
                });
                let owner = Owner::caller();
                let size = squashfs::write(tree, &data, owner, compression, out, meter)
                    .context(|| "cannot make the squashfs image".into());
                // A damaged layer explains more than the failure of the writer that it may have caused.
                checks.join().map_err(|_| Error::new("a thread panicked"))??;
                size
            })
        })?;
        Ok(Imported { metadata, digest, size })
    }

    /// Writes the image with `writer`, and publishes it. `on_written` is called between the two.
    ///
    /// # Errors
    /// As [`Merged::write`], and those of the repository.
    pub fn publish(
        self,
        writer: ImageWriter,
        compression: Compression,
        progress: Progress,
        on_written: impl FnOnce(),
    ) -> Result<Image> {
        let imported = self.write(compression, writer.file(), progress);
        let imported = imported.context(|| cannot_import(&writer))?;
        on_written();
        writer.commit(imported.metadata(), imported.digest())
    }
}

fn cannot_import(writer: &ImageWriter) -> String {
    format!("cannot import into {}", writer.repository().path().display())
}
