//! Pull of an image from a registry into a repository.
//!
//! Layers are read and merged while they are still being downloaded. Start at [`pull`].

mod download;

use std::time::Duration;

use crate::cli::progress::{Board, Progress};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::Digest;
use crate::image::platform::TargetPlatform;
use crate::image::reference::Reference;
use crate::import::blob::Blob;
use crate::import::layer::{LayerBlob, LayerDigest};
use crate::import::source::SourceImage;
use crate::import::source::remote::{self, BlobDescriptor, RemoteImage};
use crate::import::temp::TempDir;
use crate::import::{self, Merged, workers};
use crate::registry::Registry;
use crate::squashfs::compression::Compression;
use crate::store::{BlobCache, Image, Repository};
use download::{Download, Downloader, Event, Observer, Unobserved};

/// Parameters of a pull.
#[derive(Debug)]
pub struct PullRequest<'a> {
    /// Name of the image, in the registry and in the repository.
    pub reference: &'a Reference,
    /// Platform of the nodes that will run the image.
    pub platform: TargetPlatform,
    /// Destination.
    pub repository: &'a Repository,
    /// Directory for decompressed layers.
    pub temp_dir: &'a TempDir,
    /// Compression of the squashfs image.
    pub compression: Compression,
    /// Maximum number of simultaneous downloads.
    pub downloads: usize,
    /// Maximum size of the cache after the pull in bytes; `None` for no limit.
    pub cache_limit: Option<u64>,
}

/// Pulls an image from `registry`, and reports to `progress`. An image that is already in the
/// repository and current is not pulled again.
///
/// # Errors
/// The registry refuses or cannot be reached, the image is damaged, or there is no space. Complete
/// and partial blobs stay in the cache for the next pull, and nothing else.
pub fn pull(registry: &Registry, request: &PullRequest<'_>, progress: Progress) -> Result<Image> {
    let PullRequest { reference, repository, .. } = request;
    let cache = repository.cache();
    let key = reference.unique_key();
    progress.say(&format!("# image            : {key}"));
    progress.say(&format!("# cache directory  : {:?}", cache.directory()));
    progress.say(&format!("# temp directory   : {:?}", request.temp_dir.path()));
    progress.say(&format!("# images directory : {:?}", repository.images_dir()));

    // An image that is named by its digest cannot have changed.
    if let Some(image) = repository.find(reference)?
        && reference.digest.is_some_and(|digest| image.has_digest(&digest))
    {
        return Ok(up_to_date(image, progress));
    }
    let remote = progress.meanwhile(&format!("> asking {} ...", reference.server), || {
        remote::resolve(registry, reference, &request.platform)
    })?;
    if let Some(image) = find_current(repository, reference, &remote)? {
        return Ok(up_to_date(image, progress));
    }
    let on_wait = say_once(progress, "> waiting        : another process pulls this image");
    let _lease = repository.lease(reference, on_wait)?;
    if let Some(image) = find_current(repository, reference, &remote)? {
        return Ok(up_to_date(image, progress));
    }
    cache.create()?;
    let merged = fetch(registry, request, &cache, &remote, progress)?;

    let writer = repository.image_writer(reference)?;
    let path = repository.paths(reference).squashfs;
    progress.say(&format!("> make squashfs image: {path:?}"));
    let image = merged.publish(writer, request.compression, progress, || {})?;
    if let Some(limit) = request.cache_limit {
        cache.trim(limit);
    }
    Ok(image)
}

/// Returns the image of the repository if it is the one of the registry.
fn find_current(
    repository: &Repository,
    reference: &Reference,
    remote: &RemoteImage,
) -> Result<Option<Image>> {
    let stored = repository.find(reference)?;
    Ok(stored.filter(|image| image.has_digest(&remote.digest)))
}

fn up_to_date(image: Image, progress: Progress) -> Image {
    progress.say(&format!("> image for {} is already available and up to date", image.key()));
    image
}

/// Returns a callback that prints `text` the first time that it is called.
fn say_once(progress: Progress, text: &'static str) -> impl FnMut(Duration) -> Result<()> {
    let mut said = false;
    move |_| {
        if !std::mem::replace(&mut said, true) {
            progress.say(text);
        }
        Ok(())
    }
}

