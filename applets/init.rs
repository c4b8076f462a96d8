//! `init [--] PROGRAM [ARG...]`: the first process of a container, as `sarus run --init` puts it
//! there. It passes every signal on to the program's process group, reaps what is left over by
//! others, and ends as the program ends.
//!
//! Its options are those of tini(1) that make sense without a terminal to explain them: none but
//! `-s` (be a subreaper) and `-g` (signal the group), which hold here anyway.

use sarus::error::{Context, Error, Result};
use sarus::sys::process::signals::{ReceivedSignal, Signals};
use sarus::sys::process::{self, ProcessId, WaitStatus};
use std::ffi::OsString;

/// What stops a background process that uses the terminal: it is meant for init itself.
const FROM_TERMINAL: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];

pub fn main(args: &[OsString]) -> Result<u8> {
    let args = skip_options(args);
    let (program, args) = args.split_first().ok_or_else(|| {
        Error::new("no program given").with_hint("usage: init [--] PROGRAM [ARG...]")
    })?;
    // Where init is not the first process, orphans come to it all the same.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context(|| "cannot become the reaper of orphans".into())?;
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

/// Waits for all that have ended; the exit status when the program itself is among them.
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
