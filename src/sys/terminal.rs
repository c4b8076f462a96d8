//! The caller's terminal: an OCI runtime makes it raw for a container that has a terminal of its
//! own, and someone must make it what it was, also when the runtime is killed.

use crate::error::{Context, Error, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// How much fits on a terminal; zeroes where nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Letters in a line.
    pub columns: u16,
}

impl WindowSize {
    /// Makes it that of a container's terminal: runc does so itself when it is told to, crun does not.
    pub fn set_on(self, terminal: impl AsFd) {
        let (rows, columns) = (self.rows, self.columns);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // One that has hung up does not miss it.
        rustix::termios::tcsetwinsize(terminal, size).ok();
    }
}

/// A terminal, and how it behaved when it was looked at.
#[derive(Debug)]
pub struct Terminal {
    device: OwnedFd,
    modes: Termios,
}

impl Terminal {
    /// The one that stdin is. In the background the kernel stops this process first, as it does with
    /// all that want something of a terminal (tcdrain(3), SIGTTOU), until it is brought to the
    /// foreground; before that, the modes are those of a shell at its prompt.
    ///
    /// # Errors
    /// When stdin is no terminal, or that of others for ever.
    pub fn from_stdin() -> Result<Self> {
        let cannot = || "cannot give the container a terminal".to_owned();
        let device = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0).context(cannot)?;
        let in_background = || {
            Error::caused_by(cannot(), "this one belongs to others now")
                .with_hint("start it in the foreground; with timeout(1), by 'timeout --foreground'")
        };
        match rustix::termios::tcdrain(&device) {
            Err(Errno::IO) => return Err(in_background()),
            Err(_) => {
                return Err(Error::caused_by(cannot(), "stdin is none")
                    .with_hint("leave -t out, or start it on a terminal, as with 'srun --pty'"));
            }
            Ok(()) => {}
        }
        let modes = rustix::termios::tcgetattr(&device).context(cannot)?;
        let this = Self { device, modes };
        // The caller may have SIGTTOU ignored.
        if this.is_in_background() { Err(in_background()) } else { Ok(this) }
    }

    /// The same terminal, as it behaves now.
    ///
    /// # Errors
    /// When it has hung up.
    pub fn now(&self) -> Result<Self> {
        let cannot = || "cannot look at the terminal".to_owned();
        let device = self.device.try_clone().context(cannot)?;
        let modes = rustix::termios::tcgetattr(&device).context(cannot)?;
        Ok(Self { device, modes })
    }

    /// Makes it behave as it did. One that has hung up is left alone.
    pub fn restore(&self) {
        rustix::termios::tcsetattr(&self.device, OptionalActions::Now, &self.modes).ok();
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> WindowSize {
        let size = rustix::termios::tcgetwinsize(&self.device);
        size.map_or(WindowSize::default(), |size| WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Whether it belongs to another process group at the moment: then we are in the background.
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
