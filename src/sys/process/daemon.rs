//! Daemons, with the rights of this process.

use crate::error::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Above every descriptor that a container inherits; used before Linux 5.11.
const MANY_DESCRIPTORS: libc::c_int = 64;

/// Starts `program` in a session of its own, with an empty environment, no descriptor but
/// `/dev/null`, and `/` as its working directory.
///
/// # Errors
/// If it cannot be executed.
pub fn spawn(program: &Path, args: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: the closure runs in the forked child of a program with one thread, and makes system
    // calls only.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            set_close_on_exec();
            Ok(())
        });
    }
    command.spawn().context(|| format!("cannot execute {}", program.display()))
}

/// Sets the close-on-exec flag of all descriptors above 2. They stay open until then: the standard
/// library reports by one of them whether the program could be executed.
fn set_close_on_exec() {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: passes numbers, and changes a flag of descriptors.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, flags) != 0 {
            for fd in 3..MANY_DESCRIPTORS {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
