//! A file tree, the container's or the host's, whose paths never lead out of it.
//!
//! In a container everything is looked up with the rights of its user: a directory that the user
//! mounted into it is the host's, and shows to a hook no more than to them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::elf;
use super::ldcache;
use super::library::Library;
use crate::error::{Context, Error, Result};
use crate::sys::fs::resolve;
use crate::sys::ids;
use crate::user::User;

/// As the kernel's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// As the kernel's own limit of paths: links could make them grow.
const MAX_PATH: usize = 4096;

/// A directory that is taken for `/`, and who looks at it.
#[derive(Debug)]
pub struct Tree {
    /// The directory.
    pub root: OwnedFd,
    /// With whose rights, if not with all.
    pub user: Option<User>,
}

impl Tree {
    /// Runs `work` as who looks at the tree.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn act<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.user {
            Some(user) => ids::as_other_user(user, work),
            None => work(),
        }
    }

    /// Opens `path` in the tree, if it is there.
    ///
    /// # Errors
    /// When it is there, but cannot be opened.
    pub fn find(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
        self.act(|| resolve::find_in_root(&self.root, path, flags))
    }

    /// Opens the regular file `path` for reading, if it is there. Pipes and devices are not touched.
    ///
    /// # Errors
    /// When it is something else, or cannot be opened.
    pub fn open_file(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let Some(found) = self.find(path, OFlags::PATH)? else { return Ok(None) };
        let regular = |file: &OwnedFd| match kind_of(file)? {
            FileType::RegularFile => Ok(()),
            _ => Err(Error::new(format!("cannot open {}: it is no regular file", path.display()))),
        };
        regular(&found)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.find(path, flags)?;
        file.map(|file| regular(&file).map(|()| file)).transpose()
    }

    /// Follows links from `path` to a file: its path at last, and the names on the way. None if it
    /// leads nowhere.
    ///
    /// # Errors
    /// When it cannot be followed, or does not end at a regular file.
    pub fn follow(&self, path: &Path) -> Result<Option<(PathBuf, Vec<String>)>> {
        let cannot = || format!("cannot use {}", path.display());
        let (mut at, mut names) = (path.to_owned(), Vec::new());
        while names.len() < MAX_LINKS {
            let Some(found) = self.find(&at, OFlags::PATH | OFlags::NOFOLLOW)? else {
                return Ok(None);
            };
            let name = at.file_name().map(|name| name.to_string_lossy().into_owned());
            names.push(name.ok_or("it has no name").context(cannot)?);
            match kind_of(&found)? {
                FileType::RegularFile => return Ok(Some((at, names))),
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&found, "", Vec::new()).context(cannot)?;
                    let target = target.to_string_lossy().into_owned();
                    // Joined, not shortened: what `..` means depends on links on the way.
                    at = at.parent().unwrap_or(Path::new("/")).join(target);
                    if at.as_os_str().len() > MAX_PATH {
                        return Err("its links are too long").context(cannot);
                    }
                }
                _ => return Err("it is no regular file").context(cannot),
            }
        }
        Err("too many links").context(cannot)
    }

    /// The library at `path`, if it is there.
    ///
    /// # Errors
    /// When it is none for this machine.
    pub fn library(&self, path: &Path) -> Result<Option<Library>> {
        let Some((real, names)) = self.follow(path)? else { return Ok(None) };
        let cannot = || format!("cannot read {}", path.display());
        let Some(file) = self.open_file(&real)? else { return Ok(None) };
        let elf = elf::read(&file).context(cannot)?;
        Ok(Some(Library { path: path.to_owned(), real, names, elf }))
    }

    /// The libraries at `paths` that are there, each path once.
    ///
    /// # Errors
    /// If there are more than `max` different paths, or one is not a library for this machine.
    pub fn libraries<'a>(
        &self,
        paths: impl Iterator<Item = &'a str>,
        max: usize,
    ) -> Result<Vec<Library>> {
        let mut different: Vec<&str> = Vec::new();
        for path in paths {
            if different.contains(&path) {
                continue;
            }
            if different.len() == max {
                let text = format!("more than {max} libraries have the same name, as {path:.80}");
                return Err(Error::new(text));
            }
            different.push(path);
        }
        let library = |path: &str| self.library(Path::new(path)).transpose();
        different.into_iter().filter_map(library).collect()
    }

    /// The bytes of the tree's `/etc/ld.so.cache`, if it has one.
    ///
    /// # Errors
    /// If it is too large, or not a regular file.
    pub fn cache(&self) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(Path::new(ldcache::PATH))? else { return Ok(None) };
        let size = resolve::status(&file).context(|| "cannot stat it".into())?.st_size;
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size > ldcache::MAX_SIZE {
            return Err(Error::new("it is too large"));
        }
        elf::Source::bytes(&file, 0, size).map(Some)
    }
}

/// Which kind of file is open.
///
/// # Errors
/// When the file system does not tell.
pub fn kind_of(file: impl AsFd) -> Result<FileType> {
    let status = resolve::status(file).context(|| "cannot stat it".into())?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

/// The directory `path`, by `O_PATH`.
///
/// # Errors
/// When it is not there.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))
}
