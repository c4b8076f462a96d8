//! Where something is mounted in the container: found inside its root, judged, and created when it
//! is missing.
//!
//! A destination may lie in what was mounted before, which is the host's: there, directories are
//! created with the user's rights and nothing more. On our own file systems root creates them.

use super::files;
use super::rootfs::Rootfs;
use crate::error::{Context, Error, Result};
use crate::site::config::UserMounts;
use crate::site::reserved;
use crate::sys::fs::mount;
use crate::sys::fs::resolve;
use crate::sys::ids;
use crate::user::User;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// A destination, as far as it exists.
#[derive(Debug)]
pub struct Place<'a> {
    rootfs: &'a Rootfs,
    /// The deepest part of it that is there.
    found: OwnedFd,
    /// The names of the rest.
    missing: Vec<OsString>,
}

/// Follows `destination` inside the container's root as far as it goes.
pub fn find<'a>(rootfs: &'a Rootfs, destination: &Path) -> Result<Place<'a>> {
    let names: Vec<&OsStr> = destination
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let find = |count: usize| {
        let path: PathBuf = names.iter().take(count).collect();
        let path = if count == 0 { Path::new(".") } else { &path };
        resolve::find_in_root(&rootfs.root, path, OFlags::PATH)
    };
    for count in (0..=names.len()).rev() {
        if let Some(found) = find(count)? {
            let missing = names.iter().skip(count).map(OsString::from).collect();
            return Ok(Place { rootfs, found, missing });
        }
    }
    Err(Error::new("the root directory is gone"))
}

/// Creates the working directory `path` of the container when it is missing; not where engine and
/// runtime make what is there, which they do later: then `launch` finds it, or ends the run.
pub fn create_directory(rootfs: &Rootfs, user: &User, path: &Path) -> Result<()> {
    if reserved::check(path).is_err() {
        return Ok(());
    }
    let place = ids::as_user(user, || find(rootfs, path))?;
    match reserved::check(&place.resolved()?) {
        Ok(()) => place.create(user, FileType::Directory).map(drop),
        Err(_) => Ok(()),
    }
}

impl Place<'_> {
    /// Its path in the container, with every link resolved.
    fn resolved(&self) -> Result<PathBuf> {
        let path = std::fs::read_link(mount::proc_path(self.found.as_fd()))
            .context(|| "cannot name it".into())?;
        let inside =
            path.strip_prefix(&self.rootfs.path).map_err(|_| "it is outside the container");
        let inside = inside.context(|| "cannot name it".into())?;
        Ok(Path::new("/").join(inside).join(self.missing.iter().collect::<PathBuf>()))
    }

    /// Whether the site may mount here: not where a link of the image leads to what is engine and
    /// runtime's own.
    ///
    /// # Errors
    /// When not.
    pub fn judge_for_site(&self) -> Result<()> {
        reserved::check(&self.resolved()?)
    }

    /// Whether `user` may mount here. What the site forbids is compared with the resolved path,
    /// component by component: as it stands, and where the image's links lead it.
    ///
    /// # Errors
    /// When not, with the rule.
    pub fn judge(&self, limits: &UserMounts, user: &User) -> Result<()> {
        let path = self.resolved()?;
        reserved::check(&path)?;
        // Where the user cannot go, no destination of theirs was found either.
        let find = |limit: &Path| ids::as_user(user, || find(self.rootfs, limit)).ok();
        let resolved = |limit: &Path| find(limit)?.resolved().ok();
        let is_below = |limit: &&PathBuf| {
            path.starts_with(limit) || resolved(limit).is_some_and(|limit| path.starts_with(limit))
        };
        if let Some(prefix) = limits.not_allowed_prefixes.iter().find(is_below) {
            let text = format!("the site does not allow mounts below {}", prefix.display());
            return Err(Error::new(text));
        }
        let is_it = |limit: &PathBuf| path == *limit || resolved(limit).as_ref() == Some(&path);
        if limits.not_allowed_paths.iter().any(is_it) {
            let text = format!("the site does not allow mounts on {}", path.display());
            return Err(Error::new(text));
        }
        Ok(())
    }

    /// The mount point, of the same kind as `source`.
    pub fn create_like(self, source: &OwnedFd, user: &User) -> Result<OwnedFd> {
        let kind = kind_of(source)?;
        let target = self.create(user, kind)?;
        match (kind == FileType::Directory, kind_of(&target)? == FileType::Directory) {
            (true, false) => Err(Error::new("the source is a directory, the destination is not")),
            (false, true) => Err(Error::new("the destination is a directory, the source is not")),
            _ => Ok(target),
        }
    }

    /// Creates what is missing: directories, and at the end a file unless a directory is wanted.
    fn create(self, user: &User, kind: FileType) -> Result<OwnedFd> {
        let mut at = self.found;
        let mut missing = self.missing.iter().peekable();
        while let Some(name) = missing.next() {
            let last = missing.peek().is_none();
            let directory = !last || kind == FileType::Directory;
            let is_ours = is_on(&at, &self.rootfs.root)? || is_on(&at, &self.rootfs.dev)?;
            let make = || make(&at, name, directory);
            let made = if is_ours { make()? } else { ids::as_user(user, make)? };
            if is_ours {
                files::chown(&made, user)?;
            }
            at = made;
        }
        Ok(at)
    }
}

fn make(parent: &OwnedFd, name: &OsStr, directory: bool) -> Result<OwnedFd> {
    let cannot = || format!("cannot create {}", name.to_string_lossy());
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if directory {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).context(cannot)?;
        let flags = flags | OFlags::PATH | OFlags::DIRECTORY;
        rustix::fs::openat(parent, name, flags, Mode::empty()).context(cannot)
    } else {
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).context(cannot)
    }
}

fn kind_of(file: &OwnedFd) -> Result<FileType> {
    let stat = rustix::fs::fstat(file).context(|| "cannot stat it".into())?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Whether both lie on the same file system.
fn is_on(file: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let device = |file| rustix::fs::fstat(file).map(|stat| stat.st_dev);
    let same = device(file).and_then(|one| Ok(one == device(other)?));
    same.context(|| "cannot stat a directory".into())
}
