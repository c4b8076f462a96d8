//! Watches over a container that is being started or runs: passes signals on, stops and continues
//! it, and waits for its end. Start at [`wait`].

use crate::error::Result;
use crate::log;
use crate::sys::process::{self, Change, Contained};
use crate::sys::signal::{Arrived, Signals};
use crate::sys::terminal::Terminal;
use std::path::Path;
use std::time::Duration;

/// What a terminal sends to every process of the foreground group, so to the runtime too.
const FROM_TERMINAL: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTTIN, libc::SIGTTOU];

/// What asks a program to end.
const TO_END: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// How long a program may prepare for being stopped, if it handles SIGTSTP.
const NOTICE: Duration = Duration::from_millis(20);

/// Passes signals on until the runtime ends; the exit status.
pub fn wait(child: &Contained, signals: &Signals, terminal: Option<&Terminal>) -> Result<u8> {
    let mut given_up = None;
    loop {
        match signals.next(None)? {
            Some(Arrived { number: libc::SIGCHLD, .. }) => {
                while let Some((pid, change)) = process::next_change() {
                    match (change, given_up) {
                        _ if pid != child.pid => {}
                        (Change::Exited(status), _) => return Ok(status),
                        (Change::Killed(_), Some(signal)) => return Ok(process::status_of(signal)),
                        (Change::Killed(signal), None) => return Ok(killed(signal)),
                    }
                }
            }
            Some(Arrived { number, .. }) if TO_END.contains(&number) && !has_started() => {
                // A runtime that starts a container, or waits for a hook, does not listen.
                given_up = Some(number);
                process::send(child.pid, libc::SIGKILL);
            }
            Some(arrived) => pass_on(arrived, child, terminal),
            None => {}
        }
    }
}

fn pass_on(arrived: Arrived, child: &Contained, terminal: Option<&Terminal>) {
    match arrived {
        Arrived { number: libc::SIGTSTP, from_kernel } => {
            if !from_kernel {
                process::send(child.pid, libc::SIGTSTP);
            }
            suspend(child, terminal);
        }
        Arrived { number: libc::SIGWINCH, .. } if terminal.is_some() => resize(child, terminal),
        // runc keeps these two to itself.
        Arrived { number: number @ (libc::SIGWINCH | libc::SIGURG), .. } => {
            first_processes().for_each(|pid| child.signal_inside(pid, number));
        }
        Arrived { number, from_kernel: true } if FROM_TERMINAL.contains(&number) => {}
        Arrived { number, .. } => process::send(child.pid, number),
    }
}

/// Stops the container and this process, as Ctrl-Z does to a program without a container, until
/// this process is continued. The kernel itself would not stop the first process of a container.
fn suspend(child: &Contained, terminal: Option<&Terminal>) {
    std::thread::sleep(NOTICE);
    // The runtime first: else it would start more, and read what is typed for others.
    process::send(child.pid, libc::SIGSTOP);
    child.signal_all(libc::SIGSTOP);
    // The shell shall find its terminal as it was.
    let raw = terminal.and_then(|terminal| terminal.now().ok());
    terminal.inspect(|terminal| terminal.restore());
    process::stop();
    process::send(child.pid, libc::SIGCONT);
    if let Some(raw) = raw.filter(Terminal::is_ours) {
        raw.restore();
        // Its size may be another by now.
        resize(child, terminal);
    }
    child.signal_all(libc::SIGCONT);
}

/// Has the container's terminal follow the caller's: runc does it when it is told, for crun it must
/// be done.
fn resize(child: &Contained, terminal: Option<&Terminal>) {
    process::send(child.pid, libc::SIGWINCH);
    for pid in first_processes() {
        let root = Path::new("/proc").join(pid.to_string()).join("root");
        terminal.inspect(|terminal| terminal.hand_on_size(&root));
    }
}

/// The first process of the container, as the runtime numbers it, once there is one: a child of one
/// of the runtime's threads. /proc is the runtime's by now.
fn first_processes() -> impl Iterator<Item = i32> {
    let threads = std::fs::read_dir("/proc/1/task").into_iter().flatten().flatten();
    let children = threads.flat_map(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.split_whitespace().flat_map(str::parse).collect::<Vec<i32>>()
    });
    // Others are hooks, and share the runtime's namespace.
    children.filter(|pid| namespaces_of(*pid).is_some_and(|depth| depth > 1))
}

/// How many PID namespaces a process is in, from the runtime's on, where the kernel tells (4.1).
fn namespaces_of(pid: i32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(numbers.split_whitespace().count())
}

/// Whether the first process of the container is more than a copy of the runtime, which becomes the
/// program at the end of a start. Where the kernel does not tell, it is taken for that.
fn has_started() -> bool {
    if namespaces_of(1).is_none() || !Path::new("/proc/1/task/1/children").exists() {
        return true;
    }
    let name = |pid: i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    };
    let runtime = name(1);
    first_processes().map(name).any(|own| !own.is_empty() && own != runtime)
}

fn killed(signal: i32) -> u8 {
    log::write(
        log::Level::Error,
        "runtime",
        &format!("the OCI runtime was ended by signal {signal}"),
    );
    process::status_of(signal)
}
