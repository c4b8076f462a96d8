//! The story of a pull: from the name of an image in a registry to that image in the repository.
//!
//! Layers are read and merged while they, and others, are still on their way. Start at [`pull`].

mod download;

use std::time::Duration;

use crate::cli::progress::{Progress, Row};
use crate::error::{Context, ErrorKind, Result};
use crate::image::platform::TargetPlatform;
use crate::image::reference::Reference;
use crate::import::blob::{Blob, StreamingBlob};
use crate::import::layer::{self, LayerBlob, LayerDigest};
use crate::import::source::remote::{self, BlobDescriptor, RemoteImage};
use crate::import::squashfs::Compression;
use crate::import::temp::TempDir;
use crate::import::{self, Merged};
use crate::registry::Registry;
use crate::store::{Cache, Image, Repository};
use download::{Download, Downloads};

/// What to pull, and how.
#[derive(Debug)]
pub struct PullRequest<'a> {
    /// The name of the image, there and here.
    pub reference: &'a Reference,
    /// For which nodes.
    pub platform: TargetPlatform,
    /// Where it goes to.
    pub repository: &'a Repository,
    /// Where layers are inflated.
    pub temp_dir: &'a TempDir,
    /// Of the image.
    pub compression: Compression,
    /// How many layers are transferred at the same time.
    pub downloads: usize,
    /// In bytes: how much the cache may take afterwards, if that is bounded.
    pub cache_limit: Option<u64>,
}

/// Pulls what `request` says from `registry`; tells by `progress`. An image that is here and current
/// is not pulled again.
///
/// # Errors
/// When the registry does not give it, it is damaged or no image, or there is no temp_dir. Nothing is
/// left behind then but blobs, or blobs of them, which the next pull uses.
pub fn pull(registry: &Registry, request: &PullRequest<'_>, progress: Progress) -> Result<Image> {
    let PullRequest { reference, repository, .. } = request;
    let cache = repository.cache();
    let key = reference.unique_key();
    progress.say(&format!("# image            : {key}"));
    progress.say(&format!("# cache directory  : {:?}", cache.directory()));
    progress.say(&format!("# temp directory   : {:?}", request.temp_dir.path()));
    progress.say(&format!("# images directory : {:?}", repository.images_dir()));

    // What is named by its digest cannot have changed.
    if let Some(image) = repository.find(reference)?
        && reference.digest.as_ref().is_some_and(|digest| digest.ends_with(&image.digest))
    {
        return Ok(up_to_date(image, progress));
    }
    let remote = progress.meanwhile(&format!("> asking {} ...", reference.server), || {
        remote::resolve(registry, reference, &request.platform)
    })?;
    if let Some(image) = current(repository, reference, &remote)? {
        return Ok(up_to_date(image, progress));
    }
    let waiting = notice(progress, "> waiting        : another process pulls this image");
    let _claim = repository.claim(reference, waiting)?;
    if let Some(image) = current(repository, reference, &remote)? {
        return Ok(up_to_date(image, progress));
    }
    cache.create()?;
    let merged = fetch(registry, request, &cache, &remote, progress)?;

    let context = || format!("cannot import into {}", repository.path().display());
    let pending = repository.begin(reference)?;
    let path = repository.images_dir().join(format!("{key}.squashfs"));
    progress.say(&format!("> make squashfs image: {path:?}"));
    let imported = merged.write(request.compression, pending.file(), progress).context(context)?;
    let image = pending.commit(imported.metadata(), &imported.digest().hex())?;
    if let Some(limit) = request.cache_limit {
        cache.trim(limit);
    }
    Ok(image)
}

/// The image that is here, if it is the one that is there.
fn current(
    repository: &Repository,
    reference: &Reference,
    remote: &RemoteImage,
) -> Result<Option<Image>> {
    let here = repository.find(reference)?;
    Ok(here.filter(|image| image.digest == remote.digest.hex()))
}

fn up_to_date(image: Image, progress: Progress) -> Image {
    progress.say(&format!("> image for {} is already available and up to date", image.key));
    image
}

/// Says once that there is something to wait for.
fn notice(progress: Progress, text: &'static str) -> impl FnMut(Duration) -> Result<()> {
    let mut said = false;
    move |_| {
        if !std::mem::replace(&mut said, true) {
            progress.say(text);
        }
        Ok(())
    }
}

