//! Mount points in a container: found inside its root, checked against the reserved paths, and
//! created where they are missing.
//!
//! The engine (mounts of site and user, working directory) and the hooks (libraries, `BIND_MOUNTS`,
//! OpenSSH) both do this as root, at paths that images and users choose. Three rules hold for both:
//!
//! 1. **Root changes only the container's own mounts**, those of its root and of its `/dev`. Any
//!    other mount belongs to the host: there the container's user creates, or nobody.
//! 2. **Own is the mount, not the file system.** Directories of the host may lie on the file system of
//!    the container's root, as in a bundle that an OCI runtime binds: their `st_dev` is equal, and their
//!    mount id (statx(2), `stx_mnt_id`) is not. The kernel gives an id to another mount when the last
//!    user of a mount is gone, so a descriptor on each of them stays open as long as ids are compared.
//! 3. **The path that was checked is the path that is used.** A mount point is resolved once, and
//!    everything below it is created by descriptor. A user may rename directories of theirs at any
//!    moment: so the name of the finished descriptor is compared with the path that was checked.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::root_dir::file_type;
use crate::error::{Context, Error, Result};
use crate::site::reserved;
use crate::sys::fs::{mount, resolve, set_owner};
use crate::sys::ids;
use crate::user::User;

/// Rights with which the directories of one container are changed.
#[derive(Debug)]
pub struct Creator {
    /// The container's own mounts: their ids, and the descriptors that keep those from being reused.
    own: Vec<(u64, OwnedFd)>,
    user: User,
    /// The owner of files that root creates; root itself if `None`.
    owner: Option<User>,
}

impl Creator {
    /// Root creates on the mounts that `own` are on, `user` on all others.
    ///
    /// # Errors
    /// If the kernel does not tell a mount id.
    pub fn new(own: Vec<OwnedFd>, user: &User) -> Result<Self> {
        let with_id = |file: OwnedFd| Ok((mount::id_of(&file)?, file));
        let own = own.into_iter().map(with_id).collect::<Result<_>>()?;
        Ok(Self { own, user: user.clone(), owner: None })
    }

    /// Gives to the user all that root creates.
    #[must_use]
    pub fn for_user(self) -> Self {
        Self { owner: Some(self.user.clone()), ..self }
    }

    /// True if `file` is on one of the container's own mounts.
    ///
    /// # Errors
    /// If the kernel does not tell a mount id.
    pub fn owns(&self, file: impl AsFd) -> Result<bool> {
        let id = mount::id_of(file)?;
        Ok(self.own.iter().any(|(own, _)| *own == id))
    }

    /// Runs `work`, which changes `directory`: as root on the container's own mounts, elsewhere with
    /// the user's rights.
    ///
    /// # Errors
    /// Those of `work`, or if the ids cannot be changed.
    pub fn change<T>(&self, directory: &OwnedFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.owns(directory)? { work() } else { ids::as_other_user(&self.user, work) }
    }

    /// Creates the file or directory `name`, which must not exist, in `parent`.
    ///
    /// # Errors
    /// If it exists, or the user may not create it there.
    pub fn create(&self, parent: &OwnedFd, name: &OsStr, kind: FileType) -> Result<OwnedFd> {
        let context = || format!("cannot create {}", name.to_string_lossy());
        self.change(parent, || {
            let made = make(parent, name, kind).context(context)?;
            if let Some(owner) = self.owner.as_ref().filter(|_| ids::is_effective_root()) {
                set_owner(&made, owner.uid, owner.gid).context(context)?;
            }
            Ok(made)
        })
    }
}

fn make(parent: &OwnedFd, name: &OsStr, kind: FileType) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if kind == FileType::Directory {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        let flags = flags | OFlags::PATH | OFlags::DIRECTORY;
        rustix::fs::openat(parent, name, flags, Mode::empty())
    } else {
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))
    }
}

