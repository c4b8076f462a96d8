//! config.json of a bundle: plain structs of the OCI runtime specification, and one function that
//! fills them. <https://github.com/opencontainers/runtime-spec/blob/main/config.md>

use super::pid::PidNamespace;
use super::{Bundle, LAUNCH, first_stream, socket};
use crate::log;
use crate::sys::terminal::Size;
use miniserde::Serialize;
use miniserde::json::{self, Value};
use rustix::process::Pid;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(rename = "ociVersion")]
    version: &'a str,
    process: Process<'a>,
    root: Root<'a>,
    mounts: Vec<Mount>,
    hooks: &'a Value,
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Process<'a> {
    terminal: bool,
    #[serde(rename = "consoleSize")]
    size: ConsoleSize,
    user: User,
    args: Vec<String>,
    env: Vec<String>,
    cwd: &'a str,
    capabilities: Capabilities,
    #[serde(rename = "noNewPrivileges")]
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct ConsoleSize {
    height: u16,
    width: u16,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
    umask: u32,
    #[serde(rename = "additionalGids")]
    groups: Vec<u32>,
}

/// Empty, every one of them.
#[derive(Serialize, Default)]
struct Capabilities {
    bounding: Vec<String>,
    effective: Vec<String>,
    inheritable: Vec<String>,
    permitted: Vec<String>,
    ambient: Vec<String>,
}

#[derive(Serialize)]
struct Root<'a> {
    path: &'a str,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'static str,
    options: Vec<String>,
}

#[derive(Serialize)]
struct Linux {
    namespaces: Vec<Namespace>,
    resources: Resources,
    #[serde(rename = "rootfsPropagation")]
    propagation: &'static str,
    #[serde(rename = "maskedPaths")]
    masked: Vec<&'static str>,
    #[serde(rename = "readonlyPaths")]
    readonly: Vec<&'static str>,
}

#[derive(Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: &'static str,
}

/// Empty, or the processors.
type Resources = BTreeMap<&'static str, Cpu>;

#[derive(Serialize)]
struct Cpu {
    cpus: String,
}

/// The text of config.json, for the OCI runtime that is the process `runtime`. Nothing in it is
/// optional, so that no null is written, which the specification does not know.
#[must_use]
pub fn config_json(bundle: &Bundle, runtime: Pid) -> String {
    json::to_string(&spec(bundle, runtime))
}

fn spec(bundle: &Bundle, runtime: Pid) -> Spec<'_> {
    let namespaces: &[_] = match bundle.pid {
        PidNamespace::Private => &["pid", "mount"],
        PidNamespace::Host => &["mount"],
    };
    Spec {
        // The first version whose user has a umask.
        version: "1.0.2",
        process: process(bundle),
        root: Root { path: &bundle.rootfs, readonly: false },
        mounts: mounts(bundle),
        hooks: &bundle.hooks,
        linux: Linux {
            namespaces: namespaces.iter().map(|kind| Namespace { kind }).collect(),
            resources: bundle.cpus.clone().map(|cpus| ("cpu", Cpu { cpus })).into_iter().collect(),
            propagation: "slave",
            masked: MASKED.into(),
            readonly: READONLY.into(),
        },
        annotations: bundle.annotations(runtime),
    }
}

fn process(bundle: &Bundle) -> Process<'_> {
    let user = &bundle.user;
    // Which looks at what the runtime made, takes the caller's streams, goes to the directory, and
    // tells the engine of it: see the applet.
    let streams = match bundle.terminal {
        Some(_) => "-".to_owned(),
        None => first_stream(bundle.pmi).to_string(),
    };
    let Size { rows, columns } = bundle.terminal.unwrap_or_default();
    let socket = socket(bundle.pmi).to_string();
    let launch = [LAUNCH, &socket, &streams, &bundle.directory].map(str::to_owned);
    Process {
        terminal: bundle.terminal.is_some(),
        // Without a terminal nobody looks at it.
        size: ConsoleSize { height: rows, width: columns },
        user: User {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            umask: bundle.umask,
            groups: user.groups.iter().map(|group| group.as_raw()).collect(),
        },
        args: launch.into_iter().chain(bundle.args.iter().cloned()).collect(),
        env: bundle.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: "/",
        capabilities: Capabilities::default(),
        no_new_privileges: true,
    }
}

/// What tells of the kernel and of others, and what would let a device or the kernel be changed.
const MASKED: [&str; 7] = [
    "/proc/kcore",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mounts(bundle: &Bundle) -> Vec<Mount> {
    let mut pts = options(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    match bundle.tty_group {
        Some(group) => pts.push(format!("gid={group}")),
        None => log::warn("bundle", "no group 'tty' in the site's copy of the group database"),
    }
    let mount = |destination, kind, source, options| Mount { destination, kind, source, options };
    vec![
        mount("/proc", "proc", "proc", bundle.proc_options.clone()),
        mount("/dev/pts", "devpts", "devpts", pts),
        // The host's: ranks of one node share memory across their containers.
        mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            options(&["nosuid", "noexec", "nodev", "rbind", "slave", "rw"]),
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", options(&["nosuid", "noexec", "nodev"])),
        mount("/sys", "sysfs", "sysfs", options(&["nosuid", "noexec", "nodev", "ro"])),
    ]
}

fn options(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
