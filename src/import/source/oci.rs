//! The OCI image layout, as a directory or in a tar archive: `index.json` refers to manifests, and
//! these to a configuration and layers, by digest and size.

use super::files::Files;
use super::{ImageSelector, MAX_JSON, SourceImage, TargetPlatform, ambiguous, assemble, same_name};
use crate::error::{Context, Error, Result};
use crate::image::manifest::{Descriptor, Document};
use crate::import::blob::Blob;
use crate::import::layer::{LayerBlob, LayerDigest};

/// Maximum depth of nested indexes: one is usual, two have been seen.
pub(super) const MAX_NESTING: usize = 4;

/// Opens the image that `selector` selects.
pub fn image(files: &Files, selector: &ImageSelector) -> Result<SourceImage> {
    let context = || "cannot read index.json".to_owned();
    let bytes = files.get("index.json")?.bytes(MAX_JSON).context(context)?;
    let mut document = Document::parse(&bytes).context(context)?;
    for _ in 0..MAX_NESTING {
        let Some(manifests) = document.manifests else {
            return from_manifest(files, selector, document);
        };
        let selected = select(&manifests, selector)?;
        let context = || format!("cannot read manifest {}", selected.digest);
        document = Document::parse(&read(files, selected)?).context(context)?;
    }
    Err(Error::new("image indexes are nested too deeply"))
}

fn from_manifest(
    files: &Files,
    selector: &ImageSelector,
    manifest: Document,
) -> Result<SourceImage> {
    let (config, layers) = manifest.image()?;
    let config = read(files, &config)?;
    assemble(&config, selector, layers.len(), |at, _| {
        let layer = layers.get(at).ok_or_else(|| Error::new("the manifest has no such layer"))?;
        let digest = layer.digest()?;
        let name = format!("{}/{}", files.name(), digest.hex());
        Ok(LayerBlob { name, blob: open(files, layer)?, expected: LayerDigest::Blob(digest) })
    })
}

/// Opens the blob of `descriptor`, and checks its size but not its digest.
fn open(files: &Files, descriptor: &Descriptor) -> Result<Blob> {
    let digest = descriptor.digest()?;
    let blob = files.get(&format!("blobs/sha256/{}", digest.hex()))?;
    let (length, size) = (blob.length(), descriptor.size);
    if length != size {
        return Err(Error::new(format!("blob {digest} has {length} bytes instead of {size}")));
    }
    Ok(blob)
}

/// Reads a small blob, and verifies its digest.
fn read(files: &Files, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let context = || format!("cannot read blob {:.100}", descriptor.digest);
    let bytes = open(files, descriptor)?.bytes(MAX_JSON).context(context)?;
    let mut hasher = crate::image::digest::Hasher::default();
    hasher.update(&bytes);
    hasher.check(descriptor.digest()?).context(context)?;
    Ok(bytes)
}

/// Returns the images and indexes that `platform` can run, at least one.
fn matching<'a>(
    manifests: &'a [Descriptor],
    platform: &TargetPlatform,
) -> Result<Vec<&'a Descriptor>> {
    let images: Vec<_> = manifests.iter().filter(|manifest| manifest.is_image()).collect();
    let fits = |image: &&Descriptor| fit(platform, image).is_some();
    let matching: Vec<_> = images.iter().copied().filter(fits).collect();
    if matching.is_empty() { Err(no_match(&images, platform)) } else { Ok(matching) }
}

fn fit(platform: &TargetPlatform, image: &Descriptor) -> Option<u32> {
    image.platform.as_ref().map_or(Some(0), |offered| platform.fit(offered))
}

/// Returns the best match, the first of several equal ones.
fn best<'a>(matching: Vec<&'a Descriptor>, platform: &TargetPlatform) -> Result<&'a Descriptor> {
    let best = matching.into_iter().min_by_key(|image| fit(platform, image));
    best.ok_or_else(|| Error::new("no image found"))
}

/// Returns the manifest or index that matches `platform` best.
pub(super) fn for_platform<'a>(
    manifests: &'a [Descriptor],
    platform: &TargetPlatform,
) -> Result<&'a Descriptor> {
    best(matching(manifests, platform)?, platform)
}

/// Returns the manifest or index that matches platform and name.
fn select<'a>(manifests: &'a [Descriptor], selector: &ImageSelector) -> Result<&'a Descriptor> {
    let matching = matching(manifests, &selector.platform)?;
    let mut several = matching.iter().map(|image| image.name()).collect::<Vec<_>>();
    several.sort_unstable();
    several.dedup();
    let matching: Vec<_> = match several.as_slice() {
        // All have the same name or none: only the platform distinguishes them.
        [_] => matching,
        _ => {
            let tag = selector.name.rsplit(['/', ':']).next();
            let wanted = |name: &str| same_name(name, &selector.name) || Some(name) == tag;
            let named = |image: &&Descriptor| image.name().is_some_and(wanted);
            let named: Vec<_> = matching.iter().copied().filter(named).collect();
            if named.is_empty() {
                let name = |image: &&Descriptor| image.name().unwrap_or("(without a name)").into();
                return Err(ambiguous(selector, matching.iter().map(name)));
            }
            named
        }
    };
    best(matching, &selector.platform)
}

#[cold]
fn no_match(images: &[&Descriptor], wanted: &TargetPlatform) -> Error {
    let platforms: Vec<_> =
        images.iter().filter_map(|image| image.platform.as_ref()).map(|of| of.text()).collect();
    if platforms.is_empty() {
        return Error::new("no image found");
    }
    let platforms = platforms.join(", ");
    Error::new(format!("no image for {wanted}, only for {platforms:.500}"))
}
