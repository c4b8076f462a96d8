//! Temporary files without a name, so that none is left behind.
//!
//! [`TempDir`] is the directory that `--temp-dir` or sarus.json names. A file in it lives until its
//! last descriptor is closed, also when the process is killed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::error::{Cause, Context, Error, Result};
use crate::import::blob::Blob;
use crate::sys::fs::space;

/// A directory for decompressed data.
#[derive(Debug, Clone)]
pub struct TempDir {
    directory: PathBuf,
}

impl TempDir {
    /// Uses `directory`, which must exist.
    ///
    /// # Errors
    /// `directory` cannot be examined, or is not a directory.
    pub fn new(directory: &Path) -> Result<Self> {
        let context = || format!("cannot use the temporary directory {}", directory.display());
        if !std::fs::metadata(directory).context(context)?.is_dir() {
            return Err(Error::new(format!("{}: not a directory", context())));
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Checks that the file system has `needed` bytes of free space, before any time is spent.
    ///
    /// # Errors
    /// There is less free space, or the directory cannot be examined.
    pub fn check_free_space(&self, needed: u64) -> Result<()> {
        match space::shortage(&self.directory, needed)? {
            Some(shortage) => Err(self.full(format!("at least {shortage}"))),
            None => Ok(()),
        }
    }

    /// Creates an empty file without a name.
    ///
    /// # Errors
    /// The caller may not create files in the directory, or its file system is full.
    pub fn create_file(&self) -> Result<TempFile<'_>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match rustix::fs::open(&self.directory, flags | OFlags::TMPFILE, mode) {
            Ok(file) => file.into(),
            // Lustre and NFS lack O_TMPFILE; to kernels before 3.11 it means O_DIRECTORY.
            Err(_) => self
                .create_and_unlink(flags, mode)
                .context(|| format!("cannot create a file in {}", self.directory.display()))?,
        };
        Ok(TempFile { temp_dir: self, file, length: 0 })
    }

    fn create_and_unlink(&self, flags: OFlags, mode: Mode) -> rustix::io::Result<File> {
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
    fn full(&self, cause: impl Cause) -> Error {
        let directory = self.directory.display();
        let context = format!("not enough space in the temporary directory {directory}");
        Error::caused_by(context, cause)
            .with_hint("use a directory with more free space, by --temp-dir=DIRECTORY")
    }
}

/// A temporary file without a name.
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
    /// The file system is full, a quota is exceeded, or the error of write(2).
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.temp_dir.full(error),
            _ => {
                let directory = self.temp_dir.path().display();
                Error::caused_by(
                    format!("cannot write to the temporary directory {directory}"),
                    error,
                )
            }
        })
    }

    /// Number of bytes appended.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the appended bytes for reading.
    ///
    /// # Errors
    /// The error of fstat(2).
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
        let named = temp_dir.create_and_unlink(flags, mode).unwrap();
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
