//! The sole right to make something that others may want too, such as a blob or an image.
//!
//! One process has it; the others wait, and use what it made or, if it died, go on where it
//! stopped. The right is an flock(2) of the file that is being made, or of one in its place: it ends
//! with the process, whatever ends that. Where a file system has no flock, a symbolic link beside
//! the file tells its owner.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::owner::{Owner, is_abandoned};
use crate::error::{Because, Result};

/// How often who waits looks again.
const INTERVAL: Duration = Duration::from_millis(50);

/// Who cannot be asked whether it lives, and has not written for so long, is taken for dead.
const PATIENCE: Duration = Duration::from_secs(120);

/// The right to make the file at a path, until dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
    /// Only where flock is not supported.
    link: Option<PathBuf>,
}

impl Claim {
    /// Waits for the right to make `path`, which is created empty if it is not there. `waiting` is
    /// told how long it has been, again and again, and may end it.
    ///
    /// # Errors
    /// When the file cannot be created or locked; what `waiting` says.
    pub fn take(path: &Path, mut waiting: impl FnMut(Duration) -> Result<()>) -> Result<Self> {
        let since = Instant::now();
        loop {
            if let Some(claim) = Self::try_take(path)? {
                return Ok(claim);
            }
            waiting(since.elapsed())?;
            sleep(INTERVAL);
        }
    }

    /// The right to make `path`, if nobody has it now.
    ///
    /// # Errors
    /// As of [`Claim::take`].
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let about = || format!("cannot lock {}", path.display());
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false).mode(0o644);
        let file = how.custom_flags(libc::O_NOFOLLOW).open(path).because(about)?;
        let link = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => None,
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK) => match own(path).because(about)? {
                Some(link) => Some(link),
                None => return Ok(None),
            },
            Err(errno) => return Err(errno).because(about),
        };
        let claim = Self { path: path.to_owned(), file, link };
        // Who had it before may have renamed or removed the file that we have locked.
        Ok(claim.is_current().then_some(claim))
    }

    fn is_current(&self) -> bool {
        let here = self.file.metadata().map(|status| (status.dev(), status.ino()));
        let there = fs::symlink_metadata(&self.path).map(|status| (status.dev(), status.ino()));
        matches!((here, there), (Ok(here), Ok(there)) if here == there)
    }

    /// The file that is being made.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, and gives up the right.
    pub fn remove(self) {
        fs::remove_file(&self.path).ok();
    }

    fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|status| status.len() == 0)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file that was only there to be locked. Nobody else touches it while we have it.
        if self.is_empty() && self.is_current() {
            fs::remove_file(&self.path).ok();
        }
        if let Some(link) = &self.link {
            fs::remove_file(link).ok();
        }
    }
}

/// Makes the link that stands for a lock of `path`, if there is none, or only that of a dead
/// process. Whoever writes to `path` shows that it lives.
fn own(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut link = path.as_os_str().to_owned();
    link.push(".lock");
    let link = PathBuf::from(link);
    match symlink(Owner::me().to_string(), &link) {
        Ok(()) => return Ok(Some(link)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let owner = fs::read_link(&link).ok();
    let owner = owner.as_deref().and_then(Path::to_str).and_then(Owner::parse);
    if is_abandoned(&link, owner.as_ref(), PATIENCE) && is_abandoned(path, owner.as_ref(), PATIENCE)
    {
        // The next try makes it anew, and only one of all that try succeeds.
        fs::remove_file(&link).ok();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn one_has_it_and_the_next_gets_it() {
        let scratch = Scratch::new("claim");
        let path = scratch.path().join("blob");
        let first = Claim::take(&path, |_| panic!("nobody has it")).unwrap();
        assert!(Claim::try_take(&path).unwrap().is_none());
        std::thread::scope(|scope| {
            let mut waited = 0;
            let second = scope.spawn(move || {
                let count = |_| {
                    waited += 1;
                    Ok(())
                };
                let claim = Claim::take(&path, count).unwrap();
                assert!(waited > 0);
                claim
            });
            sleep(3 * INTERVAL);
            // What was made took another name: the second makes another.
            fs::rename(scratch.path().join("blob"), scratch.path().join("made")).unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert!(second.is_empty() && scratch.path().join("blob").exists());
        });
        assert!(!scratch.path().join("blob").exists());
        assert!(scratch.path().join("made").exists());
    }

    #[test]
    fn a_link_serves_where_there_is_no_flock() {
        let scratch = Scratch::new("claim-link");
        let path = scratch.path().join("blob");
        fs::write(&path, "").unwrap();
        let link = own(&path).unwrap().unwrap();
        assert!(own(&path).unwrap().is_none());
        fs::remove_file(&link).unwrap();
        let dead = Owner::me().to_string() + "0"; // another start time
        symlink(dead, &link).unwrap();
        assert!(own(&path).unwrap().is_none());
        assert!(own(&path).unwrap().is_some());
    }
}
