//! Image references: `[server/][namespace/]image[:tag][@digest]`, in Docker's grammar
//! (<https://pkg.go.dev/github.com/distribution/reference>).
//!
//! The grammar allows no `..`, no blank and no leading slash or dot, so a path made from a reference
//! stays below its directory.

use std::fmt;
use std::str::FromStr;

use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;

/// Docker Hub in the registry API and in the directories of repositories.
pub const DEFAULT_SERVER: &str = "index.docker.io";

/// Docker Hub as users write it.
pub(crate) const HUB_ALIAS: &str = "docker.io";

/// Server name of images that `sarus load` imported from a file.
pub const LOADED: &str = "load";

const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// Prefix of the tag under which an image is stored that was requested by digest.
const DIGEST_TAG: &str = "sha256-";

/// Limits of the grammar, in characters: the name without tag, and the tag.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A complete image reference: the parts that the user left out are filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port of the registry, or [`LOADED`].
    pub server: String,
    /// Namespace, which may hold slashes; empty if the registry keeps the image outside any.
    pub namespace: String,
    /// Last part of the name.
    pub image: String,
    /// Tag; `sha256-<hex>` for an image requested by digest.
    pub tag: String,
    /// Digest of the manifest, if the user requests one. Takes precedence over any tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Builds a reference from the parts that an index records.
    #[must_use]
    pub fn from_parts(server: String, namespace: String, image: String, tag: String) -> Self {
        let digest = digest_in_tag(&tag);
        Self { server, namespace, image, tag, digest }
    }

    /// Converts it to the name that `sarus load` gives the image: the server is [`LOADED`].
    #[must_use]
    pub fn for_load(self) -> Self {
        let namespace =
            if self.namespace.is_empty() { DEFAULT_NAMESPACE.into() } else { self.namespace };
        Self { server: LOADED.into(), namespace, ..self }
    }

    /// Name of the repository within its registry: `namespace/image`.
    #[must_use]
    pub fn repository(&self) -> String {
        let Self { namespace, image, .. } = self;
        if namespace.is_empty() { image.clone() } else { format!("{namespace}/{image}") }
    }

    /// Unique name in a local repository, `server/namespace/image/tag`: the path of the image's files,
    /// and the name that `rmi` prints.
    #[must_use]
    pub fn unique_key(&self) -> String {
        format!("{}/{}/{}", self.server, self.repository(), self.tag)
    }

    /// Content of the column REPOSITORY of `sarus images`.
    #[must_use]
    pub fn repository_label(&self) -> String {
        let Self { server, namespace, image, .. } = self;
        match (server.as_str(), namespace.as_str()) {
            (DEFAULT_SERVER | HUB_ALIAS, DEFAULT_NAMESPACE) => image.clone(),
            (DEFAULT_SERVER | HUB_ALIAS, _) => self.repository(),
            _ => format!("{server}/{}", self.repository()),
        }
    }

    /// Content of the column TAG of `sarus images`: `<none>` for an image requested by digest.
    #[must_use]
    pub fn tag_label(&self) -> &str {
        if self.digest.is_some() { "<none>" } else { &self.tag }
    }

    /// Name to pass to `run` and `rmi`: repository and tag, or repository and digest.
    #[must_use]
    pub fn full_label(&self) -> String {
        let repository = self.repository_label();
        match &self.digest {
            Some(digest) => format!("{repository}@{digest}"),
            None => format!("{repository}:{}", self.tag),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.repository())?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => write!(f, ":{}", self.tag),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).context(|| format!("invalid image name '{text}'")).map_err(|error| {
            error.with_hint(if text.contains('<') {
                "'sarus images --quiet' shows the names of images without a tag"
            } else {
                "images are named [server/][namespace/]image[:tag]"
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
        Some((text, digest)) => (text, Some(parse_digest(digest)?)),
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
        tag: digest.map_or_else(|| tag.into(), |digest| format!("{DIGEST_TAG}{}", digest.hex())),
        digest,
    })
}

/// Splits the server off a name: the first part is a server if it cannot be a namespace.
fn split_server(name: &str) -> Result<(&str, &str), String> {
    match name.split_once('/') {
        // Loaded images, as `sarus images` shows them: load/<namespace>/<image>.
        Some((LOADED, path)) if path.contains('/') => Ok((LOADED, path)),
        Some((server, path)) if server.contains(['.', ':']) || server == "localhost" => {
            check_server(server)?;
            Ok((if server == HUB_ALIAS { DEFAULT_SERVER } else { server }, path))
        }
        _ => Ok((DEFAULT_SERVER, name)),
    }
}

/// Accepts a host name or IPv4 address, and an optional port.
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
    if host.split('.').all(is_label) && port.is_none_or(is_port) {
        return Ok(());
    }
    Err(format!("invalid registry host '{server}'"))
}

/// Accepts lower-case letters and digits, separated by a dot, one or two underscores, or hyphens.
fn check_part(part: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if part.is_empty() {
        return Err("a part of the name is empty".into());
    }
    if part.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("'{part}' must be in lower case"));
    }
    if let Some(c) = part.chars().find(|c| !is_word(*c) && !matches!(c, '.' | '_' | '-')) {
        return Err(format!("invalid character {c:?} in '{part}'"));
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
        return Err(format!("invalid tag '{tag}'"));
    }
    // Otherwise a registry could serve any image under such a tag as the one with that digest.
    if digest_in_tag(tag).is_some() {
        return Err(format!("write @{} to ask for a digest", tag.replacen('-', ":", 1)));
    }
    Ok(tag)
}

/// Digest that a stored image was requested by, which its tag records.
fn digest_in_tag(tag: &str) -> Option<Digest> {
    tag.strip_prefix(DIGEST_TAG).and_then(Digest::from_hex)
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    let digest = text.strip_prefix("sha256:").and_then(Digest::from_hex);
    digest.ok_or_else(|| {
        format!("invalid digest '{text}': expected sha256: and 64 lower-case hexadecimal digits")
    })
}

#[cfg(test)]
mod tests;
