//! Cache of blobs as registries sent them: `cache/sha256:<hex>.tar`, compressed or not.
//!
//! A blob gets this name when it is complete and verified; an incomplete one has the suffix `.part`.
//! Other processes may change it later, so every use of a blob verifies it again.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Repository;
use super::lease::Lease;
use crate::error::{Context, Error, Result};
use crate::image::digest::Digest;
use crate::log;
use crate::sys::fs::{lockfile, space};

/// Directory of the blobs.
#[derive(Debug, Clone)]
pub struct BlobCache {
    directory: PathBuf,
}

/// State of a blob in the cache.
#[derive(Debug)]
pub enum CacheEntry {
    /// The complete blob, not verified.
    Complete(File),
    /// A part or nothing of it, and the lease to add the rest.
    Partial(PartialBlob),
}

/// An incomplete blob, leased by this process.
#[derive(Debug)]
pub struct PartialBlob {
    lease: Lease,
    to: PathBuf,
}

impl BlobCache {
    pub(super) fn new(repository: &Repository) -> Self {
        Self { directory: repository.root.join("cache") }
    }

    /// Creates the directory if it does not exist.
    ///
    /// # Errors
    /// Errors of mkdir(2).
    pub fn create(&self) -> Result<()> {
        let made = fs::create_dir_all(&self.directory);
        made.context(|| format!("cannot create {}", self.directory.display()))
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of a complete blob.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{digest}.tar"))
    }

    /// Returns how many of the `size` bytes of a blob are missing, by the size of its file.
    #[must_use]
    pub fn missing(&self, digest: &Digest, size: u64) -> u64 {
        let length = |path: PathBuf| fs::metadata(path).map_or(0, |status| status.len());
        let path = self.path(digest);
        if length(path.clone()) == size {
            return 0;
        }
        size.saturating_sub(length(partial_path(&path)))
    }

    /// Returns the blob, or the lease to download it. Waits, and calls `waiting`, while another process
    /// has the lease.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn entry(
        &self,
        digest: &Digest,
        waiting: impl FnMut(Duration) -> Result<()>,
    ) -> Result<CacheEntry> {
        let path = self.path(digest);
        if let Some(file) = open(&path)? {
            return Ok(CacheEntry::Complete(file));
        }
        let lease = Lease::acquire(&partial_path(&path), waiting)?;
        // Another process may have completed it meanwhile.
        match open(&path)? {
            Some(file) => Ok(CacheEntry::Complete(file)),
            None => Ok(CacheEntry::Partial(PartialBlob { lease, to: path })),
        }
    }

    /// Removes a blob whose digest is not its name.
    ///
    /// # Errors
    /// Errors of unlink(2).
    pub fn discard(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        log::warn("pull", &format!("discarding {}: wrong digest", path.display()));
        fs::remove_file(&path).context(|| format!("cannot remove {}", path.display()))
    }

    /// Checks that the file system has room for `needed` bytes more.
    ///
    /// # Errors
    /// There is not enough space.
    pub fn check_space(&self, needed: u64) -> Result<()> {
        let shortage = space::shortage(&self.directory, needed)?;
        shortage.map_or(Ok(()), |shortage| Err(self.full(&shortage)))
    }

    fn full(&self, cause: &str) -> Error {
        let directory = self.directory.display();
        Error::new(format!("not enough space in the cache directory {directory}: {cause}"))
            .with_hint(format!(
                "remove unneeded files from {directory}, or images with 'sarus rmi'"
            ))
    }

    /// Writes `bytes` at `position` of an incomplete blob.
    ///
    /// # Errors
    /// Errors of pwrite(2).
    pub fn write(&self, partial: &PartialBlob, bytes: &[u8], position: u64) -> Result<()> {
        partial.file().write_all_at(bytes, position).map_err(|error| match error.kind() {
            ErrorKind::StorageFull => self.full("no space left on device"),
            ErrorKind::QuotaExceeded => self.full("disk quota exceeded"),
            _ => Error::caused_by(format!("cannot write to {}", self.directory.display()), error),
        })
    }

    /// Removes the least recently used blobs until they take at most `limit` bytes. Leased blobs stay.
    /// Errors are ignored.
    pub fn trim(&self, limit: u64) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut blobs = Vec::new();
        for entry in entries.flatten() {
            let Ok(status) = entry.metadata() else { continue };
            let is_blob = entry.file_name().to_string_lossy().starts_with("sha256:");
            if is_blob && status.is_file() {
                let used = status.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                blobs.push((used, status.len(), entry.path()));
            }
        }
        blobs.sort();
        let mut total: u64 = blobs.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in blobs {
            if total <= limit {
                break;
            }
            let is_partial = path.extension().is_some_and(|suffix| suffix == "part");
            let removed = if is_partial {
                Lease::try_acquire(&path).ok().flatten().map(Lease::remove).is_some()
            } else {
                fs::remove_file(&path).is_ok()
            };
            if removed {
                log::info("pull", || format!("removed {} from the cache", path.display()));
                total = total.saturating_sub(size);
            }
        }
    }
}

