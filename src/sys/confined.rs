//! Programs of the host that run in the root file system of a container, and can do nothing else.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};

use super::ids;
use crate::error::{Because, Error, Result};
use crate::user::User;

/// Starts `program` as `user`, who is not root, with `root` as its root directory, with `umask`, and
/// in a session of its own: a daemon, which can do no more than the program of a container. The
/// first of `words` is what it is called. No other descriptor is open in it.
///
/// It must be linked statically: else it would become what the image holds as its interpreter.
///
/// # Errors
/// When it cannot be executed.
pub fn start(
    program: BorrowedFd<'_>,
    words: &[&str],
    root: BorrowedFd<'_>,
    user: &User,
    umask: u32,
) -> Result<Child> {
    let user = user.clone();
    let mut command = command(program, words, root, move || {
        rustix::process::setsid()?;
        rustix::process::umask(Mode::from_raw_mode(umask));
        leave_session_keyring()?;
        empty_bounding_set()?;
        ids::become_other_for_good(&user).map_err(|error| std::io::Error::other(error.to_string()))
    })?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().because(|| "cannot execute it".into())
}

/// What executes `program` when the child has `root` as its root directory and has done `settle`.
fn command(
    program: BorrowedFd<'_>,
    words: &[&str],
    root: BorrowedFd<'_>,
    mut settle: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<Command> {
    let words = words.iter().map(|word| CString::new(*word));
    let words: Vec<_> =
        words.collect::<Result<_, _>>().map_err(|_| Error::new("NUL in the words of a program"))?;
    // The kernel knows it by its descriptor, which is inherited for that alone.
    let (program, root) = (program.as_raw_fd(), root.as_raw_fd());
    let mut command = Command::new(format!("/proc/self/fd/{program}"));
    command.stdin(Stdio::null());
    // SAFETY: the closure runs in the forked child of a program with one thread, so every call is
    // sound there; `root` is open until then.
    unsafe {
        command.pre_exec(move || {
            rustix::process::fchdir(BorrowedFd::borrow_raw(root))?;
            rustix::process::chroot(".")?;
            settle()?;
            // Not by the path, which means nothing in the new root.
            Err(execute(program, &words))
        });
    }
    Ok(command)
}

/// What a process can ever gain: nothing.
fn empty_bounding_set() -> std::io::Result<()> {
    for capability in 0..=63 as libc::c_ulong {
        // SAFETY: passes numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = std::io::Error::last_os_error();
            // The kernel knows no more of them.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Keys are for those who have them in their keyring, whoever they are: that of an administrator who
/// starts a container must not be its user's. See session-keyring(7); OCI runtimes do the same. The
/// new one is root's, so that it takes nothing of what a user may have.
fn leave_session_keyring() -> std::io::Result<()> {
    let name = std::ptr::null::<libc::c_char>();
    // SAFETY: passes a number and no name: the new keyring has none.
    if unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) } >= 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error() {
        // This kernel has no keyrings.
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(error),
    }
}

/// Becomes the program; comes back only with the reason why not.
fn execute(program: RawFd, words: &[CString]) -> std::io::Error {
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: all strings end with NUL and live until the call returns, both lists end with a null
    // pointer, and the descriptor is open.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    std::io::Error::last_os_error()
}

/// Opens `path`, found beneath `root`, as a program that can be executed by its descriptor.
///
/// # Errors
/// When it is not there, or no regular file.
pub fn open(root: impl AsFd, path: &std::path::Path) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = super::open::beneath(root, path, flags, Mode::empty())?;
    let status = super::open::status(&file).because(|| "cannot stat it".into())?;
    match rustix::fs::FileType::from_raw_mode(status.st_mode) {
        rustix::fs::FileType::RegularFile => Ok(file),
        _ => Err(Error::new(format!("{} is no regular file", path.display()))),
    }
}
