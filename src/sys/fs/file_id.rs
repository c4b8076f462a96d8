//! Identity of files.

use crate::error::{Context, Error, Result};
use crate::sys::fs::resolve;
use rustix::fs::Stat;
use std::fmt;
use std::os::fd::AsFd;
use std::str::FromStr;

/// Identity of a file: device and inode number. Of a mounted directory, it tells the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Identity of an open file.
    ///
    /// # Errors
    /// If the file system does not answer.
    pub fn from_fd(file: impl AsFd) -> Result<Self> {
        let status = resolve::status(file).context(|| "cannot stat a file".into())?;
        Ok(Self::from_status(&status))
    }

    /// Identity of the file that `status` is of.
    #[must_use]
    pub fn from_status(status: &Stat) -> Self {
        Self { device: status.st_dev, inode: status.st_ino }
    }

    /// Identity by the numbers of a structure other than `stat`.
    #[must_use]
    pub fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl FromStr for FileId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once(':');
        let id = numbers.and_then(|(device, inode)| {
            Some(Self { device: device.parse().ok()?, inode: inode.parse().ok()? })
        });
        id.ok_or_else(|| Error::new(format!("invalid file identity '{text}'")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_as_it_was_written() {
        let id = FileId::from_fd(std::fs::File::open("/").unwrap()).unwrap();
        assert_eq!(id.to_string().parse::<FileId>().unwrap(), id);
        assert_eq!("7:9".parse::<FileId>().unwrap(), FileId::new(7, 9));
        for text in ["", "7", "7:", ":9", "7:9:1", "-7:9"] {
            assert!(text.parse::<FileId>().is_err(), "{text}");
        }
    }
}