/// Returns the path of an incomplete blob that will be renamed to `path`.
fn partial_path(path: &Path) -> PathBuf {
    let mut partial = path.to_owned().into_os_string();
    partial.push(".part");
    partial.into()
}

/// Opens the blob at `path`, if it exists, and marks it as used now.
fn open(path: &Path) -> Result<Option<File>> {
    let context = || format!("cannot open {}", path.display());
    match crate::sys::fs::resolve::regular_file(path) {
        Ok(file) => {
            let file = File::from(file);
            file.set_modified(SystemTime::now()).ok();
            Ok(Some(file))
        }
        Err(error) => match fs::symlink_metadata(path) {
            Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(None),
            _ => Err(error).context(context),
        },
    }
}

impl PartialBlob {
    /// Returns the file, which [`BlobCache::write`] writes to.
    #[must_use]
    pub fn file(&self) -> &File {
        self.lease.file()
    }

    /// Truncates the blob to `length` bytes.
    ///
    /// # Errors
    /// Errors of ftruncate(2).
    pub fn truncate(&self, length: u64) -> Result<()> {
        self.file().set_len(length).context(|| format!("cannot truncate {}", self.to.display()))
    }

    /// Renames the blob, which is complete and verified, to its final name.
    ///
    /// # Errors
    /// Errors of rename(2).
    pub fn publish(self) -> Result<()> {
        let context = || format!("cannot rename a blob to {}", self.to.display());
        let from = self.lease.path();
        // Readable only from here on: it stays locked until the rename, and is not a lock afterwards.
        lockfile::publish(self.lease.file(), self.to.parent().unwrap_or(Path::new(".")));
        fs::rename(from, &self.to).context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    fn cache(scratch: &Scratch) -> BlobCache {
        let cache = BlobCache { directory: scratch.path().join("cache") };
        cache.create().unwrap();
        cache
    }

    fn put(cache: &BlobCache, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let CacheEntry::Partial(partial) = cache.entry(&digest, |_| Ok(())).unwrap() else {
            panic!()
        };
        cache.write(&partial, bytes, 0).unwrap();
        partial.publish().unwrap();
        digest
    }

    #[test]
    fn what_was_received_is_found_again() {
        let scratch = Scratch::new("cache");
        let cache = cache(&scratch);
        let digest = put(&cache, b"blob");
        assert_eq!((cache.missing(&digest, 4), cache.missing(&digest, 5)), (0, 5));
        assert!(matches!(cache.entry(&digest, |_| Ok(())).unwrap(), CacheEntry::Complete(_)));
        cache.discard(&digest).unwrap();
        let CacheEntry::Partial(partial) = cache.entry(&digest, |_| Ok(())).unwrap() else {
            panic!()
        };
        assert_eq!(partial.file().metadata().unwrap().len(), 0);
        cache.write(&partial, b"bl", 0).unwrap();
        assert_eq!(cache.missing(&digest, 4), 2);
        assert!(cache.check_space(u64::MAX).unwrap_err().to_string().contains("cache directory"));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let scratch = Scratch::new("trim");
        let cache = cache(&scratch);
        let digests = [&b"aaaa"[..], b"bbbb", b"cccc"].map(|bytes| put(&cache, bytes));
        let past = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        for (digest, age) in digests.iter().zip([30, 20, 10]) {
            File::open(cache.path(digest)).unwrap().set_modified(past(age)).unwrap();
        }
        // Using the oldest makes it the newest.
        assert!(matches!(cache.entry(&digests[0], |_| Ok(())).unwrap(), CacheEntry::Complete(_)));
        let CacheEntry::Partial(_held) = cache.entry(&Digest::sha256(b"held"), |_| Ok(())).unwrap()
        else {
            panic!()
        };
        cache.trim(9);
        assert_eq!(digests.map(|digest| cache.missing(&digest, 4)), [0, 4, 0]);
        cache.trim(0);
        assert_eq!(fs::read_dir(cache.directory()).unwrap().count(), 1); // what is held
    }
}
