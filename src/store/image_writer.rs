//! Addition of an image to a repository.
//!
//! The image is written to `images/.partial`, and renamed when it is complete. An import that fails
//! leaves nothing: an error drops the [`ImageWriter`], and the next import removes the files of a killed
//! process.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::index::Index;
use super::lease::Lease;
use super::lock::Lock;
use super::process_identity::{ProcessIdentity, is_abandoned};
use super::{Image, Repository};
use crate::bytes;
use crate::error::{Context, Result};
use crate::image::digest::Digest;
use crate::image::metadata::Metadata;
use crate::image::reference::Reference;
use crate::site::json;
use crate::sys::clock;

/// Extension of the lock files of images.
pub(super) const LOCK: &str = "lock";

/// Age at which a temporary file is removed whose owner cannot be checked.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A temporary file, removed when dropped unless it was renamed.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Creates a file in `directory`. Its name ends with `~` and the owner.
    fn new(directory: &Path, name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{name}-{count}~{}", ProcessIdentity::current()));
        let mut how = fs::OpenOptions::new();
        let file = how.read(true).write(true).create_new(true).mode(0o644).open(&path);
        let file = file.context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, file })
    }

    fn with(directory: &Path, name: &str, text: &str) -> Result<Self> {
        let mut new = Self::new(directory, name)?;
        let written = new.file.write_all(text.as_bytes());
        written.context(|| format!("cannot write {}", new.path.display()))?;
        new.sync()?;
        Ok(new)
    }

    /// Makes the data durable before the rename publishes it.
    fn sync(&self) -> Result<()> {
        self.file.sync_all().context(|| format!("cannot write {}", self.path.display()))
    }

    fn rename(self, to: &Path) -> Result<()> {
        let from = self.path.display();
        fs::rename(&self.path, to).context(|| format!("cannot rename {from} to {}", to.display()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails after a rename: the file has another name.
        fs::remove_file(&self.path).ok();
    }
}

/// An image that is being written. It is invisible until [`ImageWriter::commit`].
#[derive(Debug)]
pub struct ImageWriter {
    repository: Repository,
    reference: Reference,
    image: Temporary,
}

impl ImageWriter {
    pub(super) fn create(repository: &Repository, reference: &Reference) -> Result<Self> {
        let partial = repository.partial();
        fs::create_dir_all(&partial).context(|| format!("cannot create {}", partial.display()))?;
        sweep(&partial);
        sweep_locks(&partial);
        sweep(&repository.root);
        let image = Temporary::new(&partial, "image")?;
        Ok(Self { repository: repository.clone(), reference: reference.clone(), image })
    }

    /// Returns the repository that the image is added to.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the file for the squashfs image.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.image.file
    }

    /// Publishes the image under its name, and replaces an older one, which running containers keep.
    /// `digest` identifies the image.
    ///
    /// # Errors
    /// A file cannot be written or renamed. The repository is then unchanged.
    pub fn commit(self, metadata: &Metadata, digest: Digest) -> Result<Image> {
        let Self { repository, reference, image: file } = self;
        let context = || format!("cannot add {reference} to {}", repository.root.display());
        let image =
            describe(&repository, reference.clone(), &file.file, digest).context(context)?;
        file.sync().context(context)?;
        let meta = json::write(metadata);
        // Metadata that could not be read again is not written.
        super::parse_metadata(&meta)
            .context(|| "the metadata of the image".into())
            .context(context)?;
        let meta = Temporary::with(&repository.partial(), "meta", &meta).context(context)?;

        let lock = Lock::take(&repository.root).context(context)?;
        let mut index = Index::read(&repository.root).context(context)?;
        index.retain(&repository.root, |other| {
            other.paths.key != image.paths.key && other.paths.exist()
        });
        index.push(&image);
        // All data is durable before anything is visible: three renames remain.
        let index = write(&repository, &index).context(context)?;
        if let Some(directory) = image.paths.squashfs.parent() {
            let made = fs::create_dir_all(directory);
            made.context(|| format!("cannot create {}", directory.display())).context(context)?;
        }
        file.rename(&image.paths.squashfs).context(context)?;
        meta.rename(&image.paths.metadata).context(context)?;
        index.rename(&Index::path(&repository.root)).context(context)?;
        drop(lock);
        Ok(image)
    }
}

fn describe(
    repository: &Repository,
    reference: Reference,
    file: &File,
    digest: Digest,
) -> Result<Image> {
    let size = file.metadata().context(|| "cannot stat the image".into())?.len();
    Ok(Image {
        paths: repository.paths(&reference),
        reference,
        digest: Some(digest),
        id: digest.hex(),
        size: bytes::format_size(size),
        created: clock::local_time(),
    })
}

/// Writes `index` to a temporary file.
fn write(repository: &Repository, index: &Index) -> Result<Temporary> {
    Temporary::with(&repository.root, "metadata.json", &index.text()?)
}

/// Replaces the index. The caller has the lock.
pub(super) fn replace(repository: &Repository, index: &Index) -> Result<()> {
    write(repository, index)?.rename(&Index::path(&repository.root))
}

/// Removes temporary files of killed processes. Errors are ignored: they do not prevent an import.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((_, owner)) = name.to_str().and_then(|name| name.split_once('~')) else {
            continue;
        };
        let Some(owner) = ProcessIdentity::parse(owner) else { continue };
        if is_abandoned(&entry.path(), Some(&owner), MAX_AGE) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// Removes the lock files of killed pulls: a lease that can be acquired removes its file when dropped.
fn sweep_locks(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|suffix| suffix == LOCK) {
            Lease::try_acquire(&entry.path()).ok();
        }
    }
}
