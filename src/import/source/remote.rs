//! An image in a registry: its manifest refers to a configuration and layers, which are yet to be
//! downloaded.

use super::{ImageSelector, SourceImage, TargetPlatform, assemble, oci};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, Document};
use crate::image::reference::Reference;
use crate::import::layer::{LayerBlob, MAX_LAYERS};
use crate::registry::Registry;

/// An image in a registry.
#[derive(Debug)]
pub struct RemoteImage {
    /// Digest of the manifest, which identifies the image.
    pub digest: Digest,
    /// Configuration.
    pub config: BlobDescriptor,
    /// Layers, the lowest first. A layer can occur several times.
    pub layers: Vec<BlobDescriptor>,
}

/// A descriptor with a valid digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobDescriptor {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// The media type says that the blob is an uncompressed tar.
    pub is_plain_tar: bool,
}

impl BlobDescriptor {
    fn parse(descriptor: &Descriptor) -> Result<Self> {
        let is_plain_tar =
            descriptor.media_type.as_deref().is_some_and(|kind| kind.ends_with("tar"));
        Ok(Self { digest: descriptor.digest()?, size: descriptor.size, is_plain_tar })
    }
}

/// Requests the manifest of `reference` for `platform`.
///
/// # Errors
/// The image does not exist, is for other platforms only, or is not a container image.
pub fn resolve(
    registry: &Registry,
    reference: &Reference,
    platform: &TargetPlatform,
) -> Result<RemoteImage> {
    let mut which =
        reference.digest.map_or_else(|| reference.tag.clone(), |digest| digest.to_string());
    for _ in 0..oci::MAX_NESTING {
        let sent = registry.manifest(&which)?;
        let context = || format!("cannot read manifest {}", sent.digest);
        let document = Document::parse(&sent.bytes).context(context)?;
        match &document.manifests {
            Some(manifests) => {
                let chosen = oci::for_platform(manifests, platform);
                let chosen = chosen.map_err(|error| error.with_hint(OTHER_PLATFORM))?;
                which = chosen.digest().context(context)?.to_string();
            }
            None => return from_manifest(sent.digest, document).context(context),
        }
    }
    Err(Error::new("image indexes are nested too deeply"))
}

const OTHER_PLATFORM: &str =
    "to pull an image for other nodes, use --platform os/architecture[/variant]";

fn from_manifest(digest: Digest, document: Document) -> Result<RemoteImage> {
    let (config, layers) = document.image()?;
    if layers.len() > MAX_LAYERS {
        let count = layers.len();
        return Err(Error::new(format!("the image has {count} layers, more than {MAX_LAYERS}")));
    }
    if config.size > super::MAX_JSON {
        return Err(Error::new(format!("the image configuration has {} bytes", config.size)));
    }
    let layers = layers.iter().map(BlobDescriptor::parse).collect::<Result<_>>()?;
    Ok(RemoteImage { digest, config: BlobDescriptor::parse(&config)?, layers })
}

impl RemoteImage {
    /// Combines the image with its configuration, whose digest is verified. `layer` opens a layer.
    ///
    /// # Errors
    /// The configuration is malformed, for another platform, or for other layers.
    pub fn image(
        &self,
        config: &[u8],
        platform: &TargetPlatform,
        layer: impl Fn(&BlobDescriptor) -> Result<LayerBlob>,
    ) -> Result<SourceImage> {
        let offered: manifest::Config =
            manifest::parse(config).context(|| "cannot read the image configuration".into())?;
        if let Some(offered) = offered.platform()
            && platform.fit(&offered).is_none()
        {
            let offered = offered.text();
            let error = Error::new(format!("the image is for {offered:.100}, not for {platform}"));
            return Err(error.with_hint(OTHER_PLATFORM));
        }
        let selector = ImageSelector { name: String::new(), platform: platform.clone() };
        let image = assemble(config, &selector, self.layers.len(), |at, _| {
            layer(self.layers.get(at).ok_or_else(|| Error::new("the manifest has no such layer"))?)
        })?;
        Ok(SourceImage { digest: self.digest, ..image })
    }
}

/// Returns whether `bytes` are the manifest of an image, for tests of parsers.
#[cfg(test)]
pub(crate) fn is_manifest(bytes: &[u8]) -> bool {
    Document::parse(bytes)
        .and_then(|document| from_manifest(Digest::sha256(bytes), document))
        .is_ok()
}
