//! Trusted files: those that nobody but root can change.
//!
//! A path is followed from `/` by descriptors. Every directory and link on the way, and the file
//! itself, must belong to root and be writable for root alone; the content is then read from the
//! descriptor that was checked, never by path again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::fs::read::read_text_at_most;
use crate::sys::fs::resolve::{self, Resolver};

/// Maximum number of files in a tree, far above that of OpenSSH: a mistake (`"OCIBundleDir": "/"`) does
/// not take minutes.
const MAX_ENTRIES: usize = 4096;

/// Hint for an installation without sarus.json.
const UNCONFIGURED: &str = "run configure_installation.sh as root, which makes it";

/// Maximum depth of a tree.
const MAX_DEPTH: usize = 32;

/// Checks of owners and modes. Without them, paths are resolved in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checks {
    /// For every production site.
    #[default]
    On,
    /// `"securityChecks": false`, for test installations.
    Off,
}

/// Reads the text file `path` of at most `max` bytes, checked whatever the configuration says.
///
/// # Errors
/// If it can be tampered with, cannot be read, is larger, or is not UTF-8.
pub fn read(path: &Path, max: u64) -> Result<String> {
    Verifier::new(Checks::On)?.read(path, max)
}

/// Opens `path` by `O_PATH`, checked whatever the configuration says; `None` if it is not there.
///
/// # Errors
/// If it can be tampered with.
pub fn find(path: &Path) -> Result<Option<OwnedFd>> {
    Verifier::new(Checks::On)?.find(path)
}

/// Opens the program `path` by `O_PATH`.
///
/// # Errors
/// If it can be tampered with, or is not an executable file.
pub fn program(path: &Path, checks: Checks) -> Result<OwnedFd> {
    Verifier::new(checks)?.program(path)
}

/// Opens the directory `path` by `O_PATH`; what is in it is not looked at.
///
/// # Errors
/// If it can be tampered with, or is not a directory.
pub fn directory(path: &Path, checks: Checks) -> Result<OwnedFd> {
    Verifier::new(checks)?.directory(path)
}

/// Opens the directory `path` by `O_PATH`, after a look at all that is in it.
///
/// # Errors
/// If any of it can be tampered with.
pub fn tree(path: &Path, checks: Checks) -> Result<OwnedFd> {
    Verifier::new(checks)?.tree(path)
}

/// Opens what only its owner can change: paths start at `/` and the owner is root, except in tests.
#[derive(Debug)]
pub struct Verifier {
    root: OwnedFd,
    owner: u32,
    checks: Checks,
}

impl Verifier {
    /// A verifier for files of root's; with [`Checks::Off`] owners and modes are not looked at.
    ///
    /// # Errors
    /// If `/` cannot be opened.
    pub fn new(checks: Checks) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open("/", flags, Mode::empty()).context(|| "cannot open /".into())?;
        Ok(Self { root, owner: 0, checks })
    }

    /// Opens `path`; each step is checked before the next one.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let opened = self.walk(path, flags)?;
        let missing = matches!(opened, Err(Errno::NOENT));
        let opened = opened.context(|| format!("cannot open {}", path.display()));
        opened.map_err(|error| match missing {
            false => error,
            true if path.ends_with("etc/sarus.json") => error.with_hint(UNCONFIGURED),
            true => error.with_hint("install it, or name another in sarus.json"),
        })
    }

    /// Does the same as the function of that name.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.walk(path, OFlags::PATH)? {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some).context(|| format!("cannot open {}", path.display())),
        }
    }

    /// Resolves `path`. The outer error is a failed check, the inner one the system's.
    fn walk(&self, path: &Path, flags: OFlags) -> Result<rustix::io::Result<OwnedFd>> {
        let mut distrust = None;
        let mut visit = |passed: &Path, status: &Stat| {
            self.check_owner(passed, status).map_err(|why| {
                distrust = Some(why);
                Errno::ACCESS
            })
        };
        let walk = Resolver::new(self.root.as_fd());
        let opened = walk.and_then(|walk| walk.visiting(&mut visit).open(path, flags));
        match distrust {
            None => Ok(opened),
            Some(why) => Err(why).context(|| format!("cannot trust {}", path.display())),
        }
    }

    /// Checks that only the right owner can change the file at `path`.
    fn check_owner(&self, path: &Path, status: &Stat) -> Result<()> {
        if self.checks == Checks::Off {
            return Ok(());
        }
        let path = path.display();
        if status.st_uid != self.owner {
            return Err(Error::new(format!("{path} is owned by uid {}", status.st_uid))
                .with_hint(format!("chown -h root {path}")));
        }
        // The mode of a link says nothing: its directory decides.
        if FileType::from_raw_mode(status.st_mode) == FileType::Symlink {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(status.st_mode);
        let who = match (mode.contains(Mode::WGRP), mode.contains(Mode::WOTH)) {
            (false, false) => return Ok(()),
            (true, false) => "its group",
            (false, true) => "others",
            (true, true) => "its group and others",
        };
        // Such as /tmp, which is as it should be.
        let hint = match mode.contains(Mode::SVTX) {
            true => format!("every user can write in {path}: choose another directory"),
            false => format!("chmod go-w {path}"),
        };
        Err(Error::new(format!("{path} is writable for {who}")).with_hint(hint))
    }

    /// Does the same as the function of that name.
    pub fn program(&self, path: &Path) -> Result<OwnedFd> {
        let program = self.open(path, OFlags::PATH)?;
        let context = || format!("cannot use {}", path.display());
        let status = resolve::status(&program).context(context)?;
        let executable = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err("not a file").context(context);
        }
        if !Mode::from_raw_mode(status.st_mode).intersects(executable) {
            return Err("not executable").context(context);
        }
        Ok(program)
    }

    /// Does the same as the function of that name.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn read(&self, path: &Path, max: u64) -> Result<String> {
        // A pipe in its place must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open(path, flags)?;
        let context = || format!("cannot read {}", path.display());
        let status = resolve::status(&file).context(context)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err("not a file").context(context);
        }
        read_text_at_most(std::fs::File::from(file), max).context(context)
    }

    /// Does the same as the function of that name.
    pub fn tree(&self, path: &Path) -> Result<OwnedFd> {
        let directory = self.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
        if self.checks == Checks::On {
            self.look_into(path, directory.as_fd(), MAX_DEPTH, &mut MAX_ENTRIES.clone())
                .context(|| format!("cannot trust {}", path.display()))?;
        }
        Ok(directory)
    }

    fn look_into(
        &self,
        path: &Path,
        directory: BorrowedFd<'_>,
        depth: usize,
        left: &mut usize,
    ) -> Result<()> {
        let context = || format!("cannot look into {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(directory, ".", flags, Mode::empty()).context(context)?;
        for entry in rustix::fs::Dir::new(listing).context(context)? {
            let entry = entry.context(context)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            *left = left.checked_sub(1).ok_or("too many files to check").context(context)?;
            let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue, // removed meanwhile
                found => found.context(|| format!("cannot open {}", path.display()))?,
            };
            let status = resolve::status(&found).context(context)?;
            self.check_owner(&path, &status)?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Symlink => drop(self.open(&path, OFlags::PATH)?),
                FileType::Directory => {
                    let depth = depth.checked_sub(1).ok_or("nested too deeply").context(context)?;
                    self.look_into(&path, found.as_fd(), depth, left)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
