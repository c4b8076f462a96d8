//! An image in a registry: its manifest leads to a configuration and layers, which are yet to be
//! fetched.

use super::{ImageSelector, SourceImage, TargetPlatform, assemble, oci};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, Document};
use crate::image::reference::Reference;
use crate::import::layer::{LayerBlob, MAX_LAYERS};
use crate::registry::Registry;

/// What an image in a registry consists of.
#[derive(Debug)]
pub struct RemoteImage {
    /// Of the manifest: what identifies the image.
    pub digest: Digest,
    /// The image's configuration.
    pub config: BlobDescriptor,
    /// The lowest first; one may be there several times.
    pub layers: Vec<BlobDescriptor>,
}

/// A blob of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobDescriptor {
    /// What it must be.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether it says that it is a tar as it is.
    pub is_plain_tar: bool,
}

impl BlobDescriptor {
    fn parse(descriptor: &Descriptor) -> Result<Self> {
        let is_plain_tar =
            descriptor.media_type.as_deref().is_some_and(|kind| kind.ends_with("tar"));
        Ok(Self { digest: descriptor.digest()?, size: descriptor.size, is_plain_tar })
    }
}

/// Asks the registry what `reference` is, for `platform`.
///
/// # Errors
/// When there is no such image, it is for other platforms only, or it is no image at all.
pub fn resolve(
    registry: &Registry,
    reference: &Reference,
    platform: &TargetPlatform,
) -> Result<RemoteImage> {
    let mut which = reference.digest.clone().unwrap_or_else(|| reference.tag.clone());
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
            None => return described(sent.digest, document).context(context),
        }
    }
    Err(Error::new("its indexes are nested too deeply"))
}

const OTHER_PLATFORM: &str = "--platform os/architecture[/variant] pulls an image for other nodes";

fn described(digest: Digest, document: Document) -> Result<RemoteImage> {
    let (config, layers) = document.image()?;
    if layers.len() > MAX_LAYERS {
        let count = layers.len();
        return Err(Error::new(format!("it has {count} layers, more than {MAX_LAYERS}")));
    }
    if config.size > super::MAX_JSON {
        return Err(Error::new(format!("its configuration has {} bytes", config.size)));
    }
    let layers = layers.iter().map(BlobDescriptor::parse).collect::<Result<_>>()?;
    Ok(RemoteImage { digest, config: BlobDescriptor::parse(&config)?, layers })
}

impl RemoteImage {
    /// The image, given the bytes of its configuration, which were verified, and a way to get at
    /// each layer.
    ///
    /// # Errors
    /// When the configuration is no such, is for another platform, or has other layers.
    pub fn image(
        &self,
        config: &[u8],
        platform: &TargetPlatform,
        layer: impl Fn(&BlobDescriptor) -> Result<LayerBlob>,
    ) -> Result<SourceImage> {
        let offered: manifest::Config =
            manifest::parse(config).context(|| "cannot read its configuration".into())?;
        if let Some(offered) = offered.platform()
            && platform.fit(&offered).is_none()
        {
            let offered = offered.text();
            let error =
                Error::new(format!("it is an image for {offered:.100}, not for {platform}"));
            return Err(error.with_hint(OTHER_PLATFORM));
        }
        let selector = ImageSelector { name: String::new(), platform: platform.clone() };
        let image = assemble(config, &selector, self.layers.len(), |at, _| {
            layer(self.layers.get(at).ok_or_else(|| Error::new("it is missing"))?)
        })?;
        Ok(SourceImage { digest: self.digest, ..image })
    }
}

/// Whether `bytes` describe an image, for tests of readers.
#[cfg(test)]
pub(crate) fn is_manifest(bytes: &[u8]) -> bool {
    Document::parse(bytes).and_then(|document| described(Digest::of(bytes), document)).is_ok()
}
