//! Paths of an image's files in a repository, which follow from its unique key.

use std::path::{Path, PathBuf};

/// Directory of the images in a repository.
pub(super) const IMAGES: &str = "images";

/// Names of one image's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePaths {
    /// `server/namespace/image/tag`, unique in a repository.
    pub key: String,
    /// The squashfs file.
    pub squashfs: PathBuf,
    /// [`crate::image::metadata::Metadata`] as JSON.
    pub metadata: PathBuf,
}

impl ImagePaths {
    /// Paths of the image `key` in the repository at `root`.
    pub(super) fn new(root: &Path, key: String) -> Self {
        let file = |suffix: &str| root.join(IMAGES).join(format!("{key}.{suffix}"));
        Self { squashfs: file("squashfs"), metadata: file("meta"), key }
    }

    /// Returns whether both files exist.
    pub(super) fn exist(&self) -> bool {
        self.squashfs.is_file() && self.metadata.is_file()
    }
}
