//! Index of the images of a repository, `metadata.json`, in the format of the C++ engine (1.x):
//! `{"images": [{"uniqueKey": "server/namespace/image/tag", ...}]}`, all values strings.
//!
//! Unknown keys survive a rewrite.

use std::path::{Component, Path, PathBuf};

use miniserde::json::{self, Array, Object, Value};

use super::{Image, ImagePaths};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::site::json::bounds::{self, Limits};

/// Maximum size in bytes; enough for ten thousand images.
const MAX_SIZE: u64 = 8 << 20;

/// Limits of the JSON document. An image takes 11 values, so this is enough for eight thousand. The
/// user controls the file and root parses it: within these limits it takes at most 90 MB of memory.
const LIMITS: Limits = Limits { depth: 8, values: 90_000 };

const MOVE_AWAY: &str = "move it away and import the images again";

/// Content of a `metadata.json`.
#[derive(Debug, Default)]
pub struct Index {
    document: Object,
}

impl Index {
    /// Returns the path of the index of the repository `root`.
    #[must_use]
    pub fn path(root: &Path) -> PathBuf {
        root.join("metadata.json")
    }

    /// Reads the index of the repository `root`; without one, the repository is empty.
    ///
    /// # Errors
    /// The file cannot be read, or is malformed.
    pub fn read(root: &Path) -> Result<Self> {
        let path = Self::path(root);
        let context = || format!("cannot read {}", path.display());
        match super::read(&path, MAX_SIZE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            text => Self::parse(&text.context(context)?).context(context),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        bounds::check(text, LIMITS).map_err(|error| error.with_hint(MOVE_AWAY))?;
        let document: Option<Object> = json::from_str(text).ok();
        document
            .map(|document| Self { document })
            .ok_or_else(|| Error::new("not a JSON object").with_hint(MOVE_AWAY))
    }

    /// Renders the index in one line.
    ///
    /// # Errors
    /// The index exceeds the limits for reading it.
    pub fn text(&self) -> Result<String> {
        let text = json::to_string(&self.document);
        match bounds::check(&text, LIMITS) {
            Ok(()) if text.len() as u64 <= MAX_SIZE => Ok(text),
            _ => Err(Error::new("the repository has too many images")
                .with_hint("remove some with 'sarus rmi'")),
        }
    }

    /// Lists the images in `root`, the oldest import first, whether their files exist or not.
    pub fn images<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = Image> + 'a {
        let entries = match self.document.get("images") {
            Some(Value::Array(entries)) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter_map(|entry| image(root, entry))
    }

    /// Removes the images for which `keep` is false, and malformed entries.
    pub fn retain(&mut self, root: &Path, keep: impl Fn(&Image) -> bool) {
        if let Some(Value::Array(entries)) = self.document.get_mut("images") {
            entries.retain(|entry| image(root, entry).is_some_and(|image| keep(&image)));
        }
    }

    /// Appends `image`.
    pub fn push(&mut self, image: &Image) {
        let mut entry = Object::new();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        for (key, value) in [
            ("uniqueKey", image.key()),
            ("server", &image.reference.server),
            ("namespace", &image.reference.namespace),
            ("image", &image.reference.image),
            ("tag", &image.reference.tag),
            ("digest", &image.id),
            ("imagePath", &path(&image.paths.squashfs)),
            ("metadataPath", &path(&image.paths.metadata)),
            ("datasize", &image.size),
            ("created", &image.created),
        ] {
            entry.insert(key.to_owned(), Value::String(value.to_owned()));
        }
        let images = self.document.entry("images".to_owned());
        let images = images.or_insert_with(|| Value::Array(Array::new()));
        match images {
            Value::Array(entries) => entries.push(Value::Object(entry)),
            other => *other = Value::Array([Value::Object(entry)].into_iter().collect()),
        }
    }
}

fn image(root: &Path, entry: &Value) -> Option<Image> {
    let Value::Object(entry) = entry else { return None };
    let text = |key: &str| match entry.get(key) {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let key = text("uniqueKey");
    let is_below_root =
        Path::new(&key).components().all(|part| matches!(part, Component::Normal(_)));
    if key.is_empty() || !is_below_root {
        return None;
    }
    let [server, namespace, image, tag] = ["server", "namespace", "image", "tag"].map(text);
    // Releases 1.5 to 1.7 leave the digest empty and record these instead. `id` is the digest of the
    // configuration, which identifies no manifest.
    let digests = ["digest", "registryDigest"].map(text);
    let digest = digests.iter().find_map(|digest| parse_digest(digest));
    let [digest_text, registry_digest] = digests;
    let ids = [digest_text, registry_digest, text("id")];
    let id = ids.into_iter().find(|id| !id.is_empty()).unwrap_or_default();
    Some(Image {
        reference: Reference::from_parts(server, namespace, image, tag),
        digest,
        id: id.trim_start_matches("sha256:").to_owned(),
        size: text("datasize"),
        created: text("created"),
        // Not the recorded paths: a node may see the repository under another path.
        paths: ImagePaths::new(root, key),
    })
}

/// Digest in the form of this engine, without `sha256:`, or in that of releases 1.5 to 1.7.
fn parse_digest(text: &str) -> Option<Digest> {
    Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn read(entry: &str) -> Image {
        let text = format!(r#"{{"images":[{{"uniqueKey":"s/n/i/t"{entry}}}]}}"#);
        let index = Index::parse(&text).unwrap();
        index.images(Path::new("/r")).next().unwrap()
    }

    #[test]
    fn an_image_without_a_whole_digest_is_the_same_as_no_other() {
        let digest = Digest::from_hex(HEX).unwrap();
        let short = &HEX[52..];
        for entry in [
            String::new(),
            r#","digest":"""#.into(),
            format!(r#","digest":"{short}""#),
            format!(r#","digest":"","id":"{HEX}""#),
        ] {
            let image = read(&entry);
            assert_eq!(image.digest, None, "{entry}");
            assert!(!image.has_digest(&digest), "{entry}");
        }
        assert_eq!(read(&format!(r#","digest":"{short}""#)).id, short);
        for entry in [
            format!(r#","digest":"{HEX}""#),
            format!(r#","digest":"","registryDigest":"sha256:{HEX}""#),
        ] {
            let image = read(&entry);
            assert!(image.has_digest(&digest), "{entry}");
            assert!(!image.has_digest(&Digest::sha256(b"")));
            assert_eq!(image.id, HEX);
        }
    }
}
