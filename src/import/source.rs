//! Sources of images: a file, a directory or stdin, whose format is detected by its content and not
//! by its name; or a registry.
//!
//! A source gives a [`SourceImage`]: a verified configuration, and layers that are open but not yet
//! read. Start at [`open`], and for registries at [`remote::resolve`].

mod docker;
mod files;
mod oci;
pub mod remote;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::path::Path;

use crate::cli::progress::Progress;
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Config};
use crate::image::metadata::Metadata;
use crate::image::platform::TargetPlatform;
use crate::import::layer::{LayerBlob, MAX_LAYERS};
use crate::import::temp::TempDir;
use files::Files;

/// Maximum size in bytes of a manifest, an index or a configuration: registries refuse manifests above
/// 4 MiB.
const MAX_JSON: u64 = 4 << 20;

/// An image with a verified configuration, and layers that are yet to be read.
#[derive(Debug)]
pub struct SourceImage {
    /// Configuration of containers of the image.
    pub metadata: Metadata,
    /// Digest that identifies the image: of its manifest if it is pulled, else of its configuration.
    pub digest: Digest,
    /// Layers, the lowest first.
    pub layers: Vec<LayerBlob>,
}

/// Selects one image of a source with several.
#[derive(Debug, Clone)]
pub struct ImageSelector {
    /// Name of the image, `repository:tag`, as the user gives it.
    pub name: String,
    /// Platform of the nodes that will run the image.
    pub platform: TargetPlatform,
}

/// Opens the image in `path`: a docker-archive (`docker save`) or an OCI archive, plain or compressed,
/// which `-` reads from stdin; or the directory of an OCI layout.
///
/// # Errors
/// `path` is none of these, is damaged, or holds no image or several that match `selector`.
pub fn open(
    path: &OsStr,
    selector: &ImageSelector,
    temp_dir: &TempDir,
    progress: Progress,
) -> Result<SourceImage> {
    let name = if path == "-" { "stdin".into() } else { Path::new(path).display().to_string() };
    let context = || format!("cannot load {name}");
    let files = Files::open(path, temp_dir, progress).context(context)?;
    let image = if files.find("manifest.json").context(context)?.is_some() {
        docker::image(&files, selector)
    } else if files.find("index.json").context(context)?.is_some() {
        oci::image(&files, selector)
    } else {
        Err(Error::new(
            "neither a docker-archive nor an OCI layout: no manifest.json, no index.json",
        )
        .with_hint("create an archive by `docker save` or `skopeo copy ... docker-archive:FILE`"))
    };
    image.context(context)
}

/// Combines a configuration with its `count` layers. `layer` opens one, by its index and `diff_id`.
fn assemble(
    config: &[u8],
    selector: &ImageSelector,
    count: usize,
    layer: impl Fn(usize, Digest) -> Result<LayerBlob>,
) -> Result<SourceImage> {
    let digest = Digest::sha256(config);
    let config: Config =
        manifest::parse(config).context(|| "cannot read the image configuration".into())?;
    config.warn_of_foreign(&selector.platform);
    let diff_ids = config.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if diff_ids.len() != count {
        let described = diff_ids.len();
        return Err(Error::new(format!(
            "the image has {count} layers, but its configuration lists {described}"
        )));
    }
    if count > MAX_LAYERS {
        return Err(Error::new(format!("the image has {count} layers, more than {MAX_LAYERS}")));
    }
    let layers = diff_ids.iter().enumerate().map(|(at, diff_id)| {
        layer(at, Digest::parse(diff_id)?).context(|| format!("cannot open layer {}", at + 1))
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(SourceImage { metadata: config.config.unwrap_or_default(), digest, layers })
}

/// Returns whether two image names are equal without the server and namespace that Docker adds to
/// short names.
fn same_name(left: &str, right: &str) -> bool {
    fn short(name: &str) -> (&str, &str) {
        let name = ["index.docker.io/", "docker.io/"]
            .iter()
            .find_map(|server| name.strip_prefix(server))
            .unwrap_or(name);
        let name = name.strip_prefix("library/").unwrap_or(name);
        match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name, "latest"),
        }
    }
    short(left) == short(right)
}

/// The error for a source with several images, none of which is selected.
#[cold]
fn ambiguous(selector: &ImageSelector, names: impl Iterator<Item = String>) -> Error {
    /// Maximum number of names in the message: they come from the image.
    const SHOWN: usize = 50;
    let names: Vec<String> =
        names.take(SHOWN).map(|name| name.chars().take(200).collect()).collect();
    let (wanted, names) = (&selector.name, names.join(", "));
    Error::new(format!("several images, none of them named {wanted}: {names}"))
        .with_hint("use one of these names for the image")
}
