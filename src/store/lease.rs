//! Inter-process lease: one process produces a blob or an image, the others wait for the result.
//!
//! If the process dies, the next one continues where it stopped. The lease is an flock(2) on the file
//! that is produced, or on a lock file in its place: the kernel releases it with the process. Where a
//! file system has no flock, a symbolic link beside the file names the owner ([`Link`]).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::lock::{remove_abandoned, remove_own};
use super::process_identity::ProcessIdentity;
use crate::error::{Context, Result};
use crate::sys::fs::FileId;
use crate::sys::fs::lockfile::{self, LockFile};

/// Intervals of the tries: longer after a while, since thousands of processes may wait.
const INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// The lease for the file at a path, held until dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: File,
    /// Set only where flock(2) is not supported.
    _link: Option<Link>,
}

impl Lease {
    /// Waits for the lease of `path`, which is created empty if it does not exist. `waiting` is called
    /// before each further try with the time waited so far, and ends the wait by an error.
    ///
    /// # Errors
    /// The file cannot be created or locked; errors of `waiting`.
    pub fn acquire(path: &Path, mut waiting: impl FnMut(Duration) -> Result<()>) -> Result<Self> {
        let since = Instant::now();
        loop {
            if let Some(lease) = Self::try_acquire(path)? {
                return Ok(lease);
            }
            let waited = since.elapsed();
            waiting(waited)?;
            sleep((waited / 10).clamp(INTERVAL, MAX_INTERVAL));
        }
    }

