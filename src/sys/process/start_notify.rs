//! How the last step of a start, in the container, tells the engine that the program comes next: by
//! a message on a socket, with which the kernel gives the sender's number and user as the receiver
//! sees them, and since Linux 6.5 a pidfd. See unix(7), SCM_CREDENTIALS, SCM_RIGHTS and SCM_PIDFD.

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
    pub fn resize(&self, size: WindowSize) {
        if let Some(terminal) = &self.terminal {
            size.set_on(terminal);
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
        let (ours, other) = socketpair(family, kind, SocketFlags::CLOEXEC, None).context(cannot)?;
        sockopt::set_socket_passcred(&ours, true).context(cannot)?;
        ask_for_pidfd(&ours);
        // Out of the way of all that has its fixed place.
        let socket = rustix::io::fcntl_dupfd_cloexec(&ours, OUT_OF_THE_WAY).context(cannot)?;
        drop(ours);
        descriptors::move_descriptor(other.into_raw_fd(), to)?;
        Ok(Self { socket })
    }

    /// What was told by a process of `user`, without waiting for it. `is_ours` looks whether a number
    /// is that of a process of the container.
    #[must_use]
    pub fn receive(&self, user: Uid, is_ours: impl Fn(ProcessId) -> bool) -> Option<Started> {
        let message = next_message(&self.socket)?;
        let pid = message.sender.filter(|(_, uid)| *uid == user.as_raw()).map(|(pid, _)| pid)?;
        let program = match message.pidfd {
            Some(pidfd) => Process::from_pidfd(pid, pidfd),
            // The sender may have ended since then, and its number be another's: what is of the
            // container and lives after that look is what the handle stands for.
            None => Process::from_pid(pid),
        };
        let is_ours = is_ours(pid);
        let program = if is_ours && !program.has_ended() { program } else { program.gone() };
        Some(Started { program, terminal: message.terminal })
    }
}

/// A message, and what the kernel adds to it.
#[derive(Default)]
struct Message {
    /// Number and user.
    sender: Option<(ProcessId, u32)>,
    pidfd: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

/// Option and message of Linux 6.5, in the words of its `socket.h`.
const SO_PASSPIDFD: i32 = 76;
const SCM_PIDFD: i32 = 4;

/// Asks for a pidfd with each message; older kernels do not know it.
fn ask_for_pidfd(socket: &OwnedFd) {
    let yes = 1i32;
    // SAFETY: the kernel reads one number.
    unsafe {
        let (socket, size) = (socket.as_raw_fd(), size_of_val(&yes) as u32);
        libc::setsockopt(socket, libc::SOL_SOCKET, SO_PASSPIDFD, (&raw const yes).cast(), size);
    }
}

/// The next message, if there is one.
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

/// The first descriptor of a message; a number below 0 stands for an error.
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

/// Tells the [`Listener`], whose other end `number` is, and closes that. `terminal`: whether stdin is
/// a terminal of the container's own.
///
/// # Errors
/// When `number` is no such descriptor.
pub fn notify(number: RawFd, terminal: bool) -> Result<()> {
    let cannot = || "cannot tell the engine of the start".to_owned();
    let socket = descriptors::take(number).context(cannot)?;
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
        Err(error) => Err(error).context(cannot),
    }
}
