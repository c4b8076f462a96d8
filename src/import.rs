//! The story of an import: an image made by others becomes one squashfs file.
//!
//! Nothing is unpacked: layers stay tars, their entries are merged in memory, and only the image is
//! written. Start at [`import`].

use std::fs::File;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::error::{Because, Error, Result};
use crate::image::Metadata;
use crate::layer::{self, Layer, Pending};
use crate::progress::Progress;
use crate::source::Image;
use crate::squashfs::{self, Compression, Owner};
use crate::temp::Space;
use crate::tree::Tree;

/// An image that was written, and all of whose parts have the digests that they should have. Only
/// [`import`] makes one: what takes it may publish the file.
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

/// Writes `image` as squashfs into the empty file `out`. All files belong to the caller. On
/// failure `out` holds nothing of use.
///
/// # Errors
/// When a layer is damaged, is not what its digest says, or cannot be merged; when the temporary
/// space or that of `out` is full.
pub fn import(
    image: Image,
    space: &Space,
    compression: Compression,
    out: &File,
    progress: Progress,
) -> Result<Imported> {
    let Image { metadata, digest, layers } = image;
    progress.say("> expand image layers ...");
    for layer in &layers {
        progress.say(&format!("> extracting     : {}", layer.name));
    }
    let stored = layers.iter().map(|layer| layer.blob.length()).sum();
    let layers = progress.during(stored, |meter| layer::expand_all(layers, space, meter))?;
    let Merged { tree, data, pending } = merge(layers)?;

    progress.say("> make squashfs ...");
    let size = progress.during(squashfs::total(&tree), |meter| {
        std::thread::scope(|scope| {
            // The tars that were read in place are hashed while their files are compressed: the
            // image is worth nothing until both have come to a good end.
            let checks = scope.spawn(|| layer::in_parallel(&pending, Pending::check));
            let owner = Owner::caller();
            let size = squashfs::write(tree, &data, owner, compression, out, meter)
                .because(|| "cannot make the squashfs image".into());
            // A damaged layer explains more than what the writer made of it.
            checks.join().map_err(|_| Error::new("a thread failed"))??;
            size
        })
    })?;
    Ok(Imported { metadata, digest, size })
}

/// All layers as one tree, and what it was made from.
struct Merged {
    tree: Tree,
    data: Vec<Blob>,
    pending: Vec<Pending>,
}

fn merge(layers: Vec<Layer>) -> Result<Merged> {
    let mut merged = Merged { tree: Tree::new(), data: Vec::new(), pending: Vec::new() };
    for (index, layer) in layers.into_iter().enumerate() {
        let Layer { name, entries, data, pending } = layer;
        let index = u16::try_from(index).map_err(|_| Error::new("too many layers"))?;
        merged.tree.apply(index, entries).because(|| format!("cannot use layer {name}"))?;
        merged.data.push(data);
        merged.pending.extend(pending);
    }
    Ok(merged)
}
