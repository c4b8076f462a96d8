//! The OCI image layout, as a directory or in a tar: `index.json` leads to manifests, manifests to
//! a configuration and layers, each by digest and size.

use super::files::Files;
use super::{ImageSelector, MAX_JSON, SourceImage, TargetPlatform, ambiguous, assemble, same_name};
use crate::error::{Context, Error, Result};
use crate::image::manifest::{Descriptor, Document};
use crate::import::blob::Blob;
use crate::import::layer::{LayerBlob, LayerDigest};

/// Deepest nesting of indexes: one is usual, two are known.
pub(super) const MAX_NESTING: usize = 4;

/// The image that `selector` means.
pub fn image(files: &Files, selector: &ImageSelector) -> Result<SourceImage> {
    let context = || "cannot read index.json".to_owned();
    let bytes = files.get("index.json")?.bytes(MAX_JSON).context(context)?;
    let mut document = Document::parse(&bytes).context(context)?;
    for _ in 0..MAX_NESTING {
        let Some(manifests) = document.manifests else {
            return described(files, selector, document);
        };
        let chosen = choose(&manifests, selector)?;
        let context = || format!("cannot read manifest {}", chosen.digest);
        document = Document::parse(&read(files, chosen)?).context(context)?;
    }
    Err(Error::new("its indexes are nested too deeply"))
}

fn described(files: &Files, selector: &ImageSelector, manifest: Document) -> Result<SourceImage> {
    let (config, layers) = manifest.image()?;
    let config = read(files, &config)?;
    assemble(&config, selector, layers.len(), |at, _| {
        let layer = layers.get(at).ok_or_else(|| Error::new("it is missing"))?;
        let digest = layer.digest()?;
        let name = format!("{}/{}", files.name(), digest.hex());
        Ok(LayerBlob { name, blob: open(files, layer)?, expected: LayerDigest::Blob(digest) })
    })
}

/// The blob that `descriptor` points to: of the right size, not yet verified.
fn open(files: &Files, descriptor: &Descriptor) -> Result<Blob> {
    let digest = descriptor.digest()?;
    let blob = files.get(&format!("blobs/sha256/{}", digest.hex()))?;
    let (length, size) = (blob.length(), descriptor.size);
    if length != size {
        return Err(Error::new(format!("blob {digest} has {length} bytes instead of {size}")));
    }
    Ok(blob)
}

/// The verified content of a small blob.
fn read(files: &Files, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let context = || format!("cannot read blob {:.100}", descriptor.digest);
    let bytes = open(files, descriptor)?.bytes(MAX_JSON).context(context)?;
    let mut hasher = crate::image::digest::Hasher::default();
    hasher.update(&bytes);
    hasher.check(descriptor.digest()?).context(context)?;
    Ok(bytes)
}

/// The images and indexes that may serve `platform`; there is one at least.
fn fitting<'a>(
    manifests: &'a [Descriptor],
    platform: &TargetPlatform,
) -> Result<Vec<&'a Descriptor>> {
    let images: Vec<_> = manifests.iter().filter(|manifest| manifest.is_image()).collect();
    let fits = |image: &&Descriptor| fit(platform, image).is_some();
    let fitting: Vec<_> = images.iter().copied().filter(fits).collect();
    if fitting.is_empty() { Err(nothing_fits(&images, platform)) } else { Ok(fitting) }
}

fn fit(platform: &TargetPlatform, image: &Descriptor) -> Option<u32> {
    image.platform.as_ref().map_or(Some(0), |offered| platform.fit(offered))
}

/// The best of those that fit; the first of several that fit alike.
fn best<'a>(fitting: Vec<&'a Descriptor>, platform: &TargetPlatform) -> Result<&'a Descriptor> {
    let best = fitting.into_iter().min_by_key(|image| fit(platform, image));
    best.ok_or_else(|| Error::new("it holds no image"))
}

/// The manifest or index that fits `platform` best.
pub(super) fn for_platform<'a>(
    manifests: &'a [Descriptor],
    platform: &TargetPlatform,
) -> Result<&'a Descriptor> {
    best(fitting(manifests, platform)?, platform)
}

/// The one manifest or index that fits platform and name.
fn choose<'a>(manifests: &'a [Descriptor], selector: &ImageSelector) -> Result<&'a Descriptor> {
    let fitting = fitting(manifests, &selector.platform)?;
    let mut several = fitting.iter().map(|image| image.name()).collect::<Vec<_>>();
    several.sort_unstable();
    several.dedup();
    let fitting: Vec<_> = match several.as_slice() {
        // One name or none at all: only the platform tells them apart.
        [_] => fitting,
        _ => {
            let tag = selector.name.rsplit(['/', ':']).next();
            let wanted = |name: &str| same_name(name, &selector.name) || Some(name) == tag;
            let named = |image: &&Descriptor| image.name().is_some_and(wanted);
            let named: Vec<_> = fitting.iter().copied().filter(named).collect();
            if named.is_empty() {
                let name = |image: &&Descriptor| image.name().unwrap_or("(without a name)").into();
                return Err(ambiguous(selector, fitting.iter().map(name)));
            }
            named
        }
    };
    best(fitting, &selector.platform)
}

#[cold]
fn nothing_fits(images: &[&Descriptor], wanted: &TargetPlatform) -> Error {
    let platforms: Vec<_> =
        images.iter().filter_map(|image| image.platform.as_ref()).map(|of| of.text()).collect();
    if platforms.is_empty() {
        return Error::new("it holds no image");
    }
    let platforms = platforms.join(", ");
    Error::new(format!("it holds no image for {wanted}, only for {platforms:.500}"))
}
