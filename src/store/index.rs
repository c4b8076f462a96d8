//! The list of a repository's images, `metadata.json`, in the format of the engines of before:
//! `{"images": [{"uniqueKey": "server/namespace/image/tag", ...}]}`, all values strings.
//!
//! What is not known here survives a rewrite.

use std::path::{Component, Path, PathBuf};

use miniserde::json::{self, Array, Object, Value};

use super::{Image, ImagePaths};
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::site::json::bounds::{self, Limits};

/// Bytes of an index of more than ten thousand images.
const MAX_SIZE: u64 = 8 << 20;

/// An image takes 11 values: enough for eight thousand. The index is its user's, and root parses it:
/// no other content of this size may take more than 90 MB of memory.
const LIMITS: Limits = Limits { depth: 8, values: 90_000 };

const ADVICE: &str = "move it away and import the images again";

/// The content of a `metadata.json`.
#[derive(Debug, Default)]
pub struct Index {
    document: Object,
}

impl Index {
    /// Where a repository has it.
    #[must_use]
    pub fn path(root: &Path) -> PathBuf {
        root.join("metadata.json")
    }

    /// Reads the index of the repository `root`; without one, the repository is empty.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(root: &Path) -> Result<Self> {
        let path = Self::path(root);
        let what = || format!("cannot read {}", path.display());
        match super::read(&path, MAX_SIZE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            text => Self::parse(&text.context(what)?).context(what),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        bounds::check(text, LIMITS).map_err(|error| error.with_hint(ADVICE))?;
        let document: Option<Object> = json::from_str(text).ok();
        document
            .map(|document| Self { document })
            .ok_or_else(|| Error::new("not a JSON object").with_hint(ADVICE))
    }

    /// The index as it is written, in one line.
    ///
    /// # Errors
    /// If it could not be read again because it holds too much.
    pub fn text(&self) -> Result<String> {
        let text = json::to_string(&self.document);
        match bounds::check(&text, LIMITS) {
            Ok(()) if text.len() as u64 <= MAX_SIZE => Ok(text),
            _ => Err(Error::new("the repository has too many images")
                .with_hint("remove some with 'sarus rmi'")),
        }
    }

    /// The images in `root`, oldest import first, whether their files are there or not.
    pub fn images<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = Image> + 'a {
        let entries = match self.document.get("images") {
            Some(Value::Array(entries)) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().filter_map(|entry| image(root, entry))
    }

    /// Keeps the images that `keep` wants; entries that are no images go.
    pub fn retain(&mut self, root: &Path, keep: impl Fn(&Image) -> bool) {
        if let Some(Value::Array(entries)) = self.document.get_mut("images") {
            entries.retain(|entry| image(root, entry).is_some_and(|image| keep(&image)));
        }
    }

    /// Adds `image` as the last one.
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
