//! The JSON documents of images (<https://github.com/opencontainers/image-spec>), OCI's and
//! Docker's alike, as far as they matter here.

use std::collections::BTreeMap;

use miniserde::{Deserialize, json};

use super::platform::{Platform, TargetPlatform};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::metadata::Metadata;
use crate::log;

/// Reads a document that was written by a machine.
pub fn parse<T: Deserialize>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::new("not valid UTF-8"))?;
    json::from_str(text).map_err(|_| Error::new("malformed JSON"))
}

/// Points to a blob.
#[derive(Debug, Clone, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    /// Type of the blob.
    pub media_type: Option<String>,
    /// Digest of the blob, `sha256:<hex>`.
    pub digest: String,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Platform of the image, in an index.
    pub platform: Option<Platform>,
    /// Annotations of the descriptor.
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Parses the digest.
    ///
    /// # Errors
    /// If it is not a SHA-256 digest.
    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
    }

    /// Returns the name that tools give an image in a layout.
    pub fn name(&self) -> Option<&str> {
        let name = self.annotations.as_ref()?.get("org.opencontainers.image.ref.name")?;
        (!name.is_empty()).then_some(name)
    }

    /// Returns whether it is an index.
    pub fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_deref(),
            Some(
                "application/vnd.oci.image.index.v1+json"
                    | "application/vnd.docker.distribution.manifest.list.v2+json"
            )
        )
    }

    /// Whether it may be an image: not the attestations that BuildKit puts beside them.
    pub fn is_image(&self) -> bool {
        let attestation = "vnd.docker.reference.type";
        let type_ = self.media_type.as_deref();
        let manifest = matches!(
            type_,
            None | Some(
                "application/vnd.oci.image.manifest.v1+json"
                    | "application/vnd.docker.distribution.manifest.v2+json"
                    | "application/vnd.docker.distribution.manifest.v1+json"
                    | "application/vnd.docker.distribution.manifest.v1+prettyjws"
            )
        );
        (manifest || self.is_index())
            && !self.annotations.as_ref().is_some_and(|notes| notes.contains_key(attestation))
    }

    /// Whether it may be the configuration of an image. Old tools gave it no type of its own.
    fn is_config(&self) -> bool {
        let type_ = self.media_type.as_deref();
        matches!(
            type_,
            None | Some(
                "application/vnd.oci.image.config.v1+json"
                    | "application/vnd.docker.container.image.v1+json"
                    | "application/octet-stream"
            )
        )
    }

    /// Whether it may be a layer: refuses encrypted ones, and artifacts that are no images.
    fn is_layer(&self) -> bool {
        let type_ = self.media_type.as_deref().unwrap_or_default();
        let known = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ];
        // The suffix only repeats what the first bytes of the blob say.
        let plain = ["+gzip", "+zstd", ".gzip", ".zstd"]
            .iter()
            .find_map(|suffix| type_.strip_suffix(suffix))
            .unwrap_or(type_);
        known.contains(&plain)
    }
}

/// An index or a manifest: which of them tells its content.
#[derive(Debug, Deserialize)]
pub struct Document {
    #[serde(rename = "schemaVersion")]
    /// Version of the schema: 2, or absent.
    pub schema_version: Option<u64>,
    /// Of an index.
    pub manifests: Option<Vec<Descriptor>>,
    /// Of a manifest.
    pub config: Option<Descriptor>,
    /// Of a manifest.
    pub layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads an index or manifest of today.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let document: Self = parse(bytes)?;
        match document.schema_version {
            Some(1) => Err(schema_1()),
            Some(2) | None => Ok(document),
            Some(version) => Err(Error::new(format!("unknown manifest schema {version}"))),
        }
    }

    /// The configuration and the layers of an image; what is stored as an image is, and is none,
    /// has others.
    pub fn image(self) -> Result<(Descriptor, Vec<Descriptor>)> {
        let config =
            self.config.ok_or_else(|| Error::new("its manifest names no configuration"))?;
        let layers = self.layers.unwrap_or_default();
        if !config.is_config() {
            let type_ = config.media_type.as_deref().unwrap_or_default();
            return Err(Error::new(format!("it is no container image, but holds {type_:.100}"))
                .with_hint("artifacts such as charts and signatures cannot be run"));
        }
        if let Some((at, layer)) = layers.iter().enumerate().find(|(_, layer)| !layer.is_layer()) {
            let type_ = layer.media_type.as_deref().unwrap_or("none");
            return Err(Error::new(format!("unknown type {type_:.100}")))
                .context(|| format!("cannot use layer {}", at + 1));
        }
        Ok((config, layers))
    }
}

/// An image configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// Processor.
    pub architecture: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Variant of the processor.
    pub variant: Option<String>,
    /// Execution parameters.
    pub config: Option<Metadata>,
    /// Layers.
    pub rootfs: Option<RootFs>,
}

/// The layers of an image, as its configuration lists them.
#[derive(Debug, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, the lowest first.
    pub diff_ids: Vec<String>,
}

impl Config {
    /// For what the image is made, if it tells.
    pub fn platform(&self) -> Option<Platform> {
        let architecture = self.architecture.clone().filter(|text| !text.is_empty())?;
        let os = self.os.clone().filter(|text| !text.is_empty()).unwrap_or("linux".into());
        // Empty where there are none, in what Docker writes.
        let variant = self.variant.clone().filter(|text| !text.is_empty());
        Some(Platform { architecture, os, variant })
    }

    /// An image for another processor loads, but will not run: say so now.
    pub fn warn_of_foreign(&self, platform: &TargetPlatform) {
        let architecture = self.architecture.as_deref().unwrap_or_default();
        if !architecture.is_empty() && architecture != platform.architecture {
            let text = format!("the image is made for {architecture:.20}, not for {platform}");
            log::warn("import", &text);
        }
    }
}

/// The error for a manifest of Docker's schema 1.
#[cold]
#[must_use]
pub fn schema_1() -> Error {
    Error::new("it has a manifest of Docker's schema 1, given up in 2017")
        .with_hint("convert it with `skopeo copy --format v2s2`")
}
