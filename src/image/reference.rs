//! Names of images: `[server/][namespace/]image[:tag][@digest]`, by Docker's grammar
//! (<https://pkg.go.dev/github.com/distribution/reference>).
//!
//! What the grammar lets through holds no `..`, no blank and no leading slash or dot, so a name
//! that becomes a path never leaves its folder.

use std::fmt;
use std::str::FromStr;

use crate::error::{Context, Error, Result};

/// Docker Hub, as the registry API and the folders of repositories call it.
pub const DEFAULT_SERVER: &str = "index.docker.io";

/// Docker Hub, as people write it.
pub(crate) const HUB_ALIAS: &str = "docker.io";

/// What stands for the server of images that did not come from one.
pub const LOADED: &str = "load";

const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// How the tag of an image begins that was asked for by digest.
const DIGEST_TAG: &str = "sha256-";

/// The grammar's limits: the whole name without tag, and the tag.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// The name of an image, complete: what the user left out is filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The registry's host and port, or [`LOADED`].
    pub server: String,
    /// May hold slashes; empty if the server has images outside any namespace.
    pub namespace: String,
    /// The last part of the name.
    pub image: String,
    /// For an image asked for by digest, `sha256-<hex>`: what it is stored as.
    pub tag: String,
    /// `sha256:<hex>` of the manifest, where the user insists on one. It wins over any tag.
    pub digest: Option<String>,
}

impl Reference {
    /// The same image as made by `load`: its server is [`LOADED`].
    #[must_use]
    pub fn for_load(self) -> Self {
        let namespace = match self.namespace.is_empty() {
            true => DEFAULT_NAMESPACE.into(),
            false => self.namespace,
        };
        Self { server: LOADED.into(), namespace, ..self }
    }

    /// What tells this image from all others in a repository: `server/namespace/image/tag`. Also
    /// where its files are, and the name that `rmi` shows.
    #[must_use]
    pub fn unique_key(&self) -> String {
        let Self { server, namespace, image, tag, .. } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        format!("{server}/{namespace}{slash}{image}/{tag}")
    }
}

/// The column REPOSITORY of `sarus images`: with the tag, what a user must type.
#[must_use]
pub fn repository_label(server: &str, namespace: &str, image: &str) -> String {
    let parts: &[&str] = match (server, namespace) {
        (DEFAULT_SERVER | HUB_ALIAS, DEFAULT_NAMESPACE | "") => &[image],
        (DEFAULT_SERVER | HUB_ALIAS, _) => &[namespace, image],
        (_, "") => &[server, image],
        _ => &[server, namespace, image],
    };
    parts.join("/")
}

/// The tag as `sarus images` shows it: an image that was asked for by digest has none.
#[must_use]
pub fn tag_label(tag: &str) -> &str {
    if is_digest_tag(tag) { "<none>" } else { tag }
}

/// The name to give to `run` and `rmi`: both of the above, and the digest where that is the name.
#[must_use]
pub fn full_label(server: &str, namespace: &str, image: &str, tag: &str) -> String {
    let repository = repository_label(server, namespace, image);
    match tag.strip_prefix(DIGEST_TAG) {
        Some(hex) if is_digest_tag(tag) => format!("{repository}@sha256:{hex}"),
        _ => format!("{repository}:{tag}"),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, namespace, image, tag, digest } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{server}/{namespace}{slash}{image}")?;
        match digest {
            Some(digest) => write!(f, "@{digest}"),
            None => write!(f, ":{tag}"),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).context(|| format!("invalid image name '{text}'")).map_err(|error| {
            error.with_hint(match text.contains('<') {
                true => "'sarus images --quiet' shows the names of images without a tag",
                false => "images are named [server/][namespace/]image[:tag]",
            })
        })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let text = text.trim();
    // Pasted from a browser or from skopeo.
    let text = ["docker://", "https://"].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave out {scheme}://"));
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(check_digest(digest)?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the server's port.
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, check_tag(tag)?),
        _ => (text, DEFAULT_TAG),
    };
    if name.len() > MAX_NAME {
        return Err(format!("longer than {MAX_NAME} characters"));
    }
    let (server, path) = split_server(name)?;
    for part in path.split('/') {
        check_part(part)?;
    }
    let (namespace, image) = match path.rsplit_once('/') {
        Some(parts) => parts,
        None if server == DEFAULT_SERVER => (DEFAULT_NAMESPACE, path),
        None => ("", path),
    };
    Ok(Reference {
        server: server.into(),
        namespace: namespace.into(),
        image: image.into(),
        tag: digest.as_ref().map_or_else(|| tag.into(), |digest| digest.replace(':', "-")),
        digest,
    })
}

/// The first part of a name is a server if it cannot be a namespace.
fn split_server(name: &str) -> Result<(&str, &str), String> {
    match name.split_once('/') {
        // As `sarus images` shows loaded images: load/<namespace>/<image>.
        Some((LOADED, path)) if path.contains('/') => Ok((LOADED, path)),
        Some((server, path)) if server.contains(['.', ':']) || server == "localhost" => {
            check_server(server)?;
            Ok((if server == HUB_ALIAS { DEFAULT_SERVER } else { server }, path))
        }
        _ => Ok((DEFAULT_SERVER, name)),
    }
}

/// A host name or IPv4 address, maybe with a port.
fn check_server(server: &str) -> Result<(), String> {
    let (host, port) = match server.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (server, None),
    };
    let is_label = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_port = |port: &str| {
        port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match host.split('.').all(is_label) && port.is_none_or(is_port) {
        true => Ok(()),
        false => Err(format!("'{server}' is no server's name")),
    }
}

/// Lower-case letters and digits; between them one dot, one or two underscores, or hyphens.
fn check_part(part: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if part.is_empty() {
        return Err("a part of it is empty".into());
    }
    if part.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("'{part}' must be in lower case"));
    }
    if let Some(c) = part.chars().find(|c| !is_word(*c) && !matches!(c, '.' | '_' | '-')) {
        return Err(format!("{c:?} cannot stand in '{part}'"));
    }
    let mut separators = part.split(is_word).filter(|between| !between.is_empty());
    let joined =
        |between: &str| matches!(between, "." | "_" | "__") || between.trim_matches('-').is_empty();
    if !part.starts_with(is_word) || !part.ends_with(is_word) || !separators.all(joined) {
        return Err(format!("'{part}' must be words joined by '.', '_', '__' or '-'"));
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<&str, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if tag.is_empty() {
        return Err("the tag is empty".into());
    }
    if tag.len() > MAX_TAG {
        return Err(format!("the tag is longer than {MAX_TAG} characters"));
    }
    if !tag.starts_with(is_word) || !tag.chars().all(|c| is_word(c) || matches!(c, '.' | '-')) {
        return Err(format!("'{tag}' is no tag"));
    }
    // Else a registry could give away any image under such a tag as the one with that digest.
    if is_digest_tag(tag) {
        return Err(format!("write @{} to ask for a digest", tag.replacen('-', ":", 1)));
    }
    Ok(tag)
}

fn is_digest_tag(tag: &str) -> bool {
    tag.strip_prefix(DIGEST_TAG).is_some_and(is_sha256)
}

fn check_digest(digest: &str) -> Result<String, String> {
    match digest.split_once(':') {
        Some(("sha256", hex)) if is_sha256(hex) => Ok(digest.to_owned()),
        Some(("sha256", _)) => Err("a sha256 digest is 64 digits of 0-9 and a-f".into()),
        _ => Err(format!("'{digest}' is no digest: only sha256:<64 digits> is known")),
    }
}

fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

#[cfg(test)]
mod tests;