/// Brings all blobs of the image here, and merges its layers meanwhile.
fn fetch(
    registry: &Registry,
    request: &PullRequest<'_>,
    cache: &Cache,
    remote: &RemoteImage,
    progress: Progress,
) -> Result<Merged> {
    let PullRequest { temp_dir, .. } = request;
    // The same layer may be there several times.
    let mut blobs: Vec<BlobDescriptor> = Vec::new();
    for layer in &remote.layers {
        if !blobs.iter().any(|blob| blob.digest == layer.digest) {
            blobs.push(*layer);
        }
    }
    check_space(request, cache, &blobs)?;
    progress.say("> save image layers ...");
    let config = fetch_config(registry, cache, remote)?;

    let streams: Vec<_> = blobs.iter().map(|blob| StreamingBlob::new(blob.size)).collect();
    let stream_of = |layer: &BlobDescriptor| {
        let at = blobs.iter().position(|blob| blob.digest == layer.digest).unwrap_or_default();
        streams.get(at).map_or_else(|| StreamingBlob::new(layer.size), std::sync::Arc::clone)
    };
    let image = remote.image(&config, &request.platform, |layer| LayerBlob {
        name: cache.path(&layer.digest).display().to_string(),
        blob: Blob::streaming(&stream_of(layer)),
        expected: LayerDigest::CheckedByStream,
    })?;

    let rows: Vec<_> = blobs.iter().map(row).collect();
    let total = remote.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let workers = layer::cores().max(request.downloads);
    progress.board(&rows, total, |board| {
        let tell = &|line: &str, live: bool| match live {
            true => board.say_unless_live(line),
            false => board.say(line),
        };
        let all = blobs.iter().zip(&streams).zip(&rows);
        let all = all.map(|((blob, stream), row)| Download { blob: *blob, stream, row });
        let downloads = Downloads::new(registry, cache, all.collect(), tell);
        let merged = std::thread::scope(|scope| {
            for _ in 0..request.downloads.min(blobs.len()) {
                scope.spawn(|| downloads.work());
            }
            // Told apart from the downloads, as the manual shows it.
            scope.spawn(|| {
                if downloads.wait() {
                    board.say("> expanding image layers ...");
                    for layer in &remote.layers {
                        board.say(&format!("> extracting     : {:?}", cache.path(&layer.digest)));
                    }
                }
            });
            let stop = || downloads.stop();
            import::merge(image, temp_dir, workers, board.meter(), &stop).inspect_err(|_| stop())
        });
        // What kept a layer from arriving explains more than that it did not; and nothing may be
        // made of an image whose layers did not all arrive.
        match downloads.take_failure() {
            Some(error) => Err(error),
            None => merged.map_err(|error| match error.kind() {
                ErrorKind::Corrupt => error.or_hint("the image is damaged: tell whoever made it"),
                _ => error,
            }),
        }
    })
}

fn row(blob: &BlobDescriptor) -> Row {
    let digest: String = blob.digest.hex().chars().take(12).collect();
    Row::new(format!("  {digest}"), blob.size)
}

fn fetch_config(registry: &Registry, cache: &Cache, remote: &RemoteImage) -> Result<Vec<u8>> {
    let context = || "cannot get its configuration".to_owned();
    let blob = remote.config;
    let stream = StreamingBlob::new(blob.size);
    let row = row(&blob);
    let download = Download { blob, stream: &stream, row: &row };
    let downloads = Downloads::new(registry, cache, vec![download], &|_, _| {});
    downloads.work();
    if let Some(error) = downloads.take_failure() {
        return Err(error);
    }
    Blob::streaming(&stream).bytes(blob.size).context(context)
}

/// Looks whether there is room, before any time is spent.
fn check_space(request: &PullRequest<'_>, cache: &Cache, blobs: &[BlobDescriptor]) -> Result<()> {
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
    let missing = sum(&mut blobs.iter().map(|blob| cache.missing(&blob.digest, blob.size)));
    if let Some(limit) = request.cache_limit
        && cache.check_space(missing).is_err()
    {
        cache.trim(limit);
    }
    cache.check_space(sum(&mut blobs.iter().map(|blob| cache.missing(&blob.digest, blob.size))))?;
    // What is compressed becomes larger, if anything.
    let compressed = blobs.iter().filter(|blob| !blob.plain);
    request.temp_dir.check_free_space(sum(&mut compressed.map(|blob| blob.size)))
}
