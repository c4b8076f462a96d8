//! The JSON documents of images (<https://github.com/opencontainers/image-spec>), OCI's and
//! Docker's alike, as far as they matter here.

use std::collections::BTreeMap;

use miniserde::{Deserialize, json};

use crate::digest::Digest;
use crate::error::{Because, Error, Result};
use crate::image::Metadata;
use crate::log;
use crate::registry;

/// Reads a document that was written by a machine.
pub fn parse<T: Deserialize>(bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::new("it is not UTF-8"))?;
    json::from_str(text).map_err(|_| Error::new("it is not the JSON that it should be"))
}

/// Points to a blob.
#[derive(Debug, Clone, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: Option<String>,
    pub digest: String,
    pub size: u64,
    pub platform: Option<PlatformOf>,
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
    }

    /// The name that tools give an image in a layout.
    pub fn name(&self) -> Option<&str> {
        let name = self.annotations.as_ref()?.get("org.opencontainers.image.ref.name")?;
        (!name.is_empty()).then_some(name)
    }

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
            Some(1) => Err(registry::schema_1()),
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
                .hint("artifacts such as charts and signatures cannot be run"));
        }
        if let Some((at, layer)) = layers.iter().enumerate().find(|(_, layer)| !layer.is_layer()) {
            let type_ = layer.media_type.as_deref().unwrap_or("none");
            return Err(Error::new(format!("unknown type {type_:.100}")))
                .because(|| format!("cannot use layer {}", at + 1));
        }
        Ok((config, layers))
    }
}

/// An image configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub architecture: Option<String>,
    pub os: Option<String>,
    pub variant: Option<String>,
    pub config: Option<Metadata>,
    pub rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
pub struct RootFs {
    pub diff_ids: Vec<String>,
}

impl Config {
    /// For what the image is made, if it tells.
    pub fn platform(&self) -> Option<PlatformOf> {
        let architecture = self.architecture.clone().filter(|text| !text.is_empty())?;
        let os = self.os.clone().filter(|text| !text.is_empty()).unwrap_or("linux".into());
        // Empty where there are none, in what Docker writes.
        let variant = self.variant.clone().filter(|text| !text.is_empty());
        Some(PlatformOf { architecture, os, variant })
    }

    /// An image for another processor loads, but will not run: say so now.
    pub fn warn_of_foreign(&self, platform: &Platform) {
        let architecture = self.architecture.as_deref().unwrap_or_default();
        if !architecture.is_empty() && architecture != platform.architecture {
            let text = format!("the image is made for {architecture:.20}, not for {platform}");
            log::warn("import", &text);
        }
    }
}

/// For what an image is made, as an index says it.
#[derive(Debug, Clone, Deserialize)]
pub struct PlatformOf {
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
}

impl PlatformOf {
    pub fn text(&self) -> String {
        let variant = self.variant.as_deref().map(|variant| format!("/{variant}"));
        format!("{}/{}{}", self.os, self.architecture, variant.unwrap_or_default())
    }
}

/// For what an image is wanted: `linux` and a processor, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    architecture: String,
    variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// What is meant where no variant is told.
fn usual_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "arm64" => Some("v8"),
        "arm" => Some("v7"),
        _ => None,
    }
}

impl Platform {
    /// The machine that this program was made for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "x86" => "386",
            other => other,
        };
        let variant = usual_variant(architecture).map(Into::into);
        Self { architecture: architecture.into(), variant }
    }

    /// Parses `linux/<architecture>[/<variant>]`.
    ///
    /// # Errors
    /// When `text` is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("linux"), Some(architecture), variant, None) if !architecture.is_empty() => {
                let variant = variant.or(usual_variant(architecture)).map(Into::into);
                Ok(Self { architecture: architecture.into(), variant })
            }
            _ => Err(Error::new("expected linux/<architecture>[/<variant>]"))
                .because(|| format!("cannot use the platform {text:?}")),
        }
    }

    /// How well an image fits, less being better; nothing if it does not. Variants of a processor
    /// grow, so that of those that run the highest is best; one that is not told always runs.
    pub(super) fn fit(&self, offered: &PlatformOf) -> Option<u32> {
        if offered.os != "linux" || offered.architecture != self.architecture {
            return None;
        }
        let number = |variant: &Option<String>| {
            variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse::<u32>().ok())
        };
        // The first x86-64 level is what is meant when none is told.
        let lowest = u32::from(self.architecture == "amd64");
        let wanted = number(&self.variant).unwrap_or(lowest);
        match &offered.variant {
            variant if *variant == self.variant => Some(0),
            None => Some(if self.variant.is_none() { 0 } else { 100 }),
            variant => wanted.checked_sub(number(variant)?),
        }
    }
}
