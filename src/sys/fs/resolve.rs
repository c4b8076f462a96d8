//! Opening files where others may have put links.
//!
//! [`open_in_root`] opens a path inside a root directory, as if that were `/`: no link, no `..` and no
//! race leads out of it. The kernel does so by openat2(2) since 5.6; for older ones, and where a
//! seccomp filter knows the call not, [`Resolver`] does the same from component to component, and
//! can show each step to a visitor.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// As the kernel's own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// How often openat2 is asked again when somebody renames directories meanwhile (EAGAIN).
const MAX_TRIES: u32 = 16;

/// Opens `path` inside `root`. Links are followed inside `root`, but for the last component when
/// `flags` hold `NOFOLLOW`; `mode` is for `CREATE`.
///
/// # Errors
/// When it cannot be opened; the text names `path`.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    open(root.as_fd(), path, flags, mode).context(|| cannot_open(path))
}

/// As [`open_in_root`], for what may not be there.
///
/// # Errors
/// When it is there, but cannot be opened.
pub fn find_in_root(root: impl AsFd, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
    match open(root.as_fd(), path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| cannot_open(path)),
    }
}

/// Opens the file `path` of the host for reading. Neither a pipe nor a device of that name can make
/// the caller wait or act, and links to descriptors of this process are not followed.
///
/// # Errors
/// When it cannot be opened, or is no regular file.
pub fn regular_file(path: &Path) -> Result<OwnedFd> {
    let what = || cannot_open(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).context(what)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(&root, path, flags, Mode::empty())?;
    match kind(&status(&file).context(what)?) {
        FileType::RegularFile => Ok(file),
        _ => Err("it is no regular file").context(what),
    }
}

fn cannot_open(path: &Path) -> String {
    format!("cannot open {}", path.display())
}

fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    match open_by_kernel(root, path, flags, mode) {
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_by_walk(root, path, flags, mode),
        result => result,
    }
}

fn open_by_kernel(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..MAX_TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn open_by_walk(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    Resolver::new(root)?.with_mode(mode).open(path, flags)
}

/// A step of a walk: the status of what was opened, and the path that led there, from the root on.
pub type Visitor<'a> = dyn FnMut(&Path, &Stat) -> rustix::io::Result<()> + 'a;

/// A path being followed from component to component. `..` goes back to the directory that was
/// opened before, so that no rename in between can lead the walk out of its root.
pub struct Resolver<'a> {
    /// The root and each directory down to where we are.
    opened: Vec<OwnedFd>,
    /// The name of each of them but the root.
    names: PathBuf,
    /// What is still to be followed, the next one last.
    ahead: Vec<OsString>,
    links: u32,
    mode: Mode,
    visit: Option<&'a mut Visitor<'a>>,
}

impl<'a> Resolver<'a> {
    /// A walk from `root`, which it never leaves.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(root: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let root = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
        Ok(Self {
            opened: vec![root],
            names: PathBuf::from("/"),
            ahead: Vec::new(),
            links: 0,
            mode: Mode::empty(),
            visit: None,
        })
    }

    /// A file that is created at the end gets `mode`.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Shows everything that is passed, links and the root included, to `visit`, which can end the
    /// walk. The last component is shown before anything is read from it.
    #[must_use]
    pub fn visiting(self, visit: &'a mut Visitor<'a>) -> Self {
        Self { visit: Some(visit), ..self }
    }

    /// Follows `path` and opens its end.
    ///
    /// # Errors
    /// What the kernel, or the visitor, says.
    pub fn open(mut self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT);
        }
        if let (Some(visit), Some(root)) = (&mut self.visit, self.opened.last()) {
            visit(&self.names, &status(root)?)?;
        }
        self.push(path);
        while let Some(name) = self.ahead.pop() {
            if name == ".." {
                if self.opened.len() > 1 {
                    self.opened.pop();
                    self.names.pop();
                }
            } else if self.ahead.is_empty() {
                if let Some(end) = self.last(&name, flags)? {
                    return Ok(end);
                }
            } else {
                self.enter(&name)?;
            }
        }
        // The path ended in a directory that is open already: `/` or `a/..`.
        rustix::fs::openat(self.here()?, ".", flags | OFlags::CLOEXEC, self.mode)
    }

    fn here(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.opened.last().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn show(&mut self, path: &Path, status: &Stat) -> rustix::io::Result<()> {
        self.visit.as_mut().map_or(Ok(()), |visit| visit(path, status))
    }

    /// Puts the components of `path` before what is still ahead.
    fn push(&mut self, path: &Path) {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        self.ahead.extend(parts);
    }

    /// Goes into the directory `name`, or to where the link `name` points.
    fn enter(&mut self, name: &OsString) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(self.here()?, name, flags, Mode::empty())?;
        let (path, status) = (self.names.join(name), status(&found)?);
        self.show(&path, &status)?;
        match kind(&status) {
            FileType::Symlink => self.follow(found.as_fd()),
            FileType::Directory => {
                self.opened.push(found);
                self.names = path;
                Ok(())
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Goes on at what `link` reads as, inside the root. That makes the links of `/proc`, which
    /// lead elsewhere than they read, as harmless as any.
    fn follow(&mut self, link: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let target = rustix::fs::readlinkat(link, "", Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.opened.truncate(1);
            self.names = PathBuf::from("/");
        }
        self.push(&target);
        Ok(())
    }

    /// Opens `name`, the last component; `None` if the end is still to be reached.
    fn last(&mut self, name: &OsString, flags: OFlags) -> rustix::io::Result<Option<OwnedFd>> {
        let path = self.names.join(name);
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(self.here()?, name, look, Mode::empty()) {
            Err(Errno::NOENT) => None,
            found => Some(found?),
        };
        if let Some(found) = found {
            let status = status(&found)?;
            let kind = kind(&status);
            let stays = OFlags::NOFOLLOW.union(OFlags::EXCL);
            if kind == FileType::Symlink && !flags.intersects(stays) {
                self.show(&path, &status)?;
                return self.follow(found.as_fd()).map(|()| None);
            }
            if flags.contains(OFlags::PATH) {
                if flags.contains(OFlags::DIRECTORY) && kind != FileType::Directory {
                    return Err(Errno::NOTDIR);
                }
                self.show(&path, &status)?;
                return Ok(Some(found));
            }
        }
        // Should it have become a link just now, this fails.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let end = rustix::fs::openat(self.here()?, name, flags, self.mode)?;
        if self.visit.is_some() {
            self.show(&path, &status(&end)?)?;
        }
        Ok(Some(end))
    }
}

impl std::fmt::Debug for Resolver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolver at {}", self.names.display())
    }
}

/// The status of an open file, also when it was opened by `O_PATH`: there fstat(2) itself works
/// only since Linux 3.6.
///
/// # Errors
/// When the file system does not answer.
pub fn status(file: impl AsFd) -> rustix::io::Result<Stat> {
    rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)
}

fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

#[cfg(test)]
mod tests;
