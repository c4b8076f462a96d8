//! The root file system of a container that is about to start, seen from its mount namespace, and
//! what a hook changes in it.
//!
//! Runtimes run hooks of the stages `prestart` and `createRuntime` when all mounts of the container
//! are made and its root is still the host's: so the host's files can be bound into it. No program
//! of the image runs yet, but its links lie in wait, and directories of the host that the user
//! mounted: there nothing is created but with the user's rights.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::process::{Gid, Uid};

use super::Container;
use super::files::{Tree, directory, kind_of};
use super::{elf, setting};
use crate::error::{Because, Error, Result};
use crate::sys::confined::{self, Identity};
use crate::sys::mount::{self, Restrictions};
use crate::sys::{ids, open};
use crate::user::User;

/// A container from within.
#[derive(Debug)]
pub struct Inside {
    /// The host's files, as they are seen from the container's mount namespace.
    pub host: Tree,
    /// The container's files.
    pub container: Tree,
    user: User,
    /// The mounts that are the container's alone: its root and its `/dev`.
    own: Vec<u64>,
}

impl Inside {
    /// Enters the mount namespace of `container`, and no other.
    ///
    /// # Errors
    /// When there is no such namespace, or the container's root has changed already.
    pub fn enter(container: &Container) -> Result<Self> {
        let cannot = || format!("cannot enter the container {}", container.state.id);
        let pid = container.state.pid.ok_or("it has no process").because(cannot)?;
        let root = directory(Path::new("/"))?;
        let theirs = rustix::fs::stat(format!("/proc/{}/root/", pid.as_raw_nonzero()));
        let ours = open::status(&root).because(cannot)?;
        let theirs = theirs.because(cannot)?;
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
            return Err(Error::caused_by(cannot(), "it has left the host's root already")
                .hint("the hook belongs into the stage prestart or createRuntime"));
        }
        let namespace = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open(namespace, flags, Mode::empty()).because(cannot)?;
        mount::enter_namespace(&namespace).because(cannot)?;
        let (host, root) = (directory(Path::new("/"))?, directory(&container.spec.rootfs)?);
        let mut own = vec![mount::id_of(&root)?];
        if own.contains(&mount::id_of(&host)?) {
            return Err("its root file system is not mounted").because(cannot);
        }
        own.extend(own_dev(&host, &root)?);
        let user = container.spec.user.clone();
        let container = Tree { root, user: Some(user.clone()) };
        Ok(Self { host: Tree { root: host, user: None }, container, user, own })
    }

    /// Shows the host's file `source` in place of the container's `target`, read-only.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn replace(&self, source: &Path, target: &Path) -> Result<()> {
        let cannot = || format!("cannot mount the host's {}", source.display());
        let over = self.container.find(target, OFlags::PATH)?;
        let over = over.ok_or_else(|| format!("{} is gone", target.display())).because(cannot)?;
        if kind_of(&over)? != FileType::RegularFile {
            let why = format!("the container's {} is no regular file", target.display());
            return Err(why).because(cannot);
        }
        let restrictions = Restrictions { readonly: true, ..Restrictions::default() };
        self.bind(source, &over, restrictions).because(cannot)
    }

    fn bind(&self, source: &Path, target: &OwnedFd, restrictions: Restrictions) -> Result<()> {
        let flags = OFlags::PATH;
        let source = open::beneath(&self.host.root, source, flags, Mode::empty())?;
        let id = |file: &OwnedFd| open::status(file).map(|status| (status.st_dev, status.st_ino));
        // Twice the same would only pile up mounts.
        if id(&source).because(|| "cannot stat it".into())?
            == id(target).because(|| "cannot stat it".into())?
        {
            return Ok(());
        }
        mount::bind(&source, target, restrictions)
    }

    /// Shows the host's library `source` in the container's directory `folder` as `name`, and by
    /// each of `aliases`. What is there already is covered, not removed.
    ///
    /// # Errors
    /// When something cannot be created there.
    pub fn add(&self, source: &Path, folder: &Path, name: &str, aliases: &[String]) -> Result<()> {
        let cannot = || format!("cannot add the host's {}", source.display());
        let place = self.place(folder, FileType::Directory).because(cannot)?;
        let path = folder.join(name);
        self.clear_dangling(&place, name, &path).because(cannot)?;
        if self.container.find(&path, OFlags::PATH)?.is_none() {
            self.create(&place, OsStr::new(name), FileType::RegularFile).because(cannot)?;
        }
        self.replace(source, &path)?;
        for alias in aliases {
            let path = folder.join(alias);
            self.clear_dangling(&place, alias, &path).because(cannot)?;
            if self.container.find(&path, OFlags::PATH)?.is_some() {
                self.replace(source, &path)?;
            } else {
                let link = || {
                    rustix::fs::symlinkat(name, &place, alias.as_str())
                        .because(|| format!("cannot create {alias}"))
                };
                self.create_by(&place, link).because(cannot)?;
            }
        }
        Ok(())
    }

    /// Takes away a link that leads nowhere.
    fn clear_dangling(&self, place: &OwnedFd, name: &str, path: &Path) -> Result<()> {
        let itself = self.container.find(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if itself.is_some() && self.container.find(path, OFlags::PATH)?.is_none() {
            let unlink = || {
                rustix::fs::unlinkat(place, name, AtFlags::empty())
                    .because(|| format!("cannot replace {}", path.display()))
            };
            self.create_by(place, unlink)?;
        }
        Ok(())
    }

    /// Shows the host's program `source` as `name` in the container's directory `folder`. A link in
    /// its place gives way: what it leads to may serve under many names.
    ///
    /// # Errors
    /// When it cannot be created there.
    pub fn cover(&self, source: &Path, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(name);
        let cannot = || format!("cannot replace {}", path.display());
        let place = self.place(folder, FileType::Directory).because(cannot)?;
        let found = self.container.find(&path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if found.is_some_and(|found| kind_of(found).is_ok_and(|kind| kind == FileType::Symlink)) {
            if !self.own.contains(&mount::id_of(&place)?) {
                return Err("it is a link in a directory of the host").because(cannot);
            }
            rustix::fs::unlinkat(&place, name, AtFlags::empty()).because(cannot)?;
        }
        self.add(source, folder, name, &[])
    }

    /// Shows a file, directory or device of the host at the same path.
    ///
    /// # Errors
    /// When it is not there, or the path is something else in the container.
    pub fn share(&self, path: &Path) -> Result<()> {
        self.show(path, path, Restrictions::default())
    }

    /// Shows the host's `source` at `path`, over what is there.
    ///
    /// # Errors
    /// When it is not there, or the path is something else in the container.
    pub fn show(&self, source: &Path, path: &Path, restrictions: Restrictions) -> Result<()> {
        let cannot = || format!("cannot mount the host's {}", source.display());
        let kind = kind_of(open::beneath(&self.host.root, source, OFlags::PATH, Mode::empty())?)?;
        let kind = match kind {
            FileType::Directory => FileType::Directory,
            _ => FileType::RegularFile,
        };
        let target = self.place(path, kind).because(cannot)?;
        if (kind_of(&target)? == FileType::Directory) != (kind == FileType::Directory) {
            return Err("only one of host and container has a directory there").because(cannot);
        }
        self.bind(source, &target, restrictions).because(cannot)
    }

    /// Finds `path` in the container, and creates what is missing of it.
    fn place(&self, path: &Path, kind: FileType) -> Result<OwnedFd> {
        let mut at = self.container.find(Path::new("/"), OFlags::PATH)?;
        let mut known = PathBuf::from("/");
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else { continue };
            known.push(name);
            at = match (self.container.find(&known, OFlags::PATH)?, at) {
                (None, Some(parent)) => {
                    let kind = if parts.peek().is_some() { FileType::Directory } else { kind };
                    self.create(&parent, name, kind)?;
                    self.container.find(&known, OFlags::PATH)?
                }
                (found, _) => found,
            };
        }
        at.ok_or_else(|| Error::new(format!("cannot create {}", path.display())))
    }

    fn create(&self, parent: &OwnedFd, name: &OsStr, kind: FileType) -> Result<()> {
        self.create_by(parent, || {
            let cannot = || format!("cannot create {}", name.to_string_lossy());
            if kind == FileType::Directory {
                let mode = Mode::from_raw_mode(0o755);
                return rustix::fs::mkdirat(parent, name, mode).because(cannot);
            }
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat(parent, name, flags, mode).because(cannot).map(drop)
        })
    }

    /// Changes the directory `parent`: as root on what is the container's alone, else as its user.
    fn create_by(&self, parent: &OwnedFd, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.own.contains(&mount::id_of(parent)?) {
            work()
        } else {
            ids::as_other(&self.user, work)
        }
    }

    /// Has the site's ldconfig, `LDCONFIG_PATH`, write the container's `/etc/ld.so.cache` anew.
    ///
    /// It runs as the owner of the container's root directory, without capabilities and with that
    /// directory as its root. The owner is the container's user, or root where an image belongs to
    /// root: then nothing of the host may be mounted on what it writes.
    ///
    /// # Errors
    /// When it fails, or could do harm.
    pub fn rebuild_cache(&self) -> Result<()> {
        const VARIABLE: &str = "LDCONFIG_PATH";
        let Some(path) = setting(VARIABLE) else {
            let hint = format!("the site sets {VARIABLE} in the environment of the hook");
            return Err(
                Error::new("cannot rebuild the container's ld.so.cache: no ldconfig").hint(hint)
            );
        };
        let cannot = || format!("cannot rebuild the container's ld.so.cache with {path}");
        let program = confined::open(&self.host.root, Path::new(&path)).because(cannot)?;
        let is_static =
            elf::is_elf(&program) && elf::read(&program).because(cannot)?.interpreter.is_none();
        if !is_static {
            let hint = "name the program itself: Ubuntu has it at /sbin/ldconfig.real";
            let why = "it is no statically linked program";
            return Err(Error::caused_by(cannot(), why).hint(hint));
        }
        let status = open::status(&self.container.root).because(cannot)?;
        let identity =
            Identity { uid: Uid::from_raw(status.st_uid), gid: Gid::from_raw(status.st_gid) };
        if identity.uid != self.user.uid {
            for path in ["/etc", "/usr/lib"] {
                let found = self.container.find(Path::new(path), OFlags::PATH)?;
                if let Some(found) = found
                    && !self.own.contains(&mount::id_of(&found)?)
                {
                    return Err(format!("{path} of the container is not its own")).because(cannot);
                }
            }
        }
        // Links are as they should be already; a cache of the image's has nothing to say.
        let words = ["ldconfig", "-X", "-i"];
        confined::run(program.as_fd(), &words, self.container.root.as_fd(), identity)
            .because(cannot)
    }
}

/// The mount of the container's `/dev`, if it is a file system of its own in memory.
fn own_dev(host: &OwnedFd, root: &OwnedFd) -> Result<Option<u64>> {
    /// `TMPFS_MAGIC` of `linux/magic.h`
    const TMPFS: u64 = 0x0102_1994;
    let open = |root: &OwnedFd| {
        open::find_beneath(root, Path::new("dev"), OFlags::PATH | OFlags::NOFOLLOW)
    };
    let cannot = || "cannot look at /dev".to_owned();
    let (Some(ours), Some(theirs)) = (open(host)?, open(root)?) else { return Ok(None) };
    let device = |file: &OwnedFd| open::status(file).map(|status| status.st_dev);
    let kind = rustix::fs::fstatfs(&theirs).because(cannot)?.f_type as u64;
    let is_own =
        kind == TMPFS && device(&ours).because(cannot)? != device(&theirs).because(cannot)?;
    if is_own { mount::id_of(&theirs).map(Some) } else { Ok(None) }
}
