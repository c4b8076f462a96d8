//! The story of a pull: from the name of an image in a registry to that image in the repository.
//!
//! Layers are read and merged while they, and others, are still on their way. Start at [`pull`].

mod download;

use std::time::Duration;

use crate::cli::progress::{Progress, Row};
use crate::error::{Context, ErrorKind, Result};
use crate::image::platform::TargetPlatform;
use crate::image::reference::Reference;
use crate::import::blob::{Arrival, Blob};
use crate::import::layer::{self, Expected, Source};
use crate::import::source::remote::{self, Part, Remote};
use crate::import::temp::Space;
use crate::import::{self, Merged};
use crate::registry::Registry;
use crate::squashfs::compression::Compression;
use crate::store::{BlobCache, Image, Repository};
use download::{Download, Downloads};

/// What to pull, and how.
#[derive(Debug)]
pub struct Order<'a> {
    /// The name of the image, there and here.
    pub reference: &'a Reference,
    /// For which nodes.
    pub platform: TargetPlatform,
    /// Where it goes to.
    pub repository: &'a Repository,
    /// Where layers are inflated.
    pub space: &'a Space,
    /// Of the image.
    pub compression: Compression,
    /// How many layers are transferred at the same time.
    pub downloads: usize,
    /// In bytes: how much the cache may take afterwards, if that is bounded.
    pub cache_limit: Option<u64>,
}

/// Pulls what `order` says from `registry`; tells by `progress`. An image that is here and current
/// is not pulled again.
///
/// # Errors
/// When the registry does not give it, it is damaged or no image, or there is no space. Nothing is
/// left behind then but blobs, or parts of them, which the next pull uses.
pub fn pull(registry: &Registry, order: &Order<'_>, progress: Progress) -> Result<Image> {
    let Order { reference, repository, .. } = order;
    let cache = repository.cache();
    let key = reference.unique_key();
    progress.say(&format!("# image            : {key}"));
    progress.say(&format!("# cache directory  : {:?}", cache.directory()));
    progress.say(&format!("# temp directory   : {:?}", order.space.path()));
    progress.say(&format!("# images directory : {:?}", repository.images_dir()));

    // What is named by its digest cannot have changed.
    if let Some(image) = repository.find(reference)?
        && reference.digest.is_some_and(|digest| image.has_digest(&digest))
    {
        return Ok(up_to_date(image, progress));
    }
    let remote = progress.meanwhile(&format!("> asking {} ...", reference.server), || {
        remote::resolve(registry, reference, &order.platform)
    })?;
    if let Some(image) = current(repository, reference, &remote)? {
        return Ok(up_to_date(image, progress));
    }
    let waiting = notice(progress, "> waiting        : another process pulls this image");
    let _lease = repository.lease(reference, waiting)?;
    if let Some(image) = current(repository, reference, &remote)? {
        return Ok(up_to_date(image, progress));
    }
    cache.create()?;
    let merged = fetch(registry, order, &cache, &remote, progress)?;

    let about = || format!("cannot import into {}", repository.path().display());
    let pending = repository.image_writer(reference)?;
    let path = repository.paths(reference).squashfs;
    progress.say(&format!("> make squashfs image: {path:?}"));
    let imported = merged.write(order.compression, pending.file(), progress).context(about)?;
    let image = pending.commit(imported.metadata(), imported.digest())?;
    if let Some(limit) = order.cache_limit {
        cache.trim(limit);
    }
    Ok(image)
}

/// The image that is here, if it is the one that is there.
fn current(
    repository: &Repository,
    reference: &Reference,
    remote: &Remote,
) -> Result<Option<Image>> {
    let here = repository.find(reference)?;
    Ok(here.filter(|image| image.has_digest(&remote.digest)))
}

fn up_to_date(image: Image, progress: Progress) -> Image {
    progress.say(&format!("> image for {} is already available and up to date", image.key()));
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

/// Brings all parts of the image here, and merges its layers meanwhile.
fn fetch(
    registry: &Registry,
    order: &Order<'_>,
    cache: &BlobCache,
    remote: &Remote,
    progress: Progress,
) -> Result<Merged> {
    let Order { space, .. } = order;
    // The same layer may be there several times.
    let mut parts: Vec<Part> = Vec::new();
    for layer in &remote.layers {
        if !parts.iter().any(|part| part.digest == layer.digest) {
            parts.push(*layer);
        }
    }
    check_space(order, cache, &parts)?;
    progress.say("> save image layers ...");
    let config = fetch_config(registry, cache, remote)?;

    let arrivals: Vec<_> = parts.iter().map(|part| Arrival::new(part.size)).collect();
    let arrival_of = |layer: &Part| {
        let at = parts.iter().position(|part| part.digest == layer.digest).unwrap_or_default();
        arrivals.get(at).map_or_else(|| Arrival::new(layer.size), std::sync::Arc::clone)
    };
    let image = remote.image(&config, &order.platform, |layer| Source {
        name: cache.path(&layer.digest).display().to_string(),
        blob: Blob::arriving(&arrival_of(layer)),
        expected: Expected::Arriving,
    })?;

    let rows: Vec<_> = parts.iter().map(row).collect();
    let total = remote.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let workers = layer::cores().max(order.downloads);
    progress.board(&rows, total, |board| {
        let tell = &|line: &str, live: bool| match live {
            true => board.say_unless_live(line),
            false => board.say(line),
        };
        let all = parts.iter().zip(&arrivals).zip(&rows);
        let all = all.map(|((part, arrival), row)| Download { part: *part, arrival, row });
        let downloads = Downloads::new(registry, cache, all.collect(), tell);
        let merged = std::thread::scope(|scope| {
            for _ in 0..order.downloads.min(parts.len()) {
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
            import::merge(image, space, workers, board.meter(), &stop).inspect_err(|_| stop())
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

fn row(part: &Part) -> Row {
    let digest: String = part.digest.hex().chars().take(12).collect();
    Row::new(format!("  {digest}"), part.size)
}

fn fetch_config(registry: &Registry, cache: &BlobCache, remote: &Remote) -> Result<Vec<u8>> {
    let about = || "cannot get its configuration".to_owned();
    let part = remote.config;
    let arrival = Arrival::new(part.size);
    let row = row(&part);
    let download = Download { part, arrival: &arrival, row: &row };
    let downloads = Downloads::new(registry, cache, vec![download], &|_, _| {});
    downloads.work();
    if let Some(error) = downloads.take_failure() {
        return Err(error);
    }
    Blob::arriving(&arrival).bytes(part.size).context(about)
}

/// Looks whether there is room, before any time is spent.
fn check_space(order: &Order<'_>, cache: &BlobCache, parts: &[Part]) -> Result<()> {
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
    let missing = sum(&mut parts.iter().map(|part| cache.missing(&part.digest, part.size)));
    if let Some(limit) = order.cache_limit
        && cache.check_space(missing).is_err()
    {
        cache.trim(limit);
    }
    cache.check_space(sum(&mut parts.iter().map(|part| cache.missing(&part.digest, part.size))))?;
    // What is compressed becomes larger, if anything.
    let compressed = parts.iter().filter(|part| !part.plain);
    order.space.check(sum(&mut compressed.map(|part| part.size)))
}
