//! A program of the host that works on the root file system of a container, and can do nothing else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::error::{Because, Error, Result};

/// The program is ended after so many seconds: an image may hold files that it waits for.
const SECONDS: u32 = 60;

/// The largest file that it may write.
const MAX_FILE: u64 = 64 << 20;

/// Who the program is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its user id.
    pub uid: Uid,
    /// Its group id, and only group.
    pub gid: Gid,
}

/// Executes `program` with `root` as its root directory, without capabilities, so that it can
/// neither change its root again nor gain a right, and waits for its end. No other descriptor is
/// open in it.
///
/// It must be linked statically: else it would become what the image holds as its interpreter.
///
/// # Errors
/// When it cannot be executed, or fails.
pub fn run(
    program: BorrowedFd<'_>,
    args: &[&str],
    root: BorrowedFd<'_>,
    identity: Identity,
) -> Result<()> {
    // The kernel knows it by its descriptor, which is inherited for that alone.
    let (program, root) = (program.as_raw_fd(), root.as_raw_fd());
    let path = format!("/proc/self/fd/{program}");
    let mut command = Command::new(path);
    command.args(args).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (name, words) = c_words(args)?;
    // SAFETY: the closure runs in the forked child of a program with one thread, so every call is
    // sound there.
    unsafe {
        command.pre_exec(move || {
            confine(root, identity)?;
            // Not by the path, which means nothing in the new root.
            Err(execute(program, &name, &words))
        });
    }
    let output = command.output().because(|| "cannot execute it".into())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().next_back().unwrap_or("it says nothing");
    Err(Error::new(format!("it ended with {}: {last:.300}", output.status)))
}

type Words = Vec<std::ffi::CString>;

fn c_words(args: &[&str]) -> Result<(std::ffi::CString, Words)> {
    let word = |word: &str| {
        std::ffi::CString::new(word).map_err(|_| Error::new("NUL in the words of a program"))
    };
    let words = args.iter().map(|arg| word(arg)).collect::<Result<_>>()?;
    Ok((word("ldconfig")?, words))
}

/// In the child: gives up all but `root`, for good.
fn confine(root: RawFd, identity: Identity) -> std::io::Result<()> {
    // SAFETY: open all the time; see `run`.
    let root = unsafe { BorrowedFd::borrow_raw(root) };
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    set_thread_groups(&[])?;
    set_thread_res_gid(identity.gid, identity.gid, identity.gid)?;
    // Root without capabilities gets none by executing a file either.
    let bits = libc::SECBIT_NOROOT | libc::SECBIT_NOROOT_LOCKED;
    // SAFETY: passes numbers.
    if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    set_thread_res_uid(identity.uid, identity.uid, identity.uid)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    let limit = rustix::process::Rlimit { current: Some(MAX_FILE), maximum: Some(MAX_FILE) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)?;
    // SAFETY: passes a number. The alarm outlives the exec, where it ends the program.
    unsafe { libc::alarm(SECONDS) };
    Ok(())
}

/// Becomes the program; comes back only with the reason why not.
fn execute(program: RawFd, name: &std::ffi::CStr, words: &Words) -> std::io::Error {
    let mut argv = vec![name.as_ptr()];
    argv.extend(words.iter().map(|word| word.as_ptr()));
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
    let file = super::open::beneath(root, path, flags, rustix::fs::Mode::empty())?;
    let status = super::open::status(&file).because(|| "cannot stat it".into())?;
    match rustix::fs::FileType::from_raw_mode(status.st_mode) {
        rustix::fs::FileType::RegularFile => Ok(file),
        _ => Err(Error::new(format!("{} is no regular file", path.display()))),
    }
}
