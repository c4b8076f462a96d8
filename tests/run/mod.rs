//! `sarus run` on real images with real runtimes, as an ordinary user.

mod ends;
mod init;
mod mounts;
mod mpi;
mod options;
mod pid;
mod program;
mod scale;
mod seccomp;
mod streams;
mod terminal;

use crate::support::hostile::{field, wait_until};
use crate::support::{
    IMAGE, Image, Installation, Output, Runtime, User, loop_devices, no_cgroup_stays_empty,
    processes_of,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs `args` in the image as alice and gives stdout.
fn run(installation: &Installation, args: &[&str]) -> String {
    try_run(installation, args).succeeds()
}

fn try_run(installation: &Installation, args: &[&str]) -> Output {
    installation.sarus(&installation.alice, &[&["run"], args].concat())
}

/// Waits until nothing of the container is left, and says what is.
fn assert_nothing_is_left(installation: &Installation, runtime: Runtime) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let processes = processes_of(installation.alice.uid);
        let file = installation.repository(&installation.alice);
        let loops: Vec<_> =
            loop_devices().into_iter().filter(|(_, of)| of.starts_with(&file)).collect();
        if processes.is_empty() && loops.is_empty() {
            break;
        }
        let left = format!("{runtime:?}: {processes:?} {loops:?}");
        assert!(Instant::now() < deadline, "still there: {left}");
        sleep(Duration::from_millis(50));
    }
    no_cgroup_stays_empty();
}

fn wait_for_program(installation: &Installation, line: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = processes_of(installation.alice.uid);
        if let Some((pid, _)) = found.iter().find(|(_, command)| command == line) {
            return *pid;
        }
        assert!(Instant::now() < deadline, "{line} does not run: {found:?}");
        sleep(Duration::from_millis(20));
    }
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok()).unwrap()
}
