//! Resolution of paths where others may have put links.
//!
//! [`open_in_root`] opens a path inside a root directory as if that were `/` (RESOLVE_IN_ROOT): no link,
//! no `..` and no race leads out of it. openat2(2) does so since Linux 5.6. Before, and where a seccomp
//! filter refuses the call, [`Resolver`] does the same component by component; it can also show each
//! step to a visitor.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// Maximum number of links that a path may lead through: the kernel's own (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Maximum number of calls of openat2(2) while other processes rename directories (EAGAIN).
const MAX_TRIES: u32 = 16;

/// Opens `path` inside `root`. Links are followed inside `root`, but for the last component when
/// `flags` hold `NOFOLLOW`; `mode` is for `CREATE`.
///
/// # Errors
/// If it cannot be opened; the message names `path`.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    open(root.as_fd(), path, flags, mode).context(|| cannot_open(path))
}

/// Opens `path` inside `root` as [`open_in_root`] does; `None` if it does not exist.
///
/// # Errors
/// If it exists, but cannot be opened.
pub fn find_in_root(root: impl AsFd, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
    match open(root.as_fd(), path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| cannot_open(path)),
    }
}

/// Opens the file `path` of the host for reading. A pipe or a device of that name neither blocks nor
/// acts, and magic links (`/proc/self/fd`) are not followed.
///
/// # Errors
/// If it cannot be opened, or is not a regular file.
pub fn regular_file(path: &Path) -> Result<OwnedFd> {
    let context = || cannot_open(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).context(context)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(&root, path, flags, Mode::empty())?;
    match kind(&status(&file).context(context)?) {
        FileType::RegularFile => Ok(file),
        _ => Err("not a regular file").context(context),
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

/// Called for each step: with the path from the root on, and the status of what was opened there.
pub type Visitor<'a> = dyn FnMut(&Path, &Stat) -> rustix::io::Result<()> + 'a;

/// Resolves a path component by component. `..` returns to the directory that was opened before, so
/// that no rename in between leads out of the root.
pub struct Resolver<'a> {
    /// Root and each directory down to the current one.
    opened: Vec<OwnedFd>,
    /// Path of the current directory.
    names: PathBuf,
    /// Components that are left, the next one last.
    ahead: Vec<OsString>,
    links: u32,
    mode: Mode,
    visit: Option<&'a mut Visitor<'a>>,
}

impl<'a> Resolver<'a> {
    /// Starts at `root`, and never leaves it.
    ///
    /// # Errors
    /// If no descriptor is left.
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

    /// Sets the mode of a file that is created at the end.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Sets a visitor, which sees each step, links and the root included, and can end the resolution by
    /// an error. It sees the last component before anything is read from that.
    #[must_use]
    pub fn visiting(self, visit: &'a mut Visitor<'a>) -> Self {
        Self { visit: Some(visit), ..self }
    }

    /// Resolves `path`, and opens what it leads to.
    ///
    /// # Errors
    /// Errors of the kernel or of the visitor.
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

    /// Puts the components of `path` before those that are left.
    fn push(&mut self, path: &Path) {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        self.ahead.extend(parts);
    }

    /// Enters the directory `name`, or follows the link `name`.
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

    /// Continues at the text of `link`, inside the root. Magic links of `/proc`, which lead elsewhere than
    /// they read, become ordinary ones by that.
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

    /// Opens `name`, the last component; `None` if it is a link, whose target is resolved next.
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

/// Returns the status of an open file, which may be opened by `O_PATH`: fstat(2) refuses that before
/// Linux 3.6.
///
/// # Errors
/// If the file system does not answer.
pub fn status(file: impl AsFd) -> rustix::io::Result<Stat> {
    rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)
}

fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

#[cfg(test)]
mod tests;
