//! What root may believe: files that nobody but root can change.
//!
//! A path is followed from `/` by descriptors. Every directory and link on the way, and the file
//! itself, must belong to root and be writable for root alone; the content is then read from the
//! descriptor that was judged, never by path again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::sys::fs::read::read_text_at_most;
use crate::sys::fs::resolve::{self, Resolver};

/// More than any OpenSSH tree holds; keeps a mistake (`"OCIBundleDir": "/"`) from lasting minutes.
const MAX_ENTRIES: usize = 4096;

/// What to do where an installation has no sarus.json yet.
const UNCONFIGURED: &str = "run configure_installation.sh as root, which makes it";

/// Deeper than any directory that is checked.
const MAX_DEPTH: usize = 32;

/// Whether owners and modes are looked at. The path is walked in the same way without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checks {
    /// As every production site should.
    #[default]
    On,
    /// `"securityChecks": false`, for test installations.
    Off,
}

/// Reads the text file `path` of at most `max` bytes, checked whatever the configuration says.
///
/// # Errors
/// When it can be tampered with, cannot be read, is larger, or is no text.
pub fn read(path: &Path, max: u64) -> Result<String> {
    Verifier::new(Checks::On)?.read(path, max)
}

/// Opens `path` by `O_PATH`, checked whatever the configuration says; `None` if it is not there.
///
/// # Errors
/// When it can be tampered with.
pub fn find(path: &Path) -> Result<Option<OwnedFd>> {
    Verifier::new(Checks::On)?.find(path)
}

/// Opens the program `path` by `O_PATH`.
///
/// # Errors
/// When it can be tampered with, or is no program.
pub fn program(path: &Path, checks: Checks) -> Result<OwnedFd> {
    Verifier::new(checks)?.program(path)
}

/// Opens the directory `path` by `O_PATH`; what is in it is not looked at.
///
/// # Errors
/// When it can be tampered with, or is no directory.
pub fn directory(path: &Path, checks: Checks) -> Result<OwnedFd> {
    Verifier::new(checks)?.directory(path)
}

/// Opens the directory `path` by `O_PATH`, after a look at all that is in it.
///
/// # Errors
/// When any of it can be tampered with.
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

    /// Opens `path`; whatever is passed on the way is judged before the next step.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let opened = self.walk(path, flags)?;
        let missing = matches!(opened, Err(Errno::NOENT));
        let opened = opened.context(|| format!("cannot open {}", path.display()));
        opened.map_err(|error| match missing {
            false => error,
            true if path.ends_with("etc/sarus.json") => error.with_hint(UNCONFIGURED),
            true => error.with_hint("install it, or let sarus.json name another"),
        })
    }

    /// As the function of the same name.
    ///
    /// # Errors
    /// Those of the function.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.walk(path, OFlags::PATH)? {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some).context(|| format!("cannot open {}", path.display())),
        }
    }

    /// The outer error is distrust, the inner one that of the system.
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

    /// Whether only the right owner can change what was found at `path`.
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
            true => format!("{path} is a place for everybody: choose another"),
            false => format!("chmod go-w {path}"),
        };
        Err(Error::new(format!("{path} is writable for {who}")).with_hint(hint))
    }

    /// As the function of the same name.
    ///
    /// # Errors
    /// Those of the function.
    pub fn program(&self, path: &Path) -> Result<OwnedFd> {
        let program = self.open(path, OFlags::PATH)?;
        let what = || format!("cannot use {}", path.display());
        let status = resolve::status(&program).context(what)?;
        let executable = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err("not a file").context(what);
        }
        if !Mode::from_raw_mode(status.st_mode).intersects(executable) {
            return Err("not executable").context(what);
        }
        Ok(program)
    }

    /// As the function of the same name.
    ///
    /// # Errors
    /// Those of the function.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn read(&self, path: &Path, max: u64) -> Result<String> {
        // A pipe in its place must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open(path, flags)?;
        let what = || format!("cannot read {}", path.display());
        let status = resolve::status(&file).context(what)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err("not a file").context(what);
        }
        read_text_at_most(std::fs::File::from(file), max).context(what)
    }

    /// As the function of the same name.
    ///
    /// # Errors
    /// Those of the function.
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
        let what = || format!("cannot look into {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(directory, ".", flags, Mode::empty()).context(what)?;
        for entry in rustix::fs::Dir::new(listing).context(what)? {
            let entry = entry.context(what)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            *left = left.checked_sub(1).ok_or("it holds too much to be checked").context(what)?;
            let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue, // just removed
                found => found.context(|| format!("cannot open {}", path.display()))?,
            };
            let status = resolve::status(&found).context(what)?;
            self.check_owner(&path, &status)?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Symlink => drop(self.open(&path, OFlags::PATH)?),
                FileType::Directory => {
                    let depth = depth.checked_sub(1).ok_or("nested too deeply").context(what)?;
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
