//! Where images come from: a file, a directory or stdin, told by content and never by name; or a
//! registry.
//!
//! A source gives an [`SourceImage`]: what the image says of itself, verified, and its layers, opened but
//! not yet read. Start at [`open`], and for registries at [`remote::resolve`].

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

/// Longest manifest, index or configuration: registries refuse manifests above 4 MiB.
const MAX_JSON: u64 = 4 << 20;

/// An image whose description is verified, and whose layers are yet to be read.
#[derive(Debug)]
pub struct SourceImage {
    /// What a container needs of its configuration.
    pub metadata: Metadata,
    /// What identifies the image to users: of its configuration, or of its manifest when pulled.
    pub digest: Digest,
    /// The lowest first.
    pub layers: Vec<LayerBlob>,
}

/// What to take from a source that may hold several images.
#[derive(Debug, Clone)]
pub struct ImageSelector {
    /// `repository:tag`, as the user names the image.
    pub name: String,
    /// For which processor.
    pub platform: TargetPlatform,
}

/// Opens the image in `path`: a docker-archive (`docker save`), an OCI archive, plain or
/// compressed; `-` is one of them on stdin; or the directory of an OCI layout.
///
/// # Errors
/// When it is none of these, is damaged, or holds no image or several that fit `selector`.
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
        .with_hint(
            "`docker save` and `skopeo copy ... docker-archive:FILE` write what can be loaded",
        ))
    };
    image.context(context)
}

/// Joins what the configuration says with the layers that it speaks of; `layer` opens one by its
/// position and its `diff_id`.
fn assemble(
    config: &[u8],
    selector: &ImageSelector,
    count: usize,
    layer: impl Fn(usize, Digest) -> Result<LayerBlob>,
) -> Result<SourceImage> {
    let digest = Digest::of(config);
    let config: Config =
        manifest::parse(config).context(|| "cannot read its configuration".into())?;
    config.warn_of_foreign(&selector.platform);
    let diff_ids = config.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if diff_ids.len() != count {
        let described = diff_ids.len();
        return Err(Error::new(format!(
            "it has {count} layers, but its configuration describes {described}"
        )));
    }
    if count > MAX_LAYERS {
        return Err(Error::new(format!("it has {count} layers, more than {MAX_LAYERS}")));
    }
    let layers = diff_ids.iter().enumerate().map(|(at, diff_id)| {
        layer(at, Digest::parse(diff_id)?).context(|| format!("cannot open layer {}", at + 1))
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(SourceImage { metadata: config.config.unwrap_or_default(), digest, layers })
}

/// Whether two image names mean the same, when what Docker adds to short names is left out.
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

/// The error of a source with several images, which names them.
#[cold]
fn ambiguous(selector: &ImageSelector, names: impl Iterator<Item = String>) -> Error {
    /// More are not read by anyone, and a stranger wrote them.
    const SHOWN: usize = 50;
    let names: Vec<String> =
        names.take(SHOWN).map(|name| name.chars().take(200).collect()).collect();
    let (wanted, names) = (&selector.name, names.join(", "));
    Error::new(format!("it holds several images, and none is named {wanted}: {names}"))
        .with_hint("give the image the name of one of them")
}