    /// Takes the lease of `path`, or returns `None` if another process has it.
    ///
    /// # Errors
    /// The file cannot be created or locked.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let context = || format!("cannot lock {}", path.display());
        let LockFile { file, exposed } = match lockfile::open(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return wait_for_other_user(path).context(context);
            }
            opened => opened.context(context)?,
        };
        let link = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => None,
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                // Any user may hold the lock of such a file: the next try creates another.
                if exposed {
                    fs::remove_file(path).context(context)?;
                }
                return Ok(None);
            }
            Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK) => {
                match Link::create(path).context(context)? {
                    Some(link) => Some(link),
                    None => return Ok(None),
                }
            }
            Err(errno) => return Err(errno).context(context),
        };
        let lease = Self { path: path.to_owned(), file, _link: link };
        // The previous owner may have renamed or removed the locked file.
        Ok(lease.is_current().then_some(lease))
    }

    fn is_current(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Returns the file that is produced.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, and releases the lease.
    pub fn remove(self) {
        fs::remove_file(&self.path).ok();
    }

    fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|status| status.len() == 0)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // An empty file existed only to be locked. No other process touches it during the lease.
        if self.is_empty() && self.is_current() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Returns whether `path` still is the path of `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let there = rustix::fs::lstat(path).map(|status| FileId::from_status(&status));
    matches!((FileId::from_fd(file), there), (Ok(here), Ok(there)) if here == there)
}

/// Handles a file of another user, in a repository that several users write: waits if it is leased,
/// and removes it if it is abandoned.
fn wait_for_other_user(path: &Path) -> Result<Option<Lease>> {
    let Ok(file) = lockfile::open_foreign(path) else {
        return Err(Errno::ACCESS).context(|| "open".into());
    };
    remove_unleased(&file, path)
        .context(|| "the file belongs to another user and cannot be removed".into())
        .map(|()| None)
}

/// Removes `file` from `path` unless it is leased, or another file has replaced it since it was opened,
/// which may be leased.
fn remove_unleased(file: &File, path: &Path) -> std::io::Result<()> {
    let locked = rustix::fs::flock(file, FlockOperation::NonBlockingLockShared).is_ok();
    if locked && is_at(file, path) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A symbolic link whose target names the owner, beside a file that cannot be locked otherwise. A
/// thread updates its timestamp while the owner lives, since processes of other hosts cannot be
/// checked.
#[derive(Debug)]
struct Link {
    path: PathBuf,
    me: String,
    /// Ends the thread that updates the timestamp when dropped.
    _alive: Sender<()>,
}

impl Link {
    /// Interval of the updates, and the age at which the owner is taken for dead.
    const HEARTBEAT: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(180);

    /// Creates the link for `path`. Returns `None` if one exists; removes that of a dead process.
    fn create(path: &Path) -> std::io::Result<Option<Self>> {
        let mut link = path.as_os_str().to_owned();
        link.push(".lock");
        let (path, me) = (PathBuf::from(link), ProcessIdentity::current().to_string());
        match symlink(&me, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // The next try creates it, and only one of all processes that try succeeds.
                remove_abandoned(&path, &me, Self::PATIENCE);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let (alive, ended) = mpsc::channel::<()>();
        let renewed = path.clone();
        std::thread::Builder::new().spawn(move || {
            while ended.recv_timeout(Self::HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                renew(&renewed);
            }
        })?;
        Ok(Some(Self { path, me, _alive: alive }))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        remove_own(&self.path, &self.me);
    }
}

fn renew(link: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    // Fails if another process took the link for abandoned.
    rustix::fs::utimensat(rustix::fs::CWD, link, &times, AtFlags::SYMLINK_NOFOLLOW).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn one_has_it_and_the_next_gets_it() {
        let scratch = Scratch::new("lease");
        let path = scratch.path().join("blob");
        let first = Lease::acquire(&path, |_| panic!("nobody has it")).unwrap();
        assert!(Lease::try_acquire(&path).unwrap().is_none());
        std::thread::scope(|scope| {
            let mut waited = 0;
            let second = scope.spawn(move || {
                let count = |_| {
                    waited += 1;
                    Ok(())
                };
                let lease = Lease::acquire(&path, count).unwrap();
                assert!(waited > 0);
                lease
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
    fn what_another_user_left_is_removed_but_not_what_took_its_place() {
        let scratch = Scratch::new("lease-foreign");
        let path = scratch.path().join("blob");
        let left = File::create(&path).unwrap();
        let opened = lockfile::open_foreign(&path).unwrap();
        rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive).unwrap();
        remove_unleased(&opened, &path).unwrap();
        assert!(path.exists());
        drop(left);
        fs::rename(&path, scratch.path().join("made")).unwrap();
        let next = Lease::try_acquire(&path).unwrap().unwrap();
        remove_unleased(&opened, &path).unwrap();
        assert!(next.is_current());
        drop(next);
        remove_unleased(&opened, &scratch.path().join("made")).unwrap();
        assert!(!scratch.path().join("made").exists());
    }

    #[test]
    fn a_link_serves_where_there_is_no_flock() {
        let scratch = Scratch::new("lease-link");
        let path = scratch.path().join("blob");
        let link = scratch.path().join("blob.lock");
        let held = Link::create(&path).unwrap().unwrap();
        assert!(Link::create(&path).unwrap().is_none());
        drop(held);
        let dead = ProcessIdentity::current().to_string() + "0"; // another start time
        symlink(&dead, &link).unwrap();
        assert!(Link::create(&path).unwrap().is_none());
        let held = Link::create(&path).unwrap().unwrap();
        // Taken away and made by another: not removed by who had it before.
        fs::remove_file(&link).unwrap();
        symlink(&dead, &link).unwrap();
        drop(held);
        assert!(fs::symlink_metadata(&link).is_ok());
    }

    #[test]
    fn the_time_of_a_link_tells_that_its_owner_lives() {
        let scratch = Scratch::new("lease-time");
        let link = scratch.path().join("link");
        symlink("elsewhere~1~2~3", &link).unwrap();
        let past = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: past, last_modification: past };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &link, &times, flags).unwrap();
        let me = ProcessIdentity::current().to_string();
        renew(&link);
        assert!(!remove_abandoned(&link, &me, Link::PATIENCE));
        rustix::fs::utimensat(rustix::fs::CWD, &link, &times, flags).unwrap();
        assert!(remove_abandoned(&link, &me, Link::PATIENCE));
    }
}
