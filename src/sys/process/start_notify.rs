//! Start notification: the last step before the program, inside the container, sends the engine a message
//! on a socket. The kernel adds the sender's PID and user ID as the receiver sees them, and since Linux
//! 6.5 a pidfd. See unix(7), SCM_CREDENTIALS, SCM_RIGHTS and SCM_PIDFD.

use crate::error::{Context, Result};
use crate::sys::descriptors;
use crate::sys::process::ProcessId;
use crate::sys::process::pidfd::Process;
use crate::sys::terminal::WindowSize;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair, sockopt,
};
use rustix::process::Uid;
use std::io::IoSlice;
use std::mem::MaybeUninit;

/// Above the descriptors that a container inherits.
const FIRST_FREE: RawFd = 16;

/// The engine's end of the socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

/// A program that is about to start.
#[derive(Debug)]
pub struct Started {
    /// The first process of the container, which becomes the program.
    pub program: Process,
    /// The container's terminal, if it has one of its own.
    terminal: Option<OwnedFd>,
}

impl Started {
    /// Sets the size of the container's terminal.
    pub fn resize(&self, size: WindowSize) {
        if let Some(terminal) = &self.terminal {
            size.set_on(terminal);
        }
    }
}

impl Listener {
    /// Creates both ends of the socket. The other one gets the number `to`, which must be free, and is
    /// inherited by children.
    ///
    /// # Errors
    /// If this process can have no more descriptors.
    pub fn new(to: RawFd) -> Result<Self> {
        let context = || "cannot make a socket".to_owned();
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, other) =
            socketpair(family, kind, SocketFlags::CLOEXEC, None).context(context)?;
        sockopt::set_socket_passcred(&ours, true).context(context)?;
        ask_for_pidfd(&ours);
        // Out of the way of all that has its fixed place.
        let socket = rustix::io::fcntl_dupfd_cloexec(&ours, FIRST_FREE).context(context)?;
        drop(ours);
        descriptors::move_descriptor(other.into_raw_fd(), to)?;
        Ok(Self { socket })
    }

    /// Receives a notification that a process of `user` has sent, without waiting. `is_ours` tells
    /// whether a PID is that of a process of the container.
    #[must_use]
    pub fn receive(&self, user: Uid, is_ours: impl Fn(ProcessId) -> bool) -> Option<Started> {
        let message = next_message(&self.socket)?;
        let pid = message.sender.filter(|(_, uid)| *uid == user.as_raw()).map(|(pid, _)| pid)?;
        let program = match message.pidfd {
            Some(pidfd) => Process::from_pidfd(pid, pidfd),
            // The sender may have ended, and its PID be another's. If the process is of the container
            // and lives after that look, the pidfd refers to it.
            None => Process::from_pid(pid),
        };
        let is_ours = is_ours(pid);
        let program = if is_ours && !program.has_ended() { program } else { program.into_ended() };
        Some(Started { program, terminal: message.terminal })
    }
}

/// A message with its ancillary data.
#[derive(Default)]
struct Message {
    /// PID and user ID.
    sender: Option<(ProcessId, u32)>,
    pidfd: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

/// Socket option and ancillary message since Linux 6.5, by the names of its `socket.h`.
const SO_PASSPIDFD: i32 = 76;
const SCM_PIDFD: i32 = 4;

/// Asks for a pidfd with each message; ignored before Linux 6.5.
fn ask_for_pidfd(socket: &OwnedFd) {
    let yes = 1i32;
    // SAFETY: the kernel reads one number.
    unsafe {
        let (socket, size) = (socket.as_raw_fd(), size_of_val(&yes) as u32);
        libc::setsockopt(socket, libc::SOL_SOCKET, SO_PASSPIDFD, (&raw const yes).cast(), size);
    }
}

/// Receives the next message, if there is one.
fn next_message(socket: &OwnedFd) -> Option<Message> {
    let mut byte = 0u8;
    // Of numbers, for their alignment: more than three small messages take.
    let mut space = [0usize; 32];
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all-zero is a valid `msghdr`; the kernel writes no more than the lengths allow, and the
    // macros stay within what it wrote. Descriptors in it are new and nobody else's.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = space.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&space) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        if libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) < 0 {
            return None;
        }
        let mut message = Message::default();
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(part) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            match (part.cmsg_level, part.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    let sender = data.cast::<libc::ucred>().read_unaligned();
                    message.sender = ProcessId::new(sender.pid).map(|pid| (pid, sender.uid));
                }
                (libc::SOL_SOCKET, SCM_PIDFD) => message.pidfd = descriptor(data),
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => message.terminal = descriptor(data),
                _ => {}
            }
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
        Some(message)
    }
}

/// Takes the first descriptor of a message; a number below 0 stands for an error.
///
/// # Safety
/// `data` must be that of a message with a descriptor, which nobody else takes.
unsafe fn descriptor(data: *const u8) -> Option<OwnedFd> {
    // SAFETY: as the caller promises.
    unsafe {
        let number = data.cast::<RawFd>().read_unaligned();
        (number >= 0).then(|| OwnedFd::from_raw_fd(number))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Notifies the [`Listener`] at the other end of the socket `number`, and closes that. If `terminal`,
/// stdin is a terminal of the container's own, and sent along.
///
/// # Errors
/// If `number` is not such a socket.
pub fn notify(number: RawFd, terminal: bool) -> Result<()> {
    let context = || "cannot notify the engine of the start".to_owned();
    let socket = descriptors::take(number).context(context)?;
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
        Err(error) => Err(error).context(context),
    }
}
