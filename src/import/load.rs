//! Import of an image from a file, a directory or stdin into a repository.

use std::ffi::OsStr;

use crate::cli::progress::Progress;
use crate::error::{Context, Result};
use crate::image::reference::Reference;
use crate::import::source::{self, ImageSelector};
use crate::import::temp::TempDir;
use crate::import::{self, workers};
use crate::squashfs::compression::Compression;
use crate::store::{Image, Repository};

/// Parameters of a load.
#[derive(Debug)]
pub struct LoadRequest<'a> {
    /// Path of an archive or of the directory of an OCI layout; `-` is stdin.
    pub file: &'a OsStr,
    /// Image to take where the source holds several.
    pub selector: ImageSelector,
    /// Name of the image in the repository.
    pub reference: &'a Reference,
    /// Destination.
    pub repository: &'a Repository,
    /// Directory for decompressed layers.
    pub temp_dir: &'a TempDir,
    /// Compression of the squashfs image.
    pub compression: Compression,
}

/// Imports the image that `request` describes, and reports to `progress`.
///
/// # Errors
/// The source holds no such image, the image is damaged, or there is no space. Nothing is left
/// behind then.
pub fn load(request: &LoadRequest<'_>, progress: Progress) -> Result<Image> {
    let LoadRequest { file, selector, repository, temp_dir, .. } = request;
    let image = source::open(file, selector, temp_dir, progress)
        .map_err(|error| error.or_hint("see 'sarus help load'"))?;
    let writer = repository.image_writer(request.reference)?;
    progress.say("> expand image layers ...");
    for layer in &image.layers {
        progress.say(&format!("> extracting     : {}", layer.name));
    }
    let stored = image.layers.iter().map(|layer| layer.blob.length()).sum();
    let merged = progress
        .during(stored, |meter| import::merge(image, temp_dir, workers::cores(), meter, &|| {}))
        .context(|| import::cannot_import(&writer))?;
    progress.say("> make squashfs ...");
    merged.publish(writer, request.compression, progress, || progress.say("> create metadata ..."))
}
