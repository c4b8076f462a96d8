//! A root directory, the container's or the host's: paths are resolved inside of it.
//!
//! A hook looks up paths in a container with the rights of the container's user: a directory that the
//! user mounted there belongs to the host, and a hook must not read more of it than the user may.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::sys::fs::resolve;
use crate::sys::ids;
use crate::user::User;

/// Maximum number of symbolic links in a path: `MAXSYMLINKS` of the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Maximum length of a path in bytes: `PATH_MAX` of the kernel. Links could make a path grow.
const MAX_PATH: usize = 4096;

/// A directory that paths are resolved in, as by chroot(2).
#[derive(Debug)]
pub struct RootDir {
    /// The directory, opened by `O_PATH`.
    pub directory: OwnedFd,
    /// The user whose rights paths are looked up with; `None` for those of the process.
    pub user: Option<User>,
}

impl RootDir {
    /// The root directory of the process, with all its rights.
    ///
    /// # Errors
    /// If `/` cannot be opened.
    pub fn host() -> Result<Self> {
        Ok(Self { directory: open_directory(Path::new("/"))?, user: None })
    }

    /// Runs `work` with the rights of the directory's user.
    ///
    /// # Errors
    /// Those of `work`, or if the ids cannot be changed.
    pub fn act<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.user {
            Some(user) => ids::as_other_user(user, work),
            None => work(),
        }
    }

    /// Opens `path`; `None` if it does not exist.
    ///
    /// # Errors
    /// If it exists and cannot be opened.
    pub fn find(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
        self.act(|| resolve::find_in_root(&self.directory, path, flags))
    }

    /// Opens the regular file `path` for reading; `None` if it does not exist. Pipes and devices are
    /// not opened, only looked at by `O_PATH`.
    ///
    /// # Errors
    /// If it is not a regular file, or cannot be opened.
    pub fn open_file(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let Some(found) = self.find(path, OFlags::PATH)? else { return Ok(None) };
        let regular = |file: &OwnedFd| match file_type(file)? {
            FileType::RegularFile => Ok(()),
            _ => Err(Error::new(format!("cannot open {}: not a regular file", path.display()))),
        };
        regular(&found)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.find(path, flags)?;
        file.map(|file| regular(&file).map(|()| file)).transpose()
    }

    /// Follows symbolic links from `path` to a regular file: the path of that file, and the file names
    /// of all links and of the file. `None` if a link is dangling.
    ///
    /// # Errors
    /// If a link cannot be read, there are too many, or the end is not a regular file.
    pub fn follow(&self, path: &Path) -> Result<Option<(PathBuf, Vec<String>)>> {
        let context = || format!("cannot use {}", path.display());
        let (mut at, mut names) = (path.to_owned(), Vec::new());
        while names.len() < MAX_LINKS {
            let Some(found) = self.find(&at, OFlags::PATH | OFlags::NOFOLLOW)? else {
                return Ok(None);
            };
            let name = at.file_name().map(|name| name.to_string_lossy().into_owned());
            names.push(name.ok_or("the path has no file name").context(context)?);
            match file_type(&found)? {
                FileType::RegularFile => return Ok(Some((at, names))),
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&found, "", Vec::new()).context(context)?;
                    let target = target.to_string_lossy().into_owned();
                    // Joined, not shortened: the meaning of `..` depends on links in the path.
                    at = at.parent().unwrap_or(Path::new("/")).join(target);
                    if at.as_os_str().len() > MAX_PATH {
                        return Err("the targets of its links are too long").context(context);
                    }
                }
                _ => return Err("not a regular file").context(context),
            }
        }
        Err("too many links").context(context)
    }
}

/// The type of an open file.
///
/// # Errors
/// If the file system does not answer.
pub fn file_type(file: impl AsFd) -> Result<FileType> {
    let status = resolve::status(file).context(|| "cannot stat a file".into())?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

/// Opens the directory `path` by `O_PATH`.
///
/// # Errors
/// If it does not exist, or is a link or another kind of file.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))
}
