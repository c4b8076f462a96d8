//! The set-user-id program gives up root for everything but `sarus run`, whatever it is called by
//! and with; and `sarus run` lets nothing of the caller's near what runs as root.

mod limits;
mod names;
mod runtime;

use crate::support::hostile::{field, wait_until};
use crate::support::{IMAGE, Installation, Output, Runtime, User, loop_devices, processes_of};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The writing end of a pipe that takes no more, and the end that keeps it open.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    while writer.write(&[0]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader.into(), writer.into())
}

/// Starts `command` so that it stops at the first thing that it has to say, and gives its status.
fn status_at_first_word(mut command: Command, stdin: Stdio) -> String {
    let (_reader, writer) = full_pipe();
    command.stdin(stdin).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    let status = status_when_waiting(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    status
}

/// The status of a process of this program once it sleeps, and goes on sleeping.
fn status_when_waiting(child: &Child) -> String {
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let sleeps = || {
        let exe = fs::read_link(proc.join("exe")).unwrap_or_default();
        let call = fs::read_to_string(proc.join("syscall")).unwrap_or_default();
        let is_in_call = call.split(' ').next().is_some_and(|word| word.parse::<u32>().is_ok());
        (exe.ends_with("sarusbox") && is_in_call).then_some(call)
    };
    let mut before = None;
    wait_until("it waits", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = sleeps();
        let same = now.is_some() && now == before;
        before = now;
        same
    });
    fs::read_to_string(proc.join("status")).unwrap()
}

#[track_caller]
fn assert_powerless(status: &str, user: &User, what: &str) {
    let id = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join(" ");
    let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
    assert_eq!(field(status, "Uid"), id(user.uid), "{what}");
    assert_eq!(field(status, "Gid"), id(user.gid), "{what}");
    assert_eq!(field(status, "Groups"), groups.join(" "), "{what}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(status, set), "0000000000000000", "{set} of {what}");
    }
    assert_eq!(field(status, "NoNewPrivs"), "1", "{what}");
}
