//! One writer at a time in a repository.
//!
//! A writer first gets flock(2) on `.lock`, a file that stays, so that a killed one blocks nobody.
//! It then makes `metadata.json.lock`, which tells engines of before to wait, and which is the
//! whole lock on file systems without flock. This is a symbolic link that reads as its owner:
//! made at once with its content on any file system, NFS included.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::lockfile::{self, LockFile};
use super::process_id::{ProcessId, is_abandoned};
use crate::error::{Context, Error, Result};
use crate::log;

/// How long a writer waits for its turn, and how often it says so.
const TIMEOUT: Duration = Duration::from_secs(60);
const NOTICE: Duration = Duration::from_secs(10);

/// How often it looks whether its turn has come.
const INTERVAL: Duration = Duration::from_millis(20);

/// A lock of which nobody knows whether its owner lives is held for so long at the most: writers
/// hold it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The right to write, until dropped.
#[derive(Debug)]
pub struct Lock {
    link: PathBuf,
    me: String,
    /// Closed after the link is gone. `None` where flock is not supported.
    _flock: Option<fs::File>,
}

impl Lock {
    /// Waits for the right to write in the repository `root`.
    ///
    /// # Errors
    /// When the repository is read-only, or another writer does not end in time.
    pub fn take(root: &Path) -> Result<Self> {
        let mut turn = Turn { root, since: Instant::now(), notices: 0 };
        replace_exposed(&root.join(".lock"));
        let lock = turn.flock().and_then(|flock| turn.link(flock));
        lock.context(|| format!("cannot lock {}", root.display()))
    }
}

/// Removes the lock file of an earlier release, which others may have open, and lock for ever. Should
/// a writer hold it just now, `metadata.json.lock` still keeps the next one out.
fn replace_exposed(path: &Path) {
    if let Ok(LockFile { exposed: true, .. }) = lockfile::open(path) {
        fs::remove_file(path).ok();
    }
}

/// Opens the lock file `path`. Another administrator's may be open to this one for reading alone.
fn open(path: &Path) -> std::io::Result<fs::File> {
    match lockfile::open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            lockfile::open_foreign(path).map_err(|_| error)
        }
        opened => opened.map(|lock| lock.file),
    }
}

/// Waits for flock(2) on the file `.lock` of `directory`, which lasts until what it gives is dropped;
/// it gives nothing where flock is not supported.
///
/// # Errors
/// When the directory is read-only, or another process does not let go of it in time.
pub fn exclusive(directory: &Path) -> Result<Option<fs::File>> {
    let mut turn = Turn { root: directory, since: Instant::now(), notices: 0 };
    turn.flock().context(|| format!("cannot lock {}", directory.display()))
}

impl Drop for Lock {
    fn drop(&mut self) {
        remove_own(&self.link, &self.me);
    }
}

/// Removes `link` if it is still ours: not if it was taken away from us, as from one that hung.
pub(super) fn remove_own(link: &Path, me: &str) {
    if fs::read_link(link).is_ok_and(|owner| owner.as_os_str() == me) {
        fs::remove_file(link).ok();
    }
}

/// Removes `link` if its owner is gone. Who does so holds a second lock meanwhile, and looks once
/// more: else one could remove the lock of another who was faster to remove the abandoned one.
pub(super) fn take_away_abandoned(link: &Path, me: &str, patience: Duration) -> bool {
    if !is_abandoned_lock(link, patience) {
        return false;
    }
    let guard = link.with_extension("lock-guard");
    if symlink(me, &guard).is_err() {
        if is_abandoned_lock(&guard, PATIENCE) {
            fs::remove_file(&guard).ok();
        }
        return false;
    }
    let abandoned = is_abandoned_lock(link, patience);
    if abandoned {
        fs::remove_file(link).ok();
    }
    fs::remove_file(&guard).ok();
    abandoned
}

