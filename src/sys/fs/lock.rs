//! Locks of directories among processes: flock(2) on the file `.lock`, which stays.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::lockfile;
use crate::error::{Context, Error, Result};
use crate::log;

/// Time limit of a process that waits for a lock.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Interval between two messages of a process that waits.
const NOTICE: Duration = Duration::from_secs(10);

/// Interval between two attempts to take a lock.
const INTERVAL: Duration = Duration::from_millis(20);

/// Locks `directory` until the file that is returned is closed; `None` where the file system has no
/// flock(2).
///
/// # Errors
/// If the directory is read-only, or another process holds the lock too long.
pub fn exclusive(directory: &Path) -> Result<Option<File>> {
    Turn::new(directory).flock().context(|| format!("cannot lock {}", directory.display()))
}

/// A process that waits for the locks of a directory.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The directory.
    pub directory: &'a Path,
    since: Instant,
    notices: u32,
}

impl<'a> Turn<'a> {
    /// Begins to wait now.
    #[must_use]
    pub fn new(directory: &'a Path) -> Self {
        Self { directory, since: Instant::now(), notices: 0 }
    }

    /// Waits for flock(2) on `.lock`; `None` where the file system has none.
    ///
    /// # Errors
    /// If the directory is read-only, or another process holds the lock too long.
    pub fn flock(&mut self) -> Result<Option<File>> {
        let path = self.directory.join(".lock");
        let file = open(&path).context(|| format!("cannot open {}", path.display()))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(Errno::WOULDBLOCK | Errno::INTR) => self.wait()?,
                Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK) => return Ok(None),
                Err(errno) => return Err(errno).context(|| "flock".into()),
            }
        }
    }

    /// Waits for one interval, with a message now and then.
    ///
    /// # Errors
    /// If the time limit is over.
    pub fn wait(&mut self) -> Result<()> {
        let waited = self.since.elapsed();
        if waited >= TIMEOUT {
            let seconds = TIMEOUT.as_secs();
            return Err(Error::new(format!("held by another process for {seconds} s")));
        }
        if waited >= NOTICE * (self.notices + 1) {
            self.notices += 1;
            let directory = self.directory.display();
            log::warn("lock", &format!("waiting for another process to release {directory}"));
        }
        sleep(INTERVAL);
        Ok(())
    }

    /// Turns the clock back.
    #[cfg(test)]
    pub(crate) fn has_waited(mut self, time: Duration) -> Self {
        self.since -= time;
        self
    }
}

/// Opens the lock file `path`. That of another administrator may be open to this one for reading only.
fn open(path: &Path) -> std::io::Result<File> {
    match lockfile::open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            lockfile::open_foreign(path).map_err(|_| error)
        }
        opened => opened.map(|lock| lock.file),
    }
}
