//! `init [--] PROGRAM [ARG...]`: first process of a container with `sarus run --init`. It forwards
//! signals to the program's process group, reaps orphaned processes, and ends as the program ends.
//!
//! The options `-s` (subreaper) and `-g` (process group) of tini(1) are accepted; their behaviour is
//! the default here.

use sarus::error::{Context, Error, Result};
use sarus::sys::process::signals::{ReceivedSignal, Signals};
use sarus::sys::process::{self, ProcessId, WaitStatus};
use std::ffi::OsString;

/// Signals that stop a background process which uses the terminal; these are meant for init itself.
const FROM_TERMINAL: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];

pub fn main(args: &[OsString]) -> Result<u8> {
    let args = skip_options(args);
    let (program, args) = args.split_first().ok_or_else(|| {
        Error::new("no program given").with_hint("usage: init [--] PROGRAM [ARG...]")
    })?;
    // For a container without PID namespace, where init is not process 1.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context(|| "cannot become a subreaper".into())?;
    let signals = Signals::block(&FROM_TERMINAL)?;
    let child = process::spawn_in_own_group(program, args, &signals)?;
    loop {
        match signals.next(None)? {
            Some(ReceivedSignal { number: libc::SIGCHLD, .. }) => {
                if let Some(status) = reap(child) {
                    return Ok(status);
                }
            }
            Some(ReceivedSignal { number, .. }) => process::send_to_group(child, number),
            None => {}
        }
    }
}

fn skip_options(args: &[OsString]) -> &[OsString] {
    match args.split_first() {
        Some((first, rest)) if first == "--" => rest,
        Some((first, rest)) if first == "-s" || first == "-g" => skip_options(rest),
        _ => args,
    }
}

/// Waits for all children that have ended, and returns the exit status if `child` is one of them.
fn reap(child: ProcessId) -> Option<u8> {
    let mut status = None;
    while let Some((pid, change)) = process::reap() {
        match change {
            WaitStatus::Exited(code) if pid == child => status = Some(code),
            WaitStatus::Killed(signal) if pid == child => {
                status = Some(process::signal_exit_code(signal))
            }
            _ => {}
        }
    }
    status
}
