//! Temporary space that nobody has to clean up: files without a name.
//!
//! [`TempDir`] is the directory that `--temp-dir` or sarus.json names. A file of it lives until its
//! last descriptor is closed, also when the process is killed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::import::blob::Blob;

/// Where inflated data goes.
#[derive(Debug, Clone)]
pub struct TempDir {
    directory: PathBuf,
}

impl TempDir {
    /// Uses `directory`, which must exist.
    ///
    /// # Errors
    /// When it is not a directory.
    pub fn new(directory: &Path) -> Result<Self> {
        let context = || format!("cannot use the temporary directory {}", directory.display());
        if !std::fs::metadata(directory).context(context)?.is_dir() {
            return Err(Error::new(format!("{}: not a directory", context())));
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// The directory's path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Fails if less than `needed` bytes are free now, before any time is spent.
    ///
    /// # Errors
    /// Names the directory, and the option that chooses another.
    pub fn check_free_space(&self, needed: u64) -> Result<()> {
        let state = rustix::fs::statvfs(&self.directory)
            .context(|| format!("cannot examine {}", self.directory.display()))?;
        let free = state.f_bavail.saturating_mul(state.f_frsize);
        if needed <= free {
            return Ok(());
        }
        let mebi = |bytes: u64| bytes.div_ceil(1 << 20);
        let (needed, free) = (mebi(needed), mebi(free));
        Err(self.full(&format!("at least {needed} MiB are needed, {free} MiB are free")))
    }

    /// An empty file without a name.
    ///
    /// # Errors
    /// When the directory does not let the caller create files.
    pub fn create_file(&self) -> Result<TempFile<'_>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match rustix::fs::open(&self.directory, flags | OFlags::TMPFILE, mode) {
            Ok(file) => file.into(),
            // Lustre and NFS lack O_TMPFILE; kernels before 3.11 take it for O_DIRECTORY.
            Err(_) => self
                .created_and_removed(flags, mode)
                .context(|| format!("cannot create a file in {}", self.directory.display()))?,
        };
        Ok(TempFile { temp_dir: self, file, length: 0 })
    }

    fn created_and_removed(&self, flags: OFlags, mode: Mode) -> rustix::io::Result<File> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        loop {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let name = format!(".sarus-{}-{serial}", std::process::id());
            let path = self.directory.join(name);
            match rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    rustix::fs::unlink(&path)?;
                    return Ok(file.into());
                }
            }
        }
    }

    #[cold]
    fn full(&self, cause: &str) -> Error {
        let directory = self.directory.display();
        Error::new(format!("not enough space in the temporary directory {directory}: {cause}"))
            .with_hint("name a directory with more space by --temp-dir")
    }
}

/// A file without a name that is being filled.
#[derive(Debug)]
pub struct TempFile<'a> {
    temp_dir: &'a TempDir,
    file: File,
    length: u64,
}

impl TempFile<'_> {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// When the directory's file system is full or fails.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.temp_dir.full("it is full")
            }
            _ => Error::new(format!(
                "cannot write to the temporary directory {}: {error}",
                self.temp_dir.path().display()
            )),
        })
    }

    /// How many bytes were appended.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What was appended, for reading.
    ///
    /// # Errors
    /// When the file cannot be examined.
    pub fn into_blob(self) -> Result<Blob> {
        Blob::from_file(self.file).context(|| "cannot examine a temporary file".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_no_name_behind() {
        let directory = std::env::temp_dir().join(format!("sarus-temp-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let temp_dir = TempDir::new(&directory).unwrap();
        let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        let named = temp_dir.created_and_removed(flags, mode).unwrap();
        let mut temp_file = temp_dir.create_file().unwrap();
        temp_file.append(b"some").unwrap();
        temp_file.append(b"thing").unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        assert_eq!(temp_file.into_blob().unwrap().bytes(9).unwrap(), b"something");
        drop(named);
        let error = temp_dir.check_free_space(u64::MAX).unwrap_err();
        assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
        assert!(error.hint().unwrap().contains("--temp-dir"));
        std::fs::remove_dir(&directory).unwrap();
        assert!(TempDir::new(&directory).is_err());
    }
}