/// A file in its place, as engines of before leave it, has no owner.
fn is_abandoned_lock(link: &Path, patience: Duration) -> bool {
    let owner = fs::read_link(link).ok();
    let owner = owner.as_deref().and_then(Path::to_str).and_then(ProcessId::parse);
    is_abandoned(link, owner.as_ref(), patience)
}

/// Waiting for the others.
struct Turn<'a> {
    root: &'a Path,
    since: Instant,
    notices: u32,
}

impl Turn<'_> {
    fn flock(&mut self) -> Result<Option<fs::File>> {
        let path = self.root.join(".lock");
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

    fn link(&mut self, flock: Option<fs::File>) -> Result<Lock> {
        let link = self.root.join("metadata.json.lock");
        let me = ProcessId::current().to_string();
        loop {
            match symlink(&me, &link) {
                Ok(()) => {
                    // A process that was killed may have left it.
                    let guard = link.with_extension("lock-guard");
                    if fs::symlink_metadata(&guard).is_ok() && is_abandoned_lock(&guard, PATIENCE) {
                        fs::remove_file(&guard).ok();
                    }
                    return Ok(Lock { link, me, _flock: flock });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !take_away_abandoned(&link, &me, PATIENCE) {
                        self.wait()?;
                    }
                }
                Err(error) => {
                    return Err(error).context(|| format!("cannot create {}", link.display()));
                }
            }
        }
    }

    fn wait(&mut self) -> Result<()> {
        let waited = self.since.elapsed();
        if waited >= TIMEOUT {
            let seconds = TIMEOUT.as_secs();
            return Err(Error::new(format!("held by another process for {seconds} s")));
        }
        if waited >= NOTICE * (self.notices + 1) {
            self.notices += 1;
            let root = self.root.display();
            log::warn("store", &format!("waiting for another process to release {root}"));
        }
        sleep(INTERVAL);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    fn turn(root: &Path) -> Turn<'_> {
        Turn { root, since: Instant::now(), notices: 0 }
    }

    #[test]
    fn it_excludes_others_with_flock_and_without() {
        let scratch = Scratch::new("exclude");
        let root = scratch.path();
        for flock in [true, false] {
            let inside = std::sync::atomic::AtomicU32::new(0);
            let work = || {
                for _ in 0..20 {
                    let lock = if flock { Lock::take(root) } else { turn(root).link(None) };
                    let lock = lock.unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    sleep(Duration::from_micros(100));
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    drop(lock);
                }
            };
            std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
        }
        assert!(!root.join("metadata.json.lock").exists());
    }

    #[test]
    fn a_dead_owner_blocks_nobody() {
        let scratch = Scratch::new("dead");
        let link = scratch.path().join("metadata.json.lock");
        let dead = ProcessId::current().to_string() + "0"; // another start time
        symlink(&dead, &link).unwrap();
        drop(Lock::take(scratch.path()).unwrap());
        symlink(&dead, &link).unwrap();
        symlink(&dead, link.with_extension("lock-guard")).unwrap();
        drop(turn(scratch.path()).link(None).unwrap());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1); // .lock
    }

    #[test]
    fn a_lock_of_an_old_engine_is_respected_until_it_is_old() {
        let scratch = Scratch::new("old");
        let path = scratch.path().join("metadata.json.lock");
        let file = fs::File::create(&path).unwrap();
        let me = ProcessId::current().to_string();
        assert!(!take_away_abandoned(&path, &me, PATIENCE));
        file.set_modified(std::time::SystemTime::now() - 2 * PATIENCE).unwrap();
        assert!(take_away_abandoned(&path, &me, PATIENCE));
        assert!(!path.exists());
    }

    #[test]
    fn a_living_owner_is_waited_for_and_named_in_the_end() {
        let scratch = Scratch::new("living");
        let _held = Lock::take(scratch.path()).unwrap();
        let mut late = turn(scratch.path());
        late.since -= TIMEOUT;
        assert_eq!(late.flock().unwrap_err().to_string(), "held by another process for 60 s");
        assert_eq!(late.link(None).unwrap_err().to_string(), "held by another process for 60 s");
    }
}
