//! The first process of a container, made by the engine itself: born in new namespaces, moved to the
//! container's root, and stripped of every privilege before it executes the program.
//! See clone(2), pivot_root(2), capabilities(7), keyrings(7).

use crate::error::{Context, Error, Result};
use crate::sys::descriptors::close_descriptors;
use crate::sys::ids;
use crate::sys::process::ProcessId;
use crate::sys::process::limits::CallerLimits;
use crate::user::User;
use rustix::fd::{AsFd, RawFd};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::CapabilitySet;

/// Forks a child into a mount namespace of its own and, if `pid_namespace`, into a PID namespace
/// whose process 1 it is. Gives the child's number, and `None` in the child.
///
/// The child goes on with a copy of this program's only thread, as after fork(2).
///
/// # Errors
/// [`ErrorKind::Denied`](crate::ErrorKind::Denied) without CAP_SYS_ADMIN, and those of clone(2).
pub fn fork_into_namespaces(pid_namespace: bool) -> Result<Option<ProcessId>> {
    let mut flags = libc::CLONE_NEWNS | libc::SIGCHLD;
    if pid_namespace {
        flags |= libc::CLONE_NEWPID;
    }
    // SAFETY: without CLONE_VM the child has a copy of all memory, and this program has one thread.
    // The C library keeps a stale thread id, which only raise(3) would use.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(child) {
        Ok(0) => Ok(None),
        Ok(child) if child > 0 => Ok(ProcessId::new(child)),
        _ => Err(std::io::Error::last_os_error())
            .context(|| "cannot make the container's namespaces".into()),
    }
}

/// Makes the mount `root` the root directory of this mount namespace, and detaches the old one with
/// all below it. The working directory is the new `/`.
///
/// # Errors
/// Those of pivot_root(2) and umount2(2).
pub fn pivot_root(root: impl AsFd) -> Result<()> {
    let context = || "cannot change the root directory".to_owned();
    rustix::process::fchdir(root).context(context)?;
    // Both names mean the new root; the old one is then mounted over it, and is the one that `.` is.
    rustix::process::pivot_root(".", ".").context(context)?;
    unmount(".", UnmountFlags::DETACH).context(context)?;
    rustix::process::chdir("/").context(context)
}

/// Gives this process a session keyring of its own, so that it does not possess the caller's, which
/// may hold credentials of file systems.
///
/// # Errors
/// Those of keyctl(2); a kernel without keyrings is none.
pub fn new_session_keyring() -> Result<()> {
    // SAFETY: passes numbers and a null pointer, for a keyring without a name.
    let answer = unsafe {
        let name = std::ptr::null::<libc::c_char>();
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name)
    };
    if answer >= 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Ok(()),
        _ => Err(error).context(|| "cannot make a session keyring".into()),
    }
}

/// `KEYCTL_JOIN_SESSION_KEYRING` of `linux/keyctl.h`.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Becomes `user` for good, from root in every id: without capabilities in any set, the bounding one
/// included, without a way to gain any (securebits, no_new_privs), and not dumpable until the next
/// execve(2), so that no process of the same user can trace this one or read its memory.
///
/// # Errors
/// When the kernel refuses a step, or a privilege is left afterwards.
pub fn become_unprivileged(user: &User) -> Result<()> {
    let context = || format!("cannot give up root for user id {}", user.uid.as_raw());
    rustix::thread::set_thread_groups(&user.groups).context(context)?;
    clear_bounding_set().context(context)?;
    lock_securebits().context(context)?;
    ids::drop_privileges(user)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context(context)?;
    let rights = rustix::thread::capabilities(None).context(context)?;
    let is_left = !user.uid.is_root() && rights.permitted != CapabilitySet::empty();
    if is_left || has_bounding_set() {
        return Err(Error::caused_by(context(), "a capability is left"));
    }
    Ok(())
}

/// Capabilities have numbers below this; the kernel knows 41 today.
const MANY_CAPABILITIES: u32 = 64;

fn clear_bounding_set() -> std::io::Result<()> {
    for capability in 0..MANY_CAPABILITIES {
        // SAFETY: passes numbers.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if answer != 0 {
            let error = std::io::Error::last_os_error();
            // The first number that the kernel does not know.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

fn has_bounding_set() -> bool {
    // SAFETY: passes numbers.
    (0..MANY_CAPABILITIES)
        .any(|number| unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) == 1 })
}

/// `SECBIT_NOROOT` and `SECBIT_NO_CAP_AMBIENT_RAISE` are set, `SECBIT_NO_SETUID_FIXUP` and
/// `SECBIT_KEEP_CAPS` are not, and all four are locked: see capabilities(7).
const SECUREBITS: libc::c_ulong = 0b1110_1011;

fn lock_securebits() -> std::io::Result<()> {
    // SAFETY: passes numbers.
    match unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Marks every descriptor from `first` on as one to close at the next execve(2).
///
/// # Errors
/// When neither close_range(2) with CLOSE_RANGE_CLOEXEC (Linux 5.11) nor `/proc/self/fd` is there.
pub fn close_at_exec(first: RawFd) -> Result<()> {
    let context = || "cannot keep descriptors from the container".to_owned();
    let start = u32::try_from(first).unwrap_or_default();
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: closes nothing now.
    if unsafe { libc::syscall(libc::SYS_close_range, start, u32::MAX, flags) } == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir("/proc/self/fd").context(context)? {
        let name = entry.context(context)?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number >= first) {
            // SAFETY: changes a flag of a descriptor.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Does `work` in a child that has the IDs and limits of `user`, no capability, and of the descriptors
/// above 2 only those of `keep`. It is not dumpable: no process of the user's can trace it or reach the
/// mount namespace that it shares with this process. Signals stay blocked as they are.
///
/// # Errors
/// Those of fork(2). A child that cannot give up its rights ends without the work.
pub fn fork_as_user(
    user: &User,
    limits: &CallerLimits,
    keep: &[RawFd],
    work: impl FnOnce(),
) -> Result<ProcessId> {
    // SAFETY: this program has one thread, so the child may go on as it likes.
    match unsafe { libc::fork() } {
        0 => {
            let ready = close_descriptors(keep)
                .and_then(|()| become_unprivileged(user))
                .and_then(|()| limits.restore());
            if ready.is_ok() {
                work();
            }
            exit(0)
        }
        child => ProcessId::new(child)
            .ok_or_else(std::io::Error::last_os_error)
            .context(|| "cannot start a process of the user's".into()),
    }
}

/// Ends this process at once with the exit status `status`: nothing that a parent has buffered is
/// written a second time.
pub fn exit(status: u8) -> ! {
    // SAFETY: ends this process.
    unsafe { libc::_exit(status.into()) }
}

/// Kills this process if its parent, `parent`, ends; until it changes its ids.
///
/// # Errors
/// When the parent has ended already.
pub fn end_with_parent(parent: Option<ProcessId>) -> rustix::io::Result<()> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)?;
    // In a PID namespace of its own, the parent has no number.
    if ProcessId::parent() == parent { Ok(()) } else { Err(Errno::CHILD) }
}
