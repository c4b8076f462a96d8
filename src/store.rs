//! Repositories of images: one of each user, and one shared by all users of the site.
//!
//! ```text
//! metadata.json                                     the index of images
//! images/<server>/<namespace>/<image>/<tag>.squashfs  and <tag>.meta beside it
//! images/.partial/                                  incomplete images and their locks
//! cache/sha256:<hex>.tar                            blobs from registries, as received
//! ```
//!
//! Files appear by rename and never change afterwards; the index is renamed last, so readers need no
//! lock. All code here runs with the user's rights.

mod blob_cache;
mod image_paths;
mod image_writer;
mod index;
mod lease;
mod listing;
pub mod lock;
mod process_identity;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::image::metadata::Metadata;
use crate::image::reference::{DEFAULT_SERVER, HUB_ALIAS, Reference};
use crate::site::config::Config;
use crate::site::json::bounds::{self, Limits};
use crate::site::passwd;
use crate::sys::fs::read::{read_at_most, read_text_at_most};
use crate::user::User;
use index::Index;
use lock::Lock;

pub use blob_cache::{BlobCache, CacheEntry, PartialBlob};
pub use image_paths::ImagePaths;
pub use image_writer::ImageWriter;
pub use lease::Lease;
pub use listing::{json, names, table};

/// An image in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Name of the image; the server is `load` if it came from a file.
    pub reference: Reference,
    /// Digest of the image, if the index records a whole one.
    pub digest: Option<Digest>,
    /// Identifier for users: the digest without `sha256:`, or what another engine recorded in place of
    /// it.
    pub id: String,
    /// Size of the squashfs file for users, as the index records it: `2.61MB`.
    pub size: String,
    /// Local time of the import, `YYYY-MM-DDTHH:MM:SS`.
    pub created: String,
    /// Names of its files.
    pub paths: ImagePaths,
}

impl Image {
    /// Returns whether it is known to be the image `digest`: false for an image without a digest.
    #[must_use]
    pub fn has_digest(&self, digest: &Digest) -> bool {
        self.digest.as_ref() == Some(digest)
    }

    /// Unique name in the repository, `server/namespace/image/tag`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.paths.key
    }
}