/// Downloads all blobs of the image, and merges its layers meanwhile.
fn fetch(
    registry: &Registry,
    request: &PullRequest<'_>,
    cache: &BlobCache,
    remote: &RemoteImage,
    progress: Progress,
) -> Result<Merged> {
    let downloads: Vec<_> = distinct(&remote.layers).into_iter().map(Download::new).collect();
    check_space(request, cache, &downloads)?;
    progress.say("> save image layers ...");
    let config = fetch_config(registry, cache, remote)?;
    let image = remote
        .image(&config, &request.platform, |layer| layer_blob(cache, &downloads, &layer.digest))?;
    let rows: Vec<_> = downloads.iter().map(|download| &download.row).collect();
    let total = total_size(&mut remote.layers.iter().map(|layer| layer.size));
    progress.board(&rows, total, |board| {
        let lines = Lines { board, cache, layers: &remote.layers };
        let downloader = Downloader::new(registry, cache, &downloads, &lines);
        let merged = download_and_merge(&downloader, request, image, board);
        // A failed download explains more than the layer that could not be read for it; and nothing
        // may be made of an image without all of its layers.
        match downloader.take_failure() {
            Some(error) => Err(error),
            None => merged.map_err(blame_image),
        }
    })
}

fn download_and_merge(
    downloader: &Downloader<'_>,
    request: &PullRequest<'_>,
    image: SourceImage,
    board: &Board<'_>,
) -> Result<Merged> {
    let threads = workers::cores().max(request.downloads);
    let stop = || downloader.stop();
    std::thread::scope(|scope| {
        downloader.start(scope, request.downloads);
        import::merge(image, request.temp_dir, threads, board.meter(), &stop)
            .inspect_err(|_| stop())
    })
}

fn blame_image(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Corrupt => error.or_hint("the image is damaged: tell its maintainer"),
        _ => error,
    }
}

/// The blobs without repetitions: images can have the same layer several times.
fn distinct(blobs: &[BlobDescriptor]) -> Vec<BlobDescriptor> {
    let mut distinct: Vec<BlobDescriptor> = Vec::new();
    for blob in blobs {
        if !distinct.iter().any(|known| known.digest == blob.digest) {
            distinct.push(*blob);
        }
    }
    distinct
}

/// The layer with this digest, to be read while it is downloaded.
fn layer_blob(cache: &BlobCache, downloads: &[Download], digest: &Digest) -> Result<LayerBlob> {
    let download = downloads.iter().find(|download| download.blob.digest == *digest);
    let download = download.ok_or_else(|| Error::new("the layer is not downloaded"))?;
    Ok(LayerBlob {
        name: cache.path(digest).display().to_string(),
        blob: Blob::streaming(&download.stream),
        expected: LayerDigest::CheckedByStream,
    })
}

/// The lines of a pull, as the manual shows them.
struct Lines<'a> {
    board: &'a Board<'a>,
    cache: &'a BlobCache,
    layers: &'a [BlobDescriptor],
}

impl Observer for Lines<'_> {
    fn on_event(&self, event: Event, digest: &Digest) {
        match event {
            Event::Waiting => self.board.say(&format!("> waiting        : {digest}")),
            Event::FoundInCache => self.board.say(&format!("> found in cache : {digest}")),
            Event::Completed => self.board.say(&format!("> completed      : {digest}")),
            // A row of the board shows as much.
            Event::Pulling => self.board.say_unless_live(&format!("> pulling        : {digest}")),
            Event::Retry => self.board.say_unless_live(&format!("> retry          : {digest}")),
        }
    }

    fn on_all_complete(&self) {
        self.board.say("> expanding image layers ...");
        for layer in self.layers {
            self.board.say(&format!("> extracting     : {:?}", self.cache.path(&layer.digest)));
        }
    }
}

fn fetch_config(registry: &Registry, cache: &BlobCache, remote: &RemoteImage) -> Result<Vec<u8>> {
    let download = Download::new(remote.config);
    let downloader = Downloader::new(registry, cache, std::slice::from_ref(&download), &Unobserved);
    downloader.run();
    if let Some(error) = downloader.take_failure() {
        return Err(error);
    }
    Blob::streaming(&download.stream)
        .bytes(remote.config.size)
        .context(|| "cannot read the image configuration".into())
}

/// Checks that cache and temporary directory have enough free space for the image.
fn check_space(request: &PullRequest<'_>, cache: &BlobCache, downloads: &[Download]) -> Result<()> {
    let blobs = || downloads.iter().map(|download| &download.blob);
    let missing = || total_size(&mut blobs().map(|blob| cache.missing(&blob.digest, blob.size)));
    if let Some(limit) = request.cache_limit
        && cache.check_space(missing()).is_err()
    {
        cache.trim(limit);
    }
    cache.check_space(missing())?;
    // Decompressed layers are hardly smaller than the compressed ones.
    let compressed = blobs().filter(|blob| !blob.is_plain_tar);
    request.temp_dir.check_free_space(total_size(&mut compressed.map(|blob| blob.size)))
}

fn total_size(sizes: &mut dyn Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}
