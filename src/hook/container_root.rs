//! The root file system of a container that is about to start, seen from its mount namespace, and
//! what a hook changes in it.
//!
//! Runtimes run hooks of the stages `prestart` and `createRuntime` when all mounts of the container
//! are made and its root is still the host's: so the host's files can be bound into it. No program
//! of the image runs yet, but its links lie in wait, and directories of the host that the user
//! mounted: there nothing is created but with the user's rights.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::process::{Gid, Uid};

use super::Container;
use super::files::{Tree, directory, kind_of};
use super::ldcache::{self, Listing};
use super::library::major;
use crate::error::{Context, Error, Result};
use crate::site::reserved;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::resolve;
use crate::sys::fs::{FileId, TMPFS_MAGIC, set_owner};
use crate::sys::{ids, random};
use crate::user::User;

/// Where some linker or other looks without being told to.
const TRUSTED: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

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
        super::enter_mount_namespace(&container.state)?;
        let (host, root) = (directory(Path::new("/"))?, directory(&container.spec.rootfs)?);
        let mut own = vec![mount::id_of(&root)?];
        if own.contains(&mount::id_of(&host)?) {
            return Err("its root file system is not mounted").context(cannot);
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
        let source = self.source(source).context(cannot)?;
        let restrictions = Restrictions { readonly: true, ..Restrictions::default() };
        self.cover_file(&source, target, restrictions).context(cannot)
    }

    /// Shows the file `source` in place of the container's file `target`.
    ///
    /// # Errors
    /// When the target is missing, not a regular file, or reserved.
    pub fn cover_file(
        &self,
        source: &OwnedFd,
        target: &Path,
        restrictions: Restrictions,
    ) -> Result<()> {
        let over = self.container.find(target, OFlags::PATH)?;
        let over = over.ok_or_else(|| Error::new(format!("{} is gone", target.display())))?;
        if kind_of(&over)? != FileType::RegularFile {
            let text = format!("the container's {} is not a regular file", target.display());
            return Err(Error::new(text));
        }
        self.judge(&over, None)?;
        mount_once(source, &over, restrictions)
    }

    fn source(&self, path: &Path) -> Result<OwnedFd> {
        resolve::open_in_root(&self.host.root, path, OFlags::PATH, Mode::empty())
    }

    /// Judges the very file that is about to be mounted on, wherever it was found: the user may
    /// exchange files and links in directories of theirs at any moment. Reserved places cannot be
    /// moved by users. `exempt` may be reserved all the same.
    fn judge(&self, target: &OwnedFd, exempt: Option<&Path>) -> Result<()> {
        let name = |file: &OwnedFd| std::fs::read_link(mount::proc_path(file.as_fd()));
        let cannot = || "cannot name a mount point of the container".to_owned();
        let (found, root) = (name(target).context(cannot)?, name(&self.container.root));
        let inside = found.strip_prefix(root.context(cannot)?).map_err(|_| "it is outside");
        // Without the slash that joining an empty path adds.
        let real: PathBuf = Path::new("/").join(inside.context(cannot)?).components().collect();
        match exempt {
            Some(exempt) if real == exempt => Ok(()),
            _ => reserved::check(&real),
        }
    }

    /// Shows the host's library `source` in the container's directory `folder` as `name`, and by
    /// each of `aliases`. What is there already is covered, not removed; but a link to another
    /// version gives way, unless it has no number: then it only serves to link programs. Tells the
    /// names that are the host's library now.
    ///
    /// # Errors
    /// When something cannot be created there.
    pub fn add<'a>(
        &self,
        source: &Path,
        folder: &Path,
        name: &'a str,
        aliases: &'a [String],
    ) -> Result<Vec<&'a str>> {
        let cannot = || format!("cannot add the host's {}", source.display());
        let place = self.place(folder, FileType::Directory).context(cannot)?;
        let path = folder.join(name);
        self.clear_dangling(&place, name, &path).context(cannot)?;
        if self.leads_elsewhere(&path, major(name))? {
            self.remove_link(&place, name).context(cannot)?;
        }
        if self.container.find(&path, OFlags::PATH)?.is_none() {
            self.create(&place, OsStr::new(name), FileType::RegularFile).context(cannot)?;
        }
        self.replace(source, &path)?;
        let mut names = vec![name];
        for alias in aliases {
            let path = folder.join(alias);
            if self.leads_elsewhere(&path, major(alias).or_else(|| major(name)))? {
                if major(alias).is_none() {
                    continue;
                }
                self.remove_link(&place, alias).context(cannot)?;
            }
            if !self.link_in(&place, alias, &path, Path::new(name)).context(cannot)? {
                self.replace(source, &path)?;
            }
            names.push(alias);
        }
        Ok(names)
    }

    /// Whether `path` is a link to a library of another major number than `wanted`.
    fn leads_elsewhere(&self, path: &Path, wanted: Option<u32>) -> Result<bool> {
        // A name without a number is no library's, or of any.
        if wanted.is_none() {
            return Ok(false);
        }
        let Some((_, names)) = self.container.follow(path)? else { return Ok(false) };
        let end = names.last().filter(|_| names.len() > 1);
        Ok(end.is_some_and(|name| major(name) != wanted))
    }

    /// Lets the container's file `target` be found as `name`, beside it and where linkers look
    /// without being told to. What is there already stays. Tells the path of the first new link.
    ///
    /// # Errors
    /// When it cannot be created there.
    pub fn link(&self, target: &Path, name: &str) -> Result<Option<PathBuf>> {
        let trusted = TRUSTED.iter().map(Path::new);
        let mut first = None;
        for folder in target.parent().into_iter().chain(trusted) {
            let path = folder.join(name);
            if let Some(place) = self.container.find(folder, OFlags::PATH)?
                && self.link_in(&place, name, &path, target)?
            {
                first.get_or_insert(path);
            }
        }
        Ok(first)
    }

    /// Makes the link `name` to `target` in the directory `place`, unless `path` is there.
    fn link_in(&self, place: &OwnedFd, name: &str, path: &Path, target: &Path) -> Result<bool> {
        self.clear_dangling(place, name, path)?;
        if self.container.find(path, OFlags::PATH)?.is_some() {
            return Ok(false);
        }
        let link = || {
            rustix::fs::symlinkat(target, place, name)
                .context(|| format!("cannot create {}", path.display()))
        };
        self.create_by(place, &link).map(|()| true)
    }

    /// Takes a link away, where that is the container's own affair.
    fn remove_link(&self, place: &OwnedFd, name: &str) -> Result<()> {
        if !self.own.contains(&mount::id_of(place)?) {
            return Err(Error::new("it is a link in a directory of the host"));
        }
        rustix::fs::unlinkat(place, name, AtFlags::empty())
            .context(|| format!("cannot remove {name}"))
    }

    /// Takes away a link that leads nowhere.
    fn clear_dangling(&self, place: &OwnedFd, name: &str, path: &Path) -> Result<()> {
        let itself = self.container.find(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if itself.is_some() && self.container.find(path, OFlags::PATH)?.is_none() {
            let unlink = || {
                rustix::fs::unlinkat(place, name, AtFlags::empty())
                    .context(|| format!("cannot replace {}", path.display()))
            };
            self.create_by(place, &unlink)?;
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
        let place = self.place(folder, FileType::Directory).context(cannot)?;
        let found = self.container.find(&path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if found.is_some_and(|found| kind_of(found).is_ok_and(|kind| kind == FileType::Symlink)) {
            self.remove_link(&place, name).context(cannot)?;
        }
        self.add(source, folder, name, &[]).map(drop)
    }

    /// Shows a file, directory or device of the host at the same path.
    ///
    /// # Errors
    /// When it is not there, or the path is reserved, or something else in the container.
    pub fn share(&self, path: &Path) -> Result<()> {
        reserved::check(path)?;
        self.show(path, path, Restrictions::default())
    }

    /// Shows the host's `source` at `path`, over what is there.
    ///
    /// # Errors
    /// When it is not there, or the path is something else in the container.
    pub fn show(&self, source: &Path, path: &Path, restrictions: Restrictions) -> Result<()> {
        let cannot = || format!("cannot mount the host's {}", source.display());
        let kind =
            kind_of(resolve::open_in_root(&self.host.root, source, OFlags::PATH, Mode::empty())?)?;
        let kind = match kind {
            FileType::Directory => FileType::Directory,
            _ => FileType::RegularFile,
        };
        // Before anything is created.
        self.spare_runtime(path).context(cannot)?;
        let target = self.place(path, kind).context(cannot)?;
        self.judge(&target, Some(path)).context(cannot)?;
        if (kind_of(&target)? == FileType::Directory) != (kind == FileType::Directory) {
            return Err("only one of host and container has a directory there").context(cannot);
        }
        let source = self.source(source).context(cannot)?;
        mount_once(&source, &target, restrictions).context(cannot)
    }

    /// Tells whether two paths of the container lead to the same file.
    fn is_same(&self, one: &str, other: &str) -> Result<bool> {
        let find = |path: &str| self.container.find(Path::new(path), OFlags::PATH);
        let (Some(one), Some(other)) = (find(one)?, find(other)?) else { return Ok(false) };
        Ok(FileId::from_fd(&one)? == FileId::from_fd(&other)?)
    }

    /// Insists that no link of the image leads `path` to where the runtime works as root.
    fn spare_runtime(&self, path: &Path) -> Result<()> {
        let deepest = path.ancestors().find_map(|known| {
            let found = self.container.find(known, OFlags::PATH).transpose()?;
            Some(found.map(|found| (found, path.strip_prefix(known).unwrap_or(path))))
        });
        let Some((found, missing)) = deepest.transpose()? else { return Ok(()) };
        let name = |file: &OwnedFd| std::fs::read_link(mount::proc_path(file.as_fd()));
        let cannot = || format!("cannot name {}", path.display());
        let (found, root) = (name(&found).context(cannot)?, name(&self.container.root));
        let inside = found.strip_prefix(root.context(cannot)?).map_err(|_| "it is outside");
        let real = Path::new("/").join(inside.context(cannot)?).join(missing);
        // Without the slash that joining an empty path adds.
        let real: PathBuf = real.components().collect();
        if real == path {
            return Ok(());
        }
        reserved::check(&real).map_err(|_| {
            Error::new(format!("{} leads to {} there", path.display(), real.display()))
        })
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
        self.create_by(parent, &|| {
            let cannot = || format!("cannot create {}", name.to_string_lossy());
            if kind == FileType::Directory {
                let mode = Mode::from_raw_mode(0o755);
                return rustix::fs::mkdirat(parent, name, mode).context(cannot);
            }
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat(parent, name, flags, mode).context(cannot).map(drop)
        })
    }

    /// Changes the directory `parent`: as root on what is the container's alone, else as its user.
    fn create_by(&self, parent: &OwnedFd, work: &dyn Fn() -> Result<()>) -> Result<()> {
        if self.own.contains(&mount::id_of(parent)?) {
            work()
        } else {
            ids::as_other_user(&self.user, work)
        }
    }

    /// Lists `libraries` in the container's `/etc/ld.so.cache`, which holds the bytes `old`. A new file
    /// takes the place of the old one; no link is followed, and none of the image's programs runs.
    ///
    /// # Errors
    /// If it cannot be written there.
    pub fn list(&self, old: &[u8], libraries: &[Listing]) -> Result<()> {
        let cannot = || format!("cannot rewrite the container's {}", ldcache::PATH);
        let exists = |path: &[u8]| {
            let path = Path::new(OsStr::from_bytes(path));
            !matches!(self.container.find(path, OFlags::PATH), Ok(None))
        };
        let is_merged = self.is_same("/lib", "/usr/lib").context(cannot)?;
        let root = ldcache::Root { is_merged, exists: &exists };
        let bytes = ldcache::add(old, libraries, root).context(cannot)?;
        if bytes == old {
            return Ok(());
        }
        let path = Path::new(ldcache::PATH);
        let found = self.container.find(path, OFlags::PATH | OFlags::NOFOLLOW).context(cannot)?;
        let status = resolve::status(found.ok_or("it is gone").context(cannot)?).context(cannot)?;
        let folder = path.parent().unwrap_or(path);
        let place =
            self.container.find(folder, OFlags::PATH | OFlags::DIRECTORY).context(cannot)?;
        let place = place.ok_or("it is gone").context(cannot)?;
        let mut number = [0; 8];
        random::fill(&mut number).context(cannot)?;
        let temporary = format!(".ld.so.cache.{:x}", u64::from_ne_bytes(number));
        let name = path.file_name().unwrap_or_default();
        let work = || {
            let written = write_beside(&place, &temporary, &bytes, &status)
                .and_then(|()| rustix::fs::renameat(&place, &temporary, &place, name));
            if written.is_err() {
                rustix::fs::unlinkat(&place, &temporary, AtFlags::empty()).ok();
            }
            written.context(cannot)
        };
        self.create_by(&place, &work)
    }
}

/// Writes the new file `name` in `folder`, readable for all. It belongs to whom `old` belonged to, or
/// to the caller who may not give it away.
fn write_beside(
    folder: &OwnedFd,
    name: &str,
    mut bytes: &[u8],
    old: &Stat,
) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?;
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes))?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    if ids::is_effective_root() {
        set_owner(&file, Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))
}

/// Mounts `source` on `target`, unless it is there already: twice the same would only pile up mounts.
fn mount_once(source: &OwnedFd, target: &OwnedFd, restrictions: Restrictions) -> Result<()> {
    if FileId::from_fd(source)? == FileId::from_fd(target)? {
        return Ok(());
    }
    mount::bind(source, target, restrictions)
}

/// The mount of the container's `/dev`, if it is a file system of its own in memory.
fn own_dev(host: &OwnedFd, root: &OwnedFd) -> Result<Option<u64>> {
    let open = |root: &OwnedFd| {
        resolve::find_in_root(root, Path::new("dev"), OFlags::PATH | OFlags::NOFOLLOW)
    };
    let cannot = || "cannot look at /dev".to_owned();
    let (Some(ours), Some(theirs)) = (open(host)?, open(root)?) else { return Ok(None) };
    let device = |file: &OwnedFd| resolve::status(file).map(|status| status.st_dev);
    let kind = rustix::fs::fstatfs(&theirs).context(cannot)?.f_type as u64;
    let is_own =
        kind == TMPFS_MAGIC && device(&ours).context(cannot)? != device(&theirs).context(cannot)?;
    if is_own { mount::id_of(&theirs).map(Some) } else { Ok(None) }
}
