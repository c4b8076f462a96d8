//! The caller's terminal. An OCI runtime makes it raw for a container with a terminal of its own; its modes
//! must be restored even if the runtime is killed.

use crate::error::{Context, Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// Window size of a terminal; zeroes if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl WindowSize {
    /// Sets it as the size of a container's terminal. runc does so itself on SIGWINCH, crun does not.
    pub fn set_on(self, terminal: impl AsFd) {
        let (rows, columns) = (self.rows, self.columns);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal that has hung up has no size.
        rustix::termios::tcsetwinsize(terminal, size).ok();
    }
}

/// A terminal, and its modes at some moment.
#[derive(Debug)]
pub struct Terminal {
    device: OwnedFd,
    modes: Termios,
}

impl Terminal {
    /// Opens the terminal that stdin is. If this process is in the background, the kernel stops it
    /// (tcdrain(3), SIGTTOU) until it is in the foreground; before, the modes are those of a shell at its
    /// prompt.
    ///
    /// # Errors
    /// If stdin is not a terminal, or this process cannot come to the foreground.
    pub fn from_stdin() -> Result<Self> {
        let context = || "cannot give the container a terminal".to_owned();
        let device = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0).context(context)?;
        let in_background = || {
            Error::caused_by(context(), "the terminal is in use by another process group")
                .with_hint("start it in the foreground; with timeout(1), by 'timeout --foreground'")
        };
        match rustix::termios::tcdrain(&device) {
            Err(Errno::IO) => return Err(in_background()),
            Err(_) => {
                return Err(Error::caused_by(context(), "stdin is not a terminal")
                    .with_hint("omit -t, or start it on a terminal, as with 'srun --pty'"));
            }
            Ok(()) => {}
        }
        let modes = rustix::termios::tcgetattr(&device).context(context)?;
        let this = Self { device, modes };
        // The caller may ignore SIGTTOU.
        if this.is_in_background() { Err(in_background()) } else { Ok(this) }
    }

    /// Reads the current modes of the same terminal.
    ///
    /// # Errors
    /// If the terminal has hung up.
    pub fn now(&self) -> Result<Self> {
        let context = || "cannot read the terminal's modes".to_owned();
        let device = self.device.try_clone().context(context)?;
        let modes = rustix::termios::tcgetattr(&device).context(context)?;
        Ok(Self { device, modes })
    }

    /// Restores the modes. Does nothing to a terminal that has hung up.
    pub fn restore(&self) {
        rustix::termios::tcsetattr(&self.device, OptionalActions::Now, &self.modes).ok();
    }

    /// Reads the window size.
    #[must_use]
    pub fn size(&self) -> WindowSize {
        let size = rustix::termios::tcgetwinsize(&self.device);
        size.map_or(WindowSize::default(), |size| WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Tells whether this process is in the background: the terminal belongs to another process group.
    #[must_use]
    pub fn is_in_background(&self) -> bool {
        rustix::termios::tcgetpgrp(&self.device).is_ok_and(|own| own != rustix::process::getpgrp())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.device.as_fd()
    }
}
