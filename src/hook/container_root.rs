//! The root file system of a container that is about to start, seen from the container's mount
//! namespace, and files of the host that a hook shows in it.
//!
//! OCI runtimes run hooks of the stages `prestart` and `createRuntime` when all mounts of the container
//! are made and the root directory is still the host's: so files of the host can be bound into the
//! container. No program of the image runs yet, but its links are there, and directories of the host
//! that the user mounted. See [`crate::rootfs::mount_point`] for where root may create files.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::Container;
use super::state::State;
use crate::error::{Context, Error, Result};
use crate::rootfs::mount_point::{Creator, MountPoint};
use crate::rootfs::root_dir::{RootDir, file_type, open_directory};
use crate::site::reserved;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::{FileId, TMPFS_MAGIC, resolve};

/// Root directories of host and container, from inside the container's mount namespace.
#[derive(Debug)]
pub struct ContainerRoot {
    /// The host's root directory.
    pub host: RootDir,
    /// The container's root directory; paths are looked up with its user's rights.
    pub container: RootDir,
    /// Rights with which the container's directories are changed.
    pub(super) creator: Creator,
}

impl ContainerRoot {
    /// Enters the mount namespace of `container`, and no other namespace.
    ///
    /// # Errors
    /// If it has no process, its root directory is not mounted, or has changed already.
    pub fn enter(container: &Container) -> Result<Self> {
        let context = || format!("cannot enter the container {}", container.state.id);
        enter_mount_namespace(&container.state)?;
        let (host, directory) = (RootDir::host()?, open_directory(&container.spec.rootfs)?);
        if mount::id_of(&directory)? == mount::id_of(&host.directory)? {
            return Err("its root file system is not mounted").context(context);
        }
        let mut own = vec![directory.try_clone().context(context)?];
        own.extend(own_dev(&host.directory, &directory)?);
        let user = &container.spec.user;
        let creator = Creator::new(own, user)?;
        let container = RootDir { directory, user: Some(user.clone()) };
        Ok(Self { host, container, creator })
    }

    /// Mounts the host's file `source` read-only over the container's file `target`.
    ///
    /// # Errors
    /// If one of them does not exist, or `target` is reserved.
    pub fn replace(&self, source: &Path, target: &Path) -> Result<()> {
        let context = || format!("cannot mount the host's {}", source.display());
        let source = self.open_source(source).context(context)?;
        let restrictions = Restrictions { readonly: true, ..Restrictions::default() };
        self.cover(&source, target, restrictions).context(context)
    }

    /// Mounts the file `source` over the container's file `target`.
    ///
    /// # Errors
    /// If `target` does not exist, is not a regular file, or is reserved.
    pub fn cover(&self, source: &OwnedFd, target: &Path, restrictions: Restrictions) -> Result<()> {
        let point = self.find_mount_point(target)?;
        if !point.exists() {
            return Err(Error::new(format!("the container has no {}", target.display())));
        }
        point.check_reserved()?;
        let over = point.create(FileType::RegularFile, &self.creator)?;
        if file_type(&over)? != FileType::RegularFile {
            let text = format!("the container's {} is not a regular file", target.display());
            return Err(Error::new(text));
        }
        mount_once(source, &over, restrictions)
    }

    /// Mounts a file, directory or device of the host at the same path of the container.
    ///
    /// # Errors
    /// If it does not exist, or the path is reserved, or something else in the container.
    pub fn share(&self, path: &Path) -> Result<()> {
        reserved::check(path)?;
        self.mount(path, path, Restrictions::default())
    }

    /// Mounts the host's `source` at `path` of the container, over what is there. `path` itself may be
    /// reserved, but links of the image must not lead it to a reserved path.
    ///
    /// # Errors
    /// If `source` does not exist, or only one of the two is a directory.
    pub fn mount(&self, source: &Path, path: &Path, restrictions: Restrictions) -> Result<()> {
        let context = || format!("cannot mount the host's {}", source.display());
        let source = self.open_source(source).context(context)?;
        let point = self.find_mount_point(path).context(context)?;
        if point.path() != path {
            point.check_reserved().context(context)?;
        }
        let target = point.create_for(&source, &self.creator).context(context)?;
        mount_once(&source, &target, restrictions).context(context)
    }

    /// Opens the container's directory `folder`, created if it is missing, for a file `name` in it.
    ///
    /// # Errors
    /// If it cannot be created, or a file `name` in it would be at a reserved path.
    pub(super) fn directory(&self, folder: &Path, name: &str) -> Result<OwnedFd> {
        let point = self.find_mount_point(folder)?;
        reserved::check(&point.path().join(name))?;
        point.create(FileType::Directory, &self.creator)
    }

    /// Creates an empty file to mount on.
    pub(super) fn create_file(&self, directory: &OwnedFd, name: &str) -> Result<()> {
        self.creator.create(directory, OsStr::new(name), FileType::RegularFile).map(drop)
    }

    pub(super) fn find_mount_point(&self, path: &Path) -> Result<MountPoint<'_>> {
        self.container.act(|| MountPoint::find(&self.container.directory, path))
    }

    fn open_source(&self, path: &Path) -> Result<OwnedFd> {
        resolve::open_in_root(&self.host.directory, path, OFlags::PATH, Mode::empty())
    }
}

/// Mounts `source` on `target`, unless that is the same file already: mounts of one file on itself
/// would pile up.
fn mount_once(source: &OwnedFd, target: &OwnedFd, restrictions: Restrictions) -> Result<()> {
    if FileId::from_fd(source)? == FileId::from_fd(target)? {
        return Ok(());
    }
    mount::bind(source, target, restrictions)
}

/// Enters the mount namespace of the container of `state`, in which the root directory is still the
/// host's.
///
/// # Errors
/// If there is no such namespace, or the root directory has changed already.
pub(super) fn enter_mount_namespace(state: &State) -> Result<()> {
    let context = || format!("cannot enter the container {}", state.id);
    let pid = state.pid.ok_or("it has no process").context(context)?;
    let ours = resolve::status(RootDir::host()?.directory).context(context)?;
    let theirs = rustix::fs::stat(format!("/proc/{}/root/", pid.as_raw_nonzero()));
    let theirs = theirs.context(context)?;
    if FileId::from_status(&ours) != FileId::from_status(&theirs) {
        return Err(Error::caused_by(context(), "its root directory is not the host's any more")
            .with_hint("run the hook in the stage prestart or createRuntime"));
    }
    let namespace = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(namespace, flags, Mode::empty()).context(context)?;
    mount::enter_namespace(&namespace).context(context)
}

/// The container's `/dev`, if that is a tmpfs and not the host's.
fn own_dev(host: &OwnedFd, root: &OwnedFd) -> Result<Option<OwnedFd>> {
    let open = |root: &OwnedFd| {
        resolve::find_in_root(root, Path::new("dev"), OFlags::PATH | OFlags::NOFOLLOW)
    };
    let context = || "cannot stat /dev".to_owned();
    let (Some(ours), Some(theirs)) = (open(host)?, open(root)?) else { return Ok(None) };
    let device = |file: &OwnedFd| resolve::status(file).map(|status| status.st_dev);
    let kind = rustix::fs::fstatfs(&theirs).context(context)?.f_type as u64;
    let is_own = kind == TMPFS_MAGIC
        && device(&ours).context(context)? != device(&theirs).context(context)?;
    Ok(is_own.then_some(theirs))
}
