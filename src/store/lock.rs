//! Lock of a repository for one writer at a time.
//!
//! A writer first takes flock(2) on `.lock`, a permanent file, so that a killed writer blocks nobody.
//! It then creates `metadata.json.lock`, which makes the C++ engine (1.x) wait, and which is the only
//! lock on file systems without flock. It is a symbolic link whose target names the owner: symlink(2)
//! creates it with its content in one step on any file system, NFS included.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process_identity::{ProcessIdentity, is_abandoned};
use crate::error::{Context, Result};
use crate::sys::fs::lock::Turn;
use crate::sys::fs::lockfile::{self, LockFile};

/// Age at which a lock is abandoned whose owner cannot be checked. Writers hold it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lock of a repository, held until dropped.
#[derive(Debug)]
pub struct Lock {
    link: PathBuf,
    me: String,
    /// Released after the link is removed. `None` where flock(2) is not supported.
    _flock: Option<fs::File>,
}

impl Lock {
    /// Waits for the lock of the repository `root`.
    ///
    /// # Errors
    /// The repository is read-only, or another writer exceeds the time limit.
    pub fn take(root: &Path) -> Result<Self> {
        let mut turn = Turn::new(root);
        replace_exposed(&root.join(".lock"));
        let lock = turn.flock().and_then(|flock| make_link(&mut turn, flock));
        lock.context(|| format!("cannot lock {}", root.display()))
    }
}

/// Removes a lock file that others could open before, and so may lock for ever. If a writer holds it
/// now, `metadata.json.lock` still excludes the next one.
fn replace_exposed(path: &Path) {
    if let Ok(LockFile { exposed: true, .. }) = lockfile::open(path) {
        fs::remove_file(path).ok();
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        remove_own(&self.link, &self.me);
    }
}

/// Removes `link` if this process still owns it: another one may have taken it for abandoned.
pub(super) fn remove_own(link: &Path, me: &str) {
    if fs::read_link(link).is_ok_and(|owner| owner.as_os_str() == me) {
        fs::remove_file(link).ok();
    }
}

/// Removes `link` if its owner is gone. The process that does so holds a second lock and checks once
/// more: otherwise it could remove the new lock of a process that was faster.
pub(super) fn remove_abandoned(link: &Path, me: &str, patience: Duration) -> bool {
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

/// Returns whether the lock `link` is abandoned. A regular file, which the C++ engine (1.x) creates,
/// names no owner.
fn is_abandoned_lock(link: &Path, patience: Duration) -> bool {
    let owner = fs::read_link(link).ok();
    let owner = owner.as_deref().and_then(Path::to_str).and_then(ProcessIdentity::parse);
    is_abandoned(link, owner.as_ref(), patience)
}

/// Waits to create `metadata.json.lock`.
fn make_link(turn: &mut Turn<'_>, flock: Option<fs::File>) -> Result<Lock> {
    let link = turn.directory.join("metadata.json.lock");
    let me = ProcessIdentity::current().to_string();
    loop {
        match symlink(&me, &link) {
            Ok(()) => {
                // A killed process may have left the second lock.
                let guard = link.with_extension("lock-guard");
                if fs::symlink_metadata(&guard).is_ok() && is_abandoned_lock(&guard, PATIENCE) {
                    fs::remove_file(&guard).ok();
                }
                return Ok(Lock { link, me, _flock: flock });
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !remove_abandoned(&link, &me, PATIENCE) {
                    turn.wait()?;
                }
            }
            Err(error) => {
                return Err(error).context(|| format!("cannot create {}", link.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;
    use crate::sys::fs::lock::TIMEOUT;
    use std::thread::sleep;

    #[test]
    fn it_excludes_others_with_flock_and_without() {
        let scratch = Scratch::new("exclude");
        let root = scratch.path();
        for flock in [true, false] {
            let inside = std::sync::atomic::AtomicU32::new(0);
            let work = || {
                for _ in 0..20 {
                    let lock = if flock {
                        Lock::take(root)
                    } else {
                        make_link(&mut Turn::new(root), None)
                    };
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
        let dead = ProcessIdentity::current().to_string() + "0"; // another start time
        symlink(&dead, &link).unwrap();
        drop(Lock::take(scratch.path()).unwrap());
        symlink(&dead, &link).unwrap();
        symlink(&dead, link.with_extension("lock-guard")).unwrap();
        drop(make_link(&mut Turn::new(scratch.path()), None).unwrap());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1); // .lock
    }

    #[test]
    fn a_lock_of_an_old_engine_is_respected_until_it_is_old() {
        let scratch = Scratch::new("old");
        let path = scratch.path().join("metadata.json.lock");
        let file = fs::File::create(&path).unwrap();
        let me = ProcessIdentity::current().to_string();
        assert!(!remove_abandoned(&path, &me, PATIENCE));
        file.set_modified(std::time::SystemTime::now() - 2 * PATIENCE).unwrap();
        assert!(remove_abandoned(&path, &me, PATIENCE));
        assert!(!path.exists());
    }

    #[test]
    fn a_living_owner_is_waited_for_and_named_in_the_end() {
        let scratch = Scratch::new("living");
        let _held = Lock::take(scratch.path()).unwrap();
        let mut late = Turn::new(scratch.path()).has_waited(TIMEOUT);
        assert_eq!(late.flock().unwrap_err().to_string(), "held by another process for 60 s");
        assert_eq!(
            make_link(&mut late, None).unwrap_err().to_string(),
            "held by another process for 60 s"
        );
    }
}
