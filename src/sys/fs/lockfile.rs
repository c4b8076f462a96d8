//! Files for flock(2).
//!
//! Any process that can open a file can lock it, and block all that wait for the lock. So only users
//! who may write in the directory can open its lock files: the owner, and in a repository that a group
//! shares, that group.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Flags of open(2): refuse a symbolic link, do not wait for a pipe.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// An open lock file.
#[derive(Debug)]
pub struct LockFile {
    /// Open for reading and writing: NFS turns an flock(2) into a POSIX lock, which requires it.
    pub file: File,
    /// True if other users may have it open: it was accessible to them until now, as earlier releases
    /// left their lock files.
    pub exposed: bool,
}

/// Opens the lock file `path`, creates it if it does not exist, and makes it inaccessible to others.
pub fn open(path: &Path) -> Result<LockFile> {
    let directory = fs::metadata(path.parent().unwrap_or(Path::new(".")))?;
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(FLAGS);
    let file = how.open(path)?;
    let status = file.metadata()?;
    if !status.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    // Only the owner can change the mode.
    if status.uid() != rustix::process::geteuid().as_raw() {
        return Ok(LockFile { file, exposed: false });
    }
    let mode = shared_mode(&file, &status, &directory);
    if status.mode() & 0o777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(LockFile { file, exposed: status.mode() & 0o666 & !mode != 0 })
}

/// Opens the lock file of another user read-only, which suffices for flock(2).
pub fn open_foreign(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).custom_flags(FLAGS).open(path)
}

/// Makes `file`, which was a lock file until now, readable for all who may list `directory`. A file of
/// another user keeps its mode.
pub fn publish(file: &File, directory: &Path) {
    if let Ok(directory) = fs::metadata(directory) {
        let mode = 0o600 | directory.mode() & 0o044;
        file.set_permissions(Permissions::from_mode(mode)).ok();
    }
}

/// Returns the mode that lets those read and write who may write in `directory`. Changes the group of
/// the file first: it has the primary group of this user, which anybody may be in.
#[expect(clippy::disallowed_methods, reason = "gives a file of the user's to a group of theirs")]
fn shared_mode(file: &File, status: &Metadata, directory: &Metadata) -> u32 {
    let for_group = directory.mode() & 0o020 != 0
        && (status.gid() == directory.gid() || fchown(file, None, Some(directory.gid())).is_ok());
    let for_all = directory.mode() & 0o002 != 0;
    0o600 | if for_group { 0o060 } else { 0 } | if for_all { 0o006 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory that is removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn only_who_may_write_in_the_directory_can_open_a_lock() {
        let scratch = Scratch::new("lockfile");
        let path = scratch.path().join("lock");
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        for (directory, expected) in
            [(0o755, 0o600), (0o700, 0o600), (0o775, 0o660), (0o2775, 0o660), (0o1777, 0o666)]
        {
            set(scratch.path(), directory).unwrap();
            fs::remove_file(&path).ok();
            assert!(!open(&path).unwrap().exposed);
            assert_eq!(mode(), expected, "{directory:o}");
            // One of an earlier release.
            set(&path, 0o644).unwrap();
            assert_eq!(open(&path).unwrap().exposed, expected & 0o004 == 0, "{directory:o}");
            assert_eq!(mode(), expected, "{directory:o}");
            publish(&open(&path).unwrap().file, scratch.path());
            assert_eq!(mode(), 0o600 | directory & 0o044);
        }
        set(scratch.path(), 0o755).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let scratch = Scratch::new("lockfile-kinds");
        let path = scratch.path().join("lock");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        open(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(open(&path).unwrap_err().to_string(), "not a regular file");
        open_foreign(&path).unwrap();
    }
}
