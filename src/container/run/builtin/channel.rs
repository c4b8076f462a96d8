//! The channel between the stub and the container's first process: steps of one byte, and the
//! terminal's descriptor.

use crate::error::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// A step of the start, told to the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The mounts are made: hooks of the runtime namespace may run.
    Mounted = b'm',
    /// These hooks have ended well.
    Go = b'g',
    /// Root has done its work; with the terminal, if the container has one.
    Ready = b'r',
    /// The program could not be executed.
    Failed = b'f',
}

/// One end. Both are closed by execve(2).
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Makes both ends.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let pair = socketpair(family, kind, SocketFlags::CLOEXEC, None);
        let (one, other) = pair.context(|| "cannot make a socket".into())?;
        Ok((Self(one), Self(other)))
    }

    /// Tells the other end of `step`; one that has ended does not hear it.
    pub fn send(&self, step: Step) {
        rustix::net::send(&self.0, &[step as u8], SendFlags::NOSIGNAL).ok();
    }

    /// Waits for `step`; false if the other end has ended or tells something else.
    #[must_use]
    pub fn expect(&self, step: Step) -> bool {
        let mut byte = [0u8; 1];
        loop {
            match rustix::net::recv(&self.0, &mut byte, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Ok((1.., _)) => return byte == [step as u8],
                _ => return false,
            }
        }
    }

    /// Tells of [`Step::Ready`], and hands the terminal's master over.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub fn send_ready(&self, master: Option<&OwnedFd>) -> Result<()> {
        let descriptors = master.map(AsFd::as_fd).into_iter().collect::<Vec<_>>();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut space = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            space.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let step = [Step::Ready as u8];
        sendmsg(&self.0, &[IoSlice::new(&step)], &mut space, SendFlags::NOSIGNAL)
            .map(drop)
            .context(|| "cannot hand the terminal over".into())
    }

    /// Waits for [`Step::Ready`]; the terminal's master, if one came with it. `None` if the other end has
    /// ended.
    #[must_use]
    pub fn receive_ready(&self) -> Option<Option<OwnedFd>> {
        let mut byte = [0u8; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut space = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let count = loop {
            let mut part = [IoSliceMut::new(&mut byte)];
            match recvmsg(&self.0, &mut part, &mut space, flags) {
                Err(Errno::INTR) => {}
                Err(_) => return None,
                Ok(message) => break message.bytes,
            }
        };
        let master = space.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (count > 0 && byte == [Step::Ready as u8]).then_some(master)
    }

    /// Waits until the other end is closed; false if it said before that the program could not be
    /// executed, or ended without a word of [`Step::Ready`].
    #[must_use]
    pub fn is_closed_by_exec(&self) -> bool {
        !self.expect(Step::Failed)
    }
}
