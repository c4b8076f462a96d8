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
use super::ldcache::Entry;
use super::library::major;
use super::{elf, setting};
use crate::error::{Because, Error, Result};
use crate::reserved;
use crate::sys::confined::{self, Identity};
use crate::sys::mount::{self, Restrictions};
use crate::sys::{ids, open};
use crate::user::User;

/// More directories of libraries than an image has. Their names, of which `ldcache` bounds each,
/// together are no more than the kernel takes as arguments.
const MAX_FOLDERS: usize = 64;

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
    /// each of `aliases`. What is there already is covered, not removed; but a link to another
    /// version gives way, unless it has no number: then it only serves to link programs.
    ///
    /// # Errors
    /// When something cannot be created there.
    pub fn add(&self, source: &Path, folder: &Path, name: &str, aliases: &[String]) -> Result<()> {
        let cannot = || format!("cannot add the host's {}", source.display());
        let place = self.place(folder, FileType::Directory).because(cannot)?;
        let path = folder.join(name);
        self.clear_dangling(&place, name, &path).because(cannot)?;
        if self.leads_elsewhere(&path, major(name))? {
            self.remove_link(&place, name).because(cannot)?;
        }
        if self.container.find(&path, OFlags::PATH)?.is_none() {
            self.create(&place, OsStr::new(name), FileType::RegularFile).because(cannot)?;
        }
        self.replace(source, &path)?;
        for alias in aliases {
            let path = folder.join(alias);
            if self.leads_elsewhere(&path, major(alias).or_else(|| major(name)))? {
                if major(alias).is_none() {
                    continue;
                }
                self.remove_link(&place, alias).because(cannot)?;
            }
            if !self.link_in(&place, alias, &path, Path::new(name)).because(cannot)? {
                self.replace(source, &path)?;
            }
        }
        Ok(())
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
    /// without being told to. What is there already stays.
    ///
    /// # Errors
    /// When it cannot be created there.
    pub fn link(&self, target: &Path, name: &str) -> Result<()> {
        let trusted = TRUSTED.iter().map(Path::new);
        for folder in target.parent().into_iter().chain(trusted) {
            if let Some(place) = self.container.find(folder, OFlags::PATH)? {
                self.link_in(&place, name, &folder.join(name), target)?;
            }
        }
        Ok(())
    }

    /// Makes the link `name` to `target` in the directory `place`, unless `path` is there.
    fn link_in(&self, place: &OwnedFd, name: &str, path: &Path, target: &Path) -> Result<bool> {
        self.clear_dangling(place, name, path)?;
        if self.container.find(path, OFlags::PATH)?.is_some() {
            return Ok(false);
        }
        let link = || {
            rustix::fs::symlinkat(target, place, name)
                .because(|| format!("cannot create {}", path.display()))
        };
        self.create_by(place, &link).map(|()| true)
    }

    /// Takes a link away, where that is the container's own affair.
    fn remove_link(&self, place: &OwnedFd, name: &str) -> Result<()> {
        if !self.own.contains(&mount::id_of(place)?) {
            return Err(Error::new("it is a link in a directory of the host"));
        }
        rustix::fs::unlinkat(place, name, AtFlags::empty())
            .because(|| format!("cannot remove {name}"))
    }

    /// Takes away a link that leads nowhere.
    fn clear_dangling(&self, place: &OwnedFd, name: &str, path: &Path) -> Result<()> {
        let itself = self.container.find(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if itself.is_some() && self.container.find(path, OFlags::PATH)?.is_none() {
            let unlink = || {
                rustix::fs::unlinkat(place, name, AtFlags::empty())
                    .because(|| format!("cannot replace {}", path.display()))
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
        let place = self.place(folder, FileType::Directory).because(cannot)?;
        let found = self.container.find(&path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if found.is_some_and(|found| kind_of(found).is_ok_and(|kind| kind == FileType::Symlink)) {
            self.remove_link(&place, name).because(cannot)?;
        }
        self.add(source, folder, name, &[])
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
        let kind = kind_of(open::beneath(&self.host.root, source, OFlags::PATH, Mode::empty())?)?;
        let kind = match kind {
            FileType::Directory => FileType::Directory,
            _ => FileType::RegularFile,
        };
        self.spare_runtime(path).because(cannot)?;
        let target = self.place(path, kind).because(cannot)?;
        if (kind_of(&target)? == FileType::Directory) != (kind == FileType::Directory) {
            return Err("only one of host and container has a directory there").because(cannot);
        }
        self.bind(source, &target, restrictions).because(cannot)
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
        let (found, root) = (name(&found).because(cannot)?, name(&self.container.root));
        let inside = found.strip_prefix(root.because(cannot)?).map_err(|_| "it is outside");
        let real = Path::new("/").join(inside.because(cannot)?).join(missing);
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
                return rustix::fs::mkdirat(parent, name, mode).because(cannot);
            }
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat(parent, name, flags, mode).because(cannot).map(drop)
        })
    }

    /// Changes the directory `parent`: as root on what is the container's alone, else as its user.
    fn create_by(&self, parent: &OwnedFd, work: &dyn Fn() -> Result<()>) -> Result<()> {
        if self.own.contains(&mount::id_of(parent)?) {
            work()
        } else {
            ids::as_other(&self.user, work)
        }
    }

    /// Has the site's ldconfig, `LDCONFIG_PATH`, write the container's `/etc/ld.so.cache` anew, which
    /// was `old`.
    ///
    /// It runs as the owner of the container's root directory, without capabilities and with that
    /// directory as its root. The owner is the container's user, or root where an image belongs to
    /// root: then nothing of the host may be mounted on what it writes.
    ///
    /// # Errors
    /// When it fails, or could do harm.
    pub fn rebuild_cache(&self, old: &[Entry]) -> Result<()> {
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
            for path in ["/etc", "/usr/lib", "/var/cache", "/var/cache/ldconfig"] {
                let found = self.container.find(Path::new(path), OFlags::PATH)?;
                if let Some(found) = found
                    && !self.own.contains(&mount::id_of(&found)?)
                {
                    return Err(format!("{path} of the container is not its own")).because(cannot);
                }
            }
        }
        // Links are as they should be already; a cache of the image's has nothing to say.
        let mut words = vec!["ldconfig", "-X", "-i"];
        let run = |words: &[&str]| {
            confined::run(program.as_fd(), words, self.container.root.as_fd(), identity)
                .because(cannot)
        };
        run(&words)?;
        // Not at once: what is named to ldconfig goes before what the image's ld.so.conf lists.
        let new = self.container.cache()?.unwrap_or_default();
        words.extend(self.forgotten(old, &new));
        if words.len() > 3 { run(&words) } else { Ok(()) }
    }

    /// The directories of the cache `old` that are not in `new`: the image named them to ldconfig
    /// when it was built. Those that linkers trust need no cache, and would go before all others.
    fn forgotten<'a>(&self, old: &'a [Entry], new: &[Entry]) -> Vec<&'a str> {
        let mut folders = Vec::new();
        for folder in old.iter().filter_map(Entry::folder) {
            if folders.len() < MAX_FOLDERS && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders.retain(|folder| {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let found = || self.container.find(Path::new(folder), flags);
            !TRUSTED.contains(folder)
                && new.iter().all(|entry| entry.folder() != Some(folder))
                && matches!(found(), Ok(Some(_)))
        });
        folders
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
