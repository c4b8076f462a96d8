//! An image on its way into a repository.
//!
//! It is written beside the images, in `images/.partial`, and shows only when it is complete.
//! Whatever ends the import before leaves nothing: an error drops the [`ImageWriter`], and what a
//! killed process left is removed by the next import.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::index::Index;
use super::lease::Lease;
use super::lock::Lock;
use super::process_id::{ProcessId, is_abandoned};
use super::{Image, Repository};
use crate::bytes;
use crate::error::{Context, Result};
use crate::image::digest::Digest;
use crate::image::metadata::Metadata;
use crate::image::reference::Reference;
use crate::site::json;
use crate::sys::clock;

/// How the names of locks of images end.
pub(super) const LOCK: &str = "lock";

/// Temporary files whose owner cannot be asked are removed when nobody wrote to them for so long.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A file that is removed when dropped, unless it was given its name.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// A new file in `directory`, whose name is told apart by `~` and its owner.
    fn new(directory: &Path, name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{name}-{count}~{}", ProcessId::current()));
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

    /// What shows under a name must be on the disk.
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
        // After a rename there is nothing left of that name.
        fs::remove_file(&self.path).ok();
    }
}

/// An image that is being written; nobody sees it before [`ImageWriter::commit`].
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

    /// Repository that the image is added to.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where the squashfs goes.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.image.file
    }

    /// Puts the image under its name, in place of an older one; containers that run from that
    /// one keep it. `digest` is what `sarus images` shows.
    ///
    /// # Errors
    /// When the disk is full or the like. The repository is then as before.
    pub fn commit(self, metadata: &Metadata, digest: Digest) -> Result<Image> {
        let Self { repository, reference, image: file } = self;
        let what = || format!("cannot add {reference} to {}", repository.root.display());
        let image = describe(&repository, reference.clone(), &file.file, digest).context(what)?;
        file.sync().context(what)?;
        let meta = json::write(metadata);
        // What cannot be read again is not written.
        super::parse_metadata(&meta).context(|| "its metadata".into()).context(what)?;
        let meta = Temporary::with(&repository.partial(), "meta", &meta).context(what)?;

        let lock = Lock::take(&repository.root).context(what)?;
        let mut index = Index::read(&repository.root).context(what)?;
        index.retain(&repository.root, |other| {
            other.paths.key != image.paths.key && other.paths.exist()
        });
        index.push(&image);
        // All that takes space is on the disk before anything shows: three renames remain.
        let index = write(&repository, &index).context(what)?;
        if let Some(directory) = image.paths.squashfs.parent() {
            let made = fs::create_dir_all(directory);
            made.context(|| format!("cannot create {}", directory.display())).context(what)?;
        }
        file.rename(&image.paths.squashfs).context(what)?;
        meta.rename(&image.paths.metadata).context(what)?;
        index.rename(&Index::path(&repository.root)).context(what)?;
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

/// Writes `index` to the disk, under no name yet.
fn write(repository: &Repository, index: &Index) -> Result<Temporary> {
    Temporary::with(&repository.root, "metadata.json", &index.text()?)
}

/// Replaces the index, by a writer who has the lock.
pub(super) fn replace(repository: &Repository, index: &Index) -> Result<()> {
    write(repository, index)?.rename(&Index::path(&repository.root))
}

/// Removes what killed processes left. Failing to do so is no reason not to import.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((_, owner)) = name.to_str().and_then(|name| name.split_once('~')) else {
            continue;
        };
        let Some(owner) = ProcessId::parse(owner) else { continue };
        if is_abandoned(&entry.path(), Some(&owner), PATIENCE) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// Removes the locks of images whose pull was killed: whoever gets one removes it by giving it up.
fn sweep_locks(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|suffix| suffix == LOCK) {
            Lease::try_acquire(&entry.path()).ok();
        }
    }
}
