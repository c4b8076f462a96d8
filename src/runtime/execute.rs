//! Executes a bundle: the only module that knows the OCI runtime and its command line.
//!
//! The runtime is a child in a PID namespace of its own, whose end ends everything in it. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md>.

use super::cgroups::{self, Janitor, Position};
use super::{diagnosis, files};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::error::{Because, Result};
use crate::log;
use crate::sys::process::{self, Change, Contained, Program};
use crate::sys::signal::{Arrived, Signals};
use crate::sys::terminal::Terminal;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::Mode;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The exit status when the engine or the OCI runtime failed before the program started.
pub(super) const FAILED: u8 = 125;

/// The runtimes that differ in what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciRuntime {
    /// The reference.
    Runc,
    /// It can leave the processes in the cgroup that the workload manager put them into.
    Crun,
    /// What takes runc's command line.
    Other,
}

impl OciRuntime {
    /// From the name of the program.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match name {
            name if name.starts_with("crun") => Self::Crun,
            name if name.starts_with("runc") => Self::Runc,
            _ => Self::Other,
        }
    }

    /// Whether the processors of the container are confined by a cgroup: then the list must be in
    /// the bundle. Else they are inherited, as everything that the workload manager set.
    #[must_use]
    pub fn makes_cgroups(self) -> bool {
        self != Self::Crun
    }

    /// Whether the root file system keeps its restrictions when the runtime binds it: runc's bind
    /// copies them. What is not known to is not trusted with it.
    #[must_use]
    pub fn keeps_restrictions(self) -> bool {
        self == Self::Runc
    }
}

/// Runs the bundle at `place` to its end.
pub fn run(config: &Config, bundle: &Bundle, place: &OwnedFd) -> Result<u8> {
    rustix::fs::mkdirat(place, "state", Mode::from_raw_mode(0o700))
        .because(|| "cannot create the runtime's state directory".into())?;
    let terminal = bundle.terminal.map(|_| Terminal::of_stdin()).transpose()?;
    let signals = Signals::take_over(&[])?;
    let id = format!("{}{}", cgroups::PREFIX, random_letters()?);
    let runtime = OciRuntime::of(&config.runc_path);
    let needs_janitor = runtime.makes_cgroups() || bundle.terminal.is_some();
    let position = needs_janitor.then(Position::now).transpose()?;
    let args = arguments(config, bundle, runtime, &id);
    // Of others it is not known that they log.
    let stderr = match runtime {
        OciRuntime::Other => None,
        _ => Some(files::create(place, diagnosis::STDERR, b"", 0o600, None)?.into()),
    };
    let child = process::spawn_contained(Program {
        path: config.runc_path.as_os_str(),
        args: &args,
        env: &[("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")],
        directory: place.as_fd(),
        signals: &signals,
        takes_stdin: bundle.terminal.is_some(),
        stderr,
        takes_stdio: runtime != OciRuntime::Runc,
    })?;
    let janitor =
        position.map(|position| Janitor::start(&id, position, terminal.as_ref())).transpose()?;
    let status = wait(&child, &signals, terminal.as_ref());
    if let Some(janitor) = janitor {
        janitor.dismiss();
    }
    let status = status?;
    match status {
        0 => Ok(0),
        _ => diagnosis::explain(bundle, place, &config.hooks).map_or(Ok(status), Err),
    }
}

fn arguments(config: &Config, bundle: &Bundle, runtime: OciRuntime, id: &str) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    args.extend(["--root".into(), config.bundle_dir.join("state").into()]);
    args.extend(["--log".into(), config.bundle_dir.join(diagnosis::LOG).into()]);
    if runtime == OciRuntime::Crun {
        args.push("--cgroup-manager=disabled".into());
    }
    args.push("run".into());
    if bundle.preserved_fds() > 0 {
        args.push(format!("--preserve-fds={}", bundle.preserved_fds()).into());
    }
    args.push(id.into());
    args
}

/// Sixteen of them tell the containers of a node apart.
fn random_letters() -> Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .because(|| "cannot get random bytes".into())?;
    Ok(bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}

/// What a terminal sends to every process of the foreground group, so to the runtime too.
const FROM_TERMINAL: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTTIN, libc::SIGTTOU];

/// Passes signals on until the runtime ends.
fn wait(child: &Contained, signals: &Signals, terminal: Option<&Terminal>) -> Result<u8> {
    loop {
        match signals.next(None)? {
            Some(Arrived { number: libc::SIGCHLD, .. }) => {
                while let Some((pid, change)) = process::next_change() {
                    match change {
                        Change::Exited(status) if pid == child.pid => return Ok(status),
                        Change::Killed(signal) if pid == child.pid => return Ok(killed(signal)),
                        _ => {}
                    }
                }
            }
            Some(Arrived { number: libc::SIGTSTP, from_kernel }) => {
                if !from_kernel {
                    process::send(child.pid, libc::SIGTSTP);
                }
                suspend(child, terminal);
            }
            Some(Arrived { number: libc::SIGWINCH, .. }) if terminal.is_some() => {
                resize(child, terminal);
            }
            // runc keeps these two to itself.
            Some(Arrived { number: number @ (libc::SIGWINCH | libc::SIGURG), .. }) => {
                first_processes().for_each(|pid| child.signal_inside(pid, number));
            }
            Some(Arrived { number, from_kernel: true }) if FROM_TERMINAL.contains(&number) => {}
            Some(Arrived { number, .. }) => process::send(child.pid, number),
            None => {}
        }
    }
}

/// How long a program may prepare for being stopped, if it handles SIGTSTP.
const NOTICE: Duration = Duration::from_millis(20);

/// Stops the container and this process, as Ctrl-Z does to a program without a container, until
/// this process is continued. The kernel itself would not stop the first process of a container.
fn suspend(child: &Contained, terminal: Option<&Terminal>) {
    std::thread::sleep(NOTICE);
    child.signal_all(libc::SIGSTOP);
    // Or it would read what is typed for others.
    process::send(child.pid, libc::SIGSTOP);
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

/// The first process of the container, as the runtime numbers it, once there is one: it is a child
/// of one of the runtime's threads, and /proc is the runtime's by now.
fn first_processes() -> impl Iterator<Item = i32> {
    let threads = std::fs::read_dir("/proc/1/task").into_iter().flatten().flatten();
    threads.flat_map(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let pids: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        pids
    })
}

fn killed(signal: i32) -> u8 {
    log::write(
        log::Level::Error,
        "runtime",
        &format!("the OCI runtime was ended by signal {signal}"),
    );
    process::status_of(signal)
}
