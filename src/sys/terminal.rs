//! The caller's terminal: an OCI runtime makes it raw for a container that has a terminal of its
//! own, and someone must make it what it was, also when the runtime is killed.

use crate::error::{Because, Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios};
use std::path::Path;

/// How much fits on a terminal; zeroes where nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Letters in a line.
    pub columns: u16,
}

/// A terminal, and how it behaved when it was looked at.
#[derive(Debug)]
pub struct Terminal {
    device: OwnedFd,
    modes: Termios,
}

impl Terminal {
    /// The one that stdin is.
    ///
    /// # Errors
    /// When stdin is no terminal.
    pub fn of_stdin() -> Result<Self> {
        let device = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0)
            .because(|| "cannot keep the terminal open".into())?;
        let modes = rustix::termios::tcgetattr(&device).map_err(|_| {
            Error::new("cannot give the container a terminal: stdin is none")
                .hint("leave -t out, or start it on a terminal, as with 'srun --pty'")
        })?;
        Ok(Self { device, modes })
    }

    /// The same terminal, as it behaves now.
    ///
    /// # Errors
    /// When it has hung up.
    pub fn now(&self) -> Result<Self> {
        let cannot = || "cannot look at the terminal".to_owned();
        let device = self.device.try_clone().because(cannot)?;
        let modes = rustix::termios::tcgetattr(&device).because(cannot)?;
        Ok(Self { device, modes })
    }

    /// Makes it behave as it did. One that has hung up is left alone.
    pub fn restore(&self) {
        rustix::termios::tcsetattr(&self.device, OptionalActions::Now, &self.modes).ok();
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> Size {
        let size = rustix::termios::tcgetwinsize(&self.device);
        size.map_or(Size::default(), |size| Size { rows: size.ws_row, columns: size.ws_col })
    }

    /// Gives the terminal of a container this one's size. `root` is the container's root directory,
    /// whose terminal is the first one there. No OCI runtime needs to do this; crun does not.
    pub fn hand_on_size(&self, root: &Path) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(root, flags, Mode::empty()) else { return };
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
        let inside = super::open::beneath(&root, Path::new("/dev/pts/0"), flags, Mode::empty());
        if let (Ok(inside), Ok(size)) = (inside, rustix::termios::tcgetwinsize(&self.device)) {
            // A program that has closed it does not miss it.
            rustix::termios::tcsetwinsize(inside, size).ok();
        }
    }

    /// Whether this process is among those that the terminal belongs to at the moment.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        rustix::termios::tcgetpgrp(&self.device) == Ok(rustix::process::getpgrp())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.device.as_fd()
    }
}
