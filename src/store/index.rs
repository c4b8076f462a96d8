//! The list of a repository's images, `metadata.json`, in the format of the C++ engine (1.x):
//! `{"images": [{"uniqueKey": "server/namespace/image/tag", ...}]}`, all values strings.
//!
//! What is not known here survives a rewrite.

use std::path::{Component, Path, PathBuf};

use miniserde::json::{self, Array, Object, Value};

use super::Image;
use crate::error::{Context, Error, Result};
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
            ("uniqueKey", image.key.clone()),
            ("server", image.server.clone()),
            ("namespace", image.namespace.clone()),
            ("image", image.image.clone()),
            ("tag", image.tag.clone()),
            ("digest", image.digest.clone()),
            ("imagePath", path(&image.image_path)),
            ("metadataPath", path(&image.metadata_path)),
            ("datasize", image.size.clone()),
            ("created", image.created.clone()),
        ] {
            entry.insert(key.to_owned(), Value::String(value));
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
    let tame = Path::new(&key).components().all(|part| matches!(part, Component::Normal(_)));
    if key.is_empty() || !tame {
        return None;
    }
    // Releases 1.5 to 1.7 leave the digest empty and have these instead.
    let digests = ["digest", "registryDigest", "id"].map(text);
    let digest = digests.into_iter().find(|digest| !digest.is_empty()).unwrap_or_default();
    // Not by the recorded paths: a repository may be seen under another path on another node.
    let file = |suffix: &str| root.join("images").join(format!("{key}{suffix}"));
    Some(Image {
        image_path: file(".squashfs"),
        metadata_path: file(".meta"),
        server: text("server"),
        namespace: text("namespace"),
        image: text("image"),
        tag: text("tag"),
        digest: digest.trim_start_matches("sha256:").to_owned(),
        size: text("datasize"),
        created: text("created"),
        key,
    })
}
