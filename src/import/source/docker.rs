//! The docker-archive format of `docker save`, `podman save` and skopeo: `manifest.json` names for
//! each image the files of its configuration and its layers.

use miniserde::Deserialize;

use super::files::Files;
use super::{ImageSelector, MAX_JSON, SourceImage, ambiguous, assemble, manifest, same_name};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::import::layer::{LayerBlob, LayerDigest};

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
struct ManifestEntry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

/// Opens the image that `selector` selects.
pub fn image(files: &Files, selector: &ImageSelector) -> Result<SourceImage> {
    let context = || "cannot read manifest.json".to_owned();
    let bytes = files.get("manifest.json")?.bytes(MAX_JSON).context(context)?;
    let images: Vec<ManifestEntry> = manifest::parse(&bytes).context(context)?;
    let saved = select(&images, selector)?;
    let config = files.get(&saved.config)?.bytes(MAX_JSON);
    let config = config.context(|| format!("cannot read {}", saved.config))?;
    if digest_in_name(&saved.config).is_some_and(|expected| Digest::sha256(&config) != expected) {
        let name = &saved.config;
        return Err(Error::new(format!("the content of {name} does not match its name"))
            .with_hint("the archive is damaged or was tampered with: save the image again"));
    }
    let layers = saved.layers.as_deref().unwrap_or_default();
    assemble(&config, selector, layers.len(), |at, diff_id| {
        let path = layers.get(at).map(String::as_str).unwrap_or_default();
        let name = format!("{}/{path}", files.name());
        Ok(LayerBlob { name, blob: files.get(path)?, expected: LayerDigest::DiffId(diff_id) })
    })
}

/// Returns the only image, or the one with the name of `selector`.
fn select<'a>(images: &'a [ManifestEntry], selector: &ImageSelector) -> Result<&'a ManifestEntry> {
    let tags = |image: &'a ManifestEntry| image.tags.as_deref().unwrap_or_default();
    match images {
        [] => Err(Error::new("no image found")),
        [image] => Ok(image),
        _ => images
            .iter()
            .find(|image| tags(image).iter().any(|tag| same_name(tag, &selector.name)))
            .ok_or_else(|| {
                let names = images.iter().map(|image| match tags(image) {
                    [] => "(without a name)".into(),
                    tags => tags.join(" = "),
                });
                ambiguous(selector, names)
            }),
    }
}

/// Returns the digest in the name of a configuration file: `<hex>.json`, or since Docker 25
/// `blobs/sha256/<hex>`.
fn digest_in_name(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name))
}