/// A path of a container, resolved as far as it exists.
#[derive(Debug)]
pub struct MountPoint<'a> {
    root: &'a OwnedFd,
    /// The last component that exists.
    found: OwnedFd,
    /// The components that do not.
    missing: Vec<OsString>,
    path: PathBuf,
}

impl<'a> MountPoint<'a> {
    /// Resolves `path` inside `root` with the rights of the process at this moment.
    ///
    /// # Errors
    /// If a component exists and cannot be searched.
    pub fn find(root: &'a OwnedFd, path: &Path) -> Result<Self> {
        let names = names(path);
        let find = |count: usize| {
            let path: PathBuf = names.iter().take(count).collect();
            let path = if count == 0 { Path::new(".") } else { &path };
            resolve::find_in_root(root, path, OFlags::PATH)
        };
        for count in (0..=names.len()).rev() {
            if let Some(found) = find(count)? {
                let missing: Vec<_> = names.iter().skip(count).map(OsString::from).collect();
                if missing.iter().any(|name| name == "..") {
                    return Err(Error::new("'..' below a directory that does not exist"));
                }
                let path = path_in(root, &found)?.join(missing.iter().collect::<PathBuf>());
                // Joining an empty path has added a slash.
                let path = path.components().collect();
                return Ok(Self { root, found, missing, path });
            }
        }
        Err(Error::new("the container's root directory is gone"))
    }

    /// The absolute path in the container, all links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if all of the path exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.missing.is_empty()
    }

    /// Refuses a path that is reserved for engine and OCI runtime, however links lead there.
    ///
    /// # Errors
    /// If the resolved path is reserved.
    pub fn check_reserved(&self) -> Result<()> {
        reserved::check(&self.path)
    }

    /// The mount point for `source`, created if it is missing: a directory for a directory, a file for
    /// anything else.
    ///
    /// # Errors
    /// If it cannot be created, moved meanwhile, or only one of the two is a directory.
    pub fn create_for(self, source: &OwnedFd, creator: &Creator) -> Result<OwnedFd> {
        let is_directory = |file: &OwnedFd| Ok(file_type(file)? == FileType::Directory);
        let wants_directory = is_directory(source)?;
        let kind = if wants_directory { FileType::Directory } else { FileType::RegularFile };
        let target = self.create(kind, creator)?;
        match (wants_directory, is_directory(&target)?) {
            (true, false) => Err(Error::new("the source is a directory, the destination is not")),
            (false, true) => Err(Error::new("the destination is a directory, the source is not")),
            _ => Ok(target),
        }
    }

    /// Creates the missing components, the last one of type `kind`, and opens the last component.
    ///
    /// # Errors
    /// If one cannot be created, or the path is another one by now.
    pub fn create(self, kind: FileType, creator: &Creator) -> Result<OwnedFd> {
        let mut at = self.found;
        let mut missing = self.missing.iter().peekable();
        while let Some(name) = missing.next() {
            let kind = if missing.peek().is_some() { FileType::Directory } else { kind };
            at = creator.create(&at, name, kind)?;
        }
        if path_in(self.root, &at)? != self.path {
            return Err(Error::new(format!("{} was moved meanwhile", self.path.display())));
        }
        Ok(at)
    }
}

/// The components of an absolute path: names, and `..`.
fn names(path: &Path) -> Vec<&OsStr> {
    let is_step =
        |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_step).map(Component::as_os_str).collect()
}

/// The absolute path of an open file in the container whose root directory is `root`, as the kernel
/// tells it (proc(5), `/proc/pid/fd`).
fn path_in(root: &OwnedFd, file: &OwnedFd) -> Result<PathBuf> {
    let context = || "cannot find the path of a mount point".to_owned();
    let name = |file: &OwnedFd| std::fs::read_link(mount::proc_path(file.as_fd())).context(context);
    let (file, root) = (name(file)?, name(root)?);
    let inside = file.strip_prefix(root).map_err(|_| "outside of the container");
    Ok(Path::new("/").join(inside.context(context)?).components().collect())
}

#[cfg(test)]
mod tests;