/// A directory of images.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Opens the repository that a command works on.
    ///
    /// # Errors
    /// Errors of [`Repository::local`] and [`Repository::centralized`].
    pub fn open(config: &Config, user: &User, centralized: bool) -> Result<Self> {
        if centralized { Self::centralized(config) } else { Self::local(config, user) }
    }

    /// Opens the repository of `user`.
    ///
    /// # Errors
    /// The user is not in the passwd file of the installation.
    pub fn local(config: &Config, user: &User) -> Result<Self> {
        let uid = user.uid.as_raw();
        let path = config.prefix_dir.join("etc/passwd");
        let path = path.display();
        let context = || format!("cannot find the images of uid {uid}");
        let bytes = std::fs::File::open(path.to_string())
            .and_then(|file| read_at_most(file, passwd::MAX_SIZE))
            .context(|| format!("cannot read {path}"))
            .context(context)?;
        // Comment fields of old files are not in UTF-8.
        let text = String::from_utf8_lossy(&bytes);
        let Some(name) = passwd::user_name(&text, user.uid) else {
            return Err(Error::new(format!("{path} does not have this user"))
                .with_hint("ask the administrator to run configure_installation.sh --users"))
            .context(context);
        };
        Ok(Self { root: config.local_repository_base_dir.join(name).join(".sarus") })
    }

    /// Opens the repository that all users share.
    ///
    /// # Errors
    /// The site has none.
    pub fn centralized(config: &Config) -> Result<Self> {
        let root = config.centralized_repository_dir.clone();
        root.map(|root| Self { root }).ok_or_else(|| {
            Error::new("this site has no centralized repository")
                .with_hint("the administrator can set centralizedRepositoryDir in sarus.json")
        })
    }

    /// Returns the directory of the repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of the images.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.root.join(image_paths::IMAGES)
    }

    /// Returns the paths of the image `reference`, whether they exist or not.
    #[must_use]
    pub fn paths(&self, reference: &Reference) -> ImagePaths {
        ImagePaths::new(&self.root, reference.unique_key())
    }

    /// Returns the cache of blobs from registries.
    #[must_use]
    pub fn cache(&self) -> BlobCache {
        BlobCache::new(self)
    }

    /// Acquires the lease for the image `reference`. Calls `waiting` with the time waited so far while
    /// another process has the lease: the image may exist afterwards.
    ///
    /// # Errors
    /// The repository is not writable.
    pub fn lease(
        &self,
        reference: &Reference,
        waiting: impl FnMut(Duration) -> Result<()>,
    ) -> Result<Lease> {
        let partial = self.partial();
        std::fs::create_dir_all(&partial)
            .context(|| format!("cannot create {}", partial.display()))?;
        // Names of images may be longer than NAME_MAX.
        let name = Digest::sha256(reference.unique_key().as_bytes()).hex();
        Lease::acquire(&partial.join(name).with_extension(image_writer::LOCK), waiting)
    }

    fn partial(&self) -> PathBuf {
        self.images_dir().join(".partial")
    }

    /// Lists all images, the oldest import first.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let index = Index::read(&self.root)?;
        Ok(index.images(&self.root).filter(|image| image.paths.exist()).collect())
    }

    /// Finds the image `reference`.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>> {
        let index = Index::read(&self.root)?;
        Ok(select(&index, &self.root, reference).filter(|image| image.paths.exist()))
    }

    /// Reads the metadata of `image`.
    ///
    /// # Errors
    /// The file cannot be read, or is malformed.
    pub fn metadata(&self, image: &Image) -> Result<Metadata> {
        let path = image.paths.metadata.display();
        let text = read(&image.paths.metadata, MAX_METADATA);
        let text = text.context(|| format!("cannot read {path}"))?;
        parse_metadata(&text)
            .map_err(|error| error.with_hint(format!("remove {} and import it again", image.key())))
            .context(|| format!("cannot read {path}"))
    }

    /// Starts to add or replace the image `reference`.
    ///
    /// # Errors
    /// The repository is not writable.
    pub fn image_writer(&self, reference: &Reference) -> Result<ImageWriter> {
        ImageWriter::create(self, reference).context(|| format!("cannot add {reference}"))
    }

    /// Removes the image `reference`, and returns it. Running containers keep it.
    ///
    /// # Errors
    /// The image does not exist, or cannot be removed.
    pub fn remove(&self, reference: &Reference) -> Result<Image> {
        let context = || format!("cannot remove {reference}");
        // An entry suffices: files of the image may be missing.
        let index = Index::read(&self.root).context(context)?;
        if select(&index, &self.root, reference).is_none() {
            // Before the lock is taken, which would create a repository that does not exist.
            return Err(no_such_image(self)).context(context);
        }
        let _lock = Lock::take(&self.root).context(context)?;
        let mut index = Index::read(&self.root).context(context)?;
        let image = select(&index, &self.root, reference);
        let image = image.ok_or_else(|| no_such_image(self)).context(context)?;
        index.retain(&self.root, |other| other.paths.key != image.paths.key && other.paths.exist());
        image_writer::replace(self, &index).context(context)?;
        for file in [&image.paths.squashfs, &image.paths.metadata] {
            remove_file(file).context(context)?;
        }
        // Removes directories that are empty now; rmdir(2) fails for the others.
        let folders = image.paths.squashfs.ancestors().skip(1);
        for folder in folders.take_while(|folder| *folder != self.images_dir()) {
            std::fs::remove_dir(folder).ok();
        }
        Ok(image)
    }
}

/// Maximum size of a `.meta` file in bytes: that of the image configuration that it is a part of.
const MAX_METADATA: u64 = 4 << 20;

/// Limits of a `.meta` file. Each variable, argument and label is a value: far more than execve(2)
/// allows.
const METADATA_LIMITS: Limits = Limits { depth: 8, values: 20_000 };

fn parse_metadata(text: &str) -> Result<Metadata> {
    bounds::check(text, METADATA_LIMITS)?;
    miniserde::json::from_str(text).map_err(|_| Error::new("malformed image metadata"))
}

/// Reads a regular file of at most `max` bytes. The user may have put a pipe or a device in its place,
/// which must not block.
fn read(path: &Path, max: u64) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind};
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    read_text_at_most(file, max)
}

fn no_such_image(repository: &Repository) -> Error {
    Error::new(format!("no such image in {}", repository.root.display()))
        .with_hint("'sarus images' lists the names to use")
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.context(|| format!("cannot remove {}", path.display())),
    }
}

/// Finds the entry of `reference`. Releases 1.5 to 1.7 record Docker Hub as `docker.io`.
fn select(index: &Index, root: &Path, reference: &Reference) -> Option<Image> {
    let key = reference.unique_key();
    let alias = key.strip_prefix(DEFAULT_SERVER).map(|rest| format!("{HUB_ALIAS}{rest}"));
    let named = |wanted: &str| index.images(root).find(|image| image.key() == wanted);
    named(&key).or_else(|| alias.as_deref().and_then(named))
}

#[cfg(test)]
mod tests;
