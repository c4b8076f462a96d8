//! The docker-archive, as `docker save`, `podman save` and skopeo write it: `manifest.json` names
//! for each image a configuration and its layers, as files of the archive.

use miniserde::Deserialize;

use super::files::Files;
use super::{ImageSelector, MAX_JSON, SourceImage, ambiguous, assemble, manifest, same_name};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::import::layer::{LayerBlob, LayerDigest};

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

/// The image that `selector` means.
pub fn image(files: &Files, selector: &ImageSelector) -> Result<SourceImage> {
    let context = || "cannot read manifest.json".to_owned();
    let bytes = files.get("manifest.json")?.bytes(MAX_JSON).context(context)?;
    let images: Vec<Saved> = manifest::parse(&bytes).context(context)?;
    let saved = choose(&images, selector)?;
    let config = files.get(&saved.config)?.bytes(MAX_JSON);
    let config = config.context(|| format!("cannot read {}", saved.config))?;
    if digest_in_name(&saved.config).is_some_and(|expected| Digest::of(&config) != expected) {
        let name = &saved.config;
        return Err(Error::new(format!("the content of {name} does not match its name"))
            .with_hint("the archive is damaged or was tampered with: save it again"));
    }
    let layers = saved.layers.as_deref().unwrap_or_default();
    assemble(&config, selector, layers.len(), |at, diff_id| {
        let path = layers.get(at).map(String::as_str).unwrap_or_default();
        let name = format!("{}/{path}", files.name());
        Ok(LayerBlob { name, blob: files.get(path)?, expected: LayerDigest::DiffId(diff_id) })
    })
}

/// The only image, or the one that has the wanted name.
fn choose<'a>(images: &'a [Saved], selector: &ImageSelector) -> Result<&'a Saved> {
    let tags = |image: &'a Saved| image.tags.as_deref().unwrap_or_default();
    match images {
        [] => Err(Error::new("it holds no image")),
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

/// The digest by which the configuration's file is named: `<hex>.json`, or since Docker 25
/// `blobs/sha256/<hex>`.
fn digest_in_name(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name))
}
