//! JSON documents of images: OCI's (<https://github.com/opencontainers/image-spec>) and Docker's.

use std::collections::BTreeMap;

use miniserde::{Deserialize, json};

use super::platform::{Platform, TargetPlatform};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::metadata::Metadata;
use crate::log;

/// Parses a JSON document.
pub fn parse<T: Deserialize>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::new("not valid UTF-8"))?;
    json::from_str(text).map_err(|_| Error::new("malformed JSON"))
}

/// Descriptor of a blob (image-spec, `descriptor.md`).
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
    /// The digest is not a SHA-256 digest.
    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
    }

    /// Returns the name of an image in an OCI layout.
    pub fn name(&self) -> Option<&str> {
        let name = self.annotations.as_ref()?.get("org.opencontainers.image.ref.name")?;
        (!name.is_empty()).then_some(name)
    }

    /// Returns whether the blob is an index.
    pub fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_deref(),
            Some(
                "application/vnd.oci.image.index.v1+json"
                    | "application/vnd.docker.distribution.manifest.list.v2+json"
            )
        )
    }

    /// Returns whether the blob may be an image: not an attestation, which BuildKit puts beside images.
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

    /// Returns whether the blob may be the configuration of an image. Old tools gave it no media type of
    /// its own.
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

    /// Returns whether the blob may be a layer: not an encrypted one, nor part of another artifact.
    fn is_layer(&self) -> bool {
        let type_ = self.media_type.as_deref().unwrap_or_default();
        let known = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ];
        // The magic number of the blob decides over its compression, not the suffix.
        let plain = ["+gzip", "+zstd", ".gzip", ".zstd"]
            .iter()
            .find_map(|suffix| type_.strip_suffix(suffix))
            .unwrap_or(type_);
        known.contains(&plain)
    }
}

/// An index or a manifest.
#[derive(Debug, Deserialize)]
pub struct Document {
    #[serde(rename = "schemaVersion")]
    /// Version of the schema: 2, or absent.
    pub schema_version: Option<u64>,
    /// Manifests of an index.
    pub manifests: Option<Vec<Descriptor>>,
    /// Configuration of a manifest.
    pub config: Option<Descriptor>,
    /// Layers of a manifest, the lowest first.
    pub layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Parses an index or manifest of schema 2.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let document: Self = parse(bytes)?;
        match document.schema_version {
            Some(1) => Err(schema_1()),
            Some(2) | None => Ok(document),
            Some(version) => Err(Error::new(format!("unknown manifest schema {version}"))),
        }
    }

    /// Returns the configuration and the layers. Refuses other artifacts that are stored as images are.
    pub fn image(self) -> Result<(Descriptor, Vec<Descriptor>)> {
        let config = self.config.ok_or_else(|| Error::new("the manifest has no configuration"))?;
        let layers = self.layers.unwrap_or_default();
        if !config.is_config() {
            let type_ = config.media_type.as_deref().unwrap_or_default();
            return Err(Error::new(format!("not a container image, but {type_:.100}"))
                .with_hint("other artifacts, such as charts and signatures, cannot be run"));
        }
        if let Some((at, layer)) = layers.iter().enumerate().find(|(_, layer)| !layer.is_layer()) {
            let type_ = layer.media_type.as_deref().unwrap_or("none");
            return Err(Error::new(format!("unknown media type {type_:.100}")))
                .context(|| format!("cannot use layer {}", at + 1));
        }
        Ok((config, layers))
    }
}

/// An image configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// Processor, as `GOARCH`.
    pub architecture: Option<String>,
    /// Operating system, as `GOOS`.
    pub os: Option<String>,
    /// Variant of the processor.
    pub variant: Option<String>,
    /// Execution parameters.
    pub config: Option<Metadata>,
    /// Layers.
    pub rootfs: Option<RootFs>,
}

/// Layers in an image configuration.
#[derive(Debug, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, the lowest first.
    pub diff_ids: Vec<String>,
}

impl Config {
    /// Returns the platform that the image is made for, if it states one.
    pub fn platform(&self) -> Option<Platform> {
        let architecture = self.architecture.clone().filter(|text| !text.is_empty())?;
        let os = self.os.clone().filter(|text| !text.is_empty()).unwrap_or("linux".into());
        // Docker writes an empty variant where there is none.
        let variant = self.variant.clone().filter(|text| !text.is_empty());
        Some(Platform { architecture, os, variant })
    }

    /// Warns of an image for another processor, which can be imported but not run.
    pub fn warn_of_foreign(&self, platform: &TargetPlatform) {
        let architecture = self.architecture.as_deref().unwrap_or_default();
        if !architecture.is_empty() && architecture != platform.architecture {
            let text = format!("the image is made for {architecture:.20}, not for {platform}");
            log::warn("import", &text);
        }
    }
}

/// Returns the error for a manifest of Docker's schema 1.
#[cold]
#[must_use]
pub fn schema_1() -> Error {
    Error::new("the manifest is of Docker's schema 1, which was replaced in 2017")
        .with_hint("convert it with `skopeo copy --format v2s2`")
}
