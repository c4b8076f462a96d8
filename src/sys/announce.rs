//! How the last step of a start, in the container, tells the engine that the program comes next: by
//! a message on a socket, with which the kernel gives the sender's number and user as the receiver
//! sees them. See unix(7), SCM_CREDENTIALS and SCM_RIGHTS.

use super::descriptors;
use super::process::Process;
use super::terminal::Size;
use crate::error::{Because, Result};
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt,
};
use rustix::process::Uid;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Behind the few descriptors that a container inherits.
const OUT_OF_THE_WAY: RawFd = 16;

/// The engine's end.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

/// What was told.
#[derive(Debug)]
pub struct Started {
    /// The first process of the container, which becomes the program.
    pub program: Process,
    /// The container's terminal, if it has one of its own.
    terminal: Option<OwnedFd>,
}

impl Started {
    /// Gives the container's terminal a size.
    pub fn resize(&self, size: Size) {
        if let Some(terminal) = &self.terminal {
            size.give_to(terminal);
        }
    }
}

impl Listener {
    /// Makes both ends; the other one has the number `to`, which must be free, and children inherit
    /// it.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(to: RawFd) -> Result<Self> {
        let cannot = || "cannot make a socket".to_owned();
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, other) = socketpair(family, kind, SocketFlags::CLOEXEC, None).because(cannot)?;
        sockopt::set_socket_passcred(&ours, true).because(cannot)?;
        // Out of the way of all that has its fixed place.
        let socket = rustix::io::fcntl_dupfd_cloexec(&ours, OUT_OF_THE_WAY).because(cannot)?;
        drop(ours);
        descriptors::move_descriptor(other.into_raw_fd(), to)?;
        Ok(Self { socket })
    }

    /// What was told by a process of `user`, without waiting for it; by a child of `parent`, where
    /// that is known: whoever has its number now is nobody else.
    #[must_use]
    pub fn hear(&self, user: Uid, parent: Option<i32>) -> Option<Started> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
        let mut space = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        recvmsg(&self.socket, &mut [IoSliceMut::new(&mut byte)], &mut space, flags).ok()?;
        let (mut program, mut terminal) = (None, None);
        for message in space.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(sender) if sender.uid == user => {
                    program = Some(match parent {
                        Some(parent) => Process::find_child(sender.pid, parent),
                        None => Process::find(sender.pid),
                    });
                }
                RecvAncillaryMessage::ScmRights(mut files) => terminal = files.next(),
                _ => {}
            }
        }
        Some(Started { program: program?, terminal })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells the [`Listener`], whose other end `number` is, and closes that. `terminal`: whether stdin is
/// a terminal of the container's own.
///
/// # Errors
/// When `number` is no such descriptor.
pub fn announce(number: RawFd, terminal: bool) -> Result<()> {
    let cannot = || "cannot tell the engine of the start".to_owned();
    let socket = descriptors::take(number).because(cannot)?;
    // SAFETY: descriptor 0 is open: std opens /dev/null where the caller closed it.
    let stdin = [unsafe { BorrowedFd::borrow_raw(0) }];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut space = SendAncillaryBuffer::new(&mut space);
    if terminal {
        space.push(SendAncillaryMessage::ScmRights(&stdin));
    }
    match sendmsg(&socket, &[IoSlice::new(b"!")], &mut space, SendFlags::NOSIGNAL) {
        // An engine that has ended takes the container along.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(error) => Err(error).because(cannot),
    }
}
