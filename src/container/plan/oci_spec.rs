//! config.json of a bundle: plain structs of the OCI runtime specification, and one function that
//! fills them. <https://github.com/opencontainers/runtime-spec/blob/main/config.md>

use super::hooks::{self, StagedHook};
use super::namespaces::PidNamespace;
use super::{Bundle, LAUNCH};
use crate::log;
use crate::sys::terminal::Size;
use miniserde::Serialize;
use miniserde::json::{self, Value};
use miniserde::ser::Fragment;
use rustix::process::Pid;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(rename = "ociVersion")]
    version: &'a str,
    process: Process<'a>,
    root: Root<'a>,
    mounts: Vec<Mount>,
    hooks: Value,
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

/// By name: what is left out is not written as null.
type Linux = BTreeMap<&'static str, Part>;

enum Part {
    Namespaces(Vec<Namespace>),
    Resources(Resources),
    Text(String),
    List(Vec<&'static str>),
    Json(Value),
}

impl Serialize for Part {
    fn begin(&self) -> Fragment<'_> {
        match self {
            Self::Namespaces(list) => list.begin(),
            Self::Resources(resources) => resources.begin(),
            Self::Text(text) => text.begin(),
            Self::List(list) => list.begin(),
            Self::Json(value) => value.begin(),
        }
    }
}

#[derive(Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: &'static str,
}

/// For a cgroup; empty where none is made.
type Resources = BTreeMap<&'static str, Resource>;

enum Resource {
    Cpu(Cpu),
    Devices(Vec<Device>),
}

impl Serialize for Resource {
    fn begin(&self) -> Fragment<'_> {
        match self {
            Self::Cpu(cpu) => cpu.begin(),
            Self::Devices(list) => list.begin(),
        }
    }
}

#[derive(Serialize)]
struct Cpu {
    cpus: String,
}

/// A negative number stands for any.
#[derive(Serialize, Debug, PartialEq)]
struct Device {
    allow: bool,
    #[serde(rename = "type")]
    kind: String,
    major: i64,
    minor: i64,
    access: String,
}

/// The text of config.json with `hooks`, for the OCI runtime that is the process `runtime` and that
/// shall make the cgroup `cgroup`, if it is told which, and install the filter `seccomp`. Nothing in it is optional, so that no null is
/// written, which the specification does not know.
#[must_use]
pub fn config_json(
    bundle: &Bundle,
    hooks: &[StagedHook],
    runtime: Pid,
    cgroup: Option<&str>,
    seccomp: Option<Value>,
) -> String {
    json::to_string(&spec(bundle, hooks, runtime, cgroup, seccomp))
}

fn spec<'a>(
    bundle: &'a Bundle,
    hooks: &[StagedHook],
    runtime: Pid,
    cgroup: Option<&str>,
    seccomp: Option<Value>,
) -> Spec<'a> {
    Spec {
        // The first version whose user has a umask.
        version: "1.0.2",
        process: process(bundle),
        root: Root { path: &bundle.rootfs, readonly: false },
        mounts: mounts(bundle),
        hooks: hooks::to_json(hooks),
        linux: linux(bundle, cgroup, seccomp),
        annotations: bundle.annotations(runtime),
    }
}

fn linux(bundle: &Bundle, cgroup: Option<&str>, seccomp: Option<Value>) -> Linux {
    let namespaces: &[_] = match bundle.pid {
        PidNamespace::Private => &["pid", "mount"],
        PidNamespace::Host => &["mount"],
    };
    let namespaces = namespaces.iter().map(|kind| Namespace { kind }).collect();
    let cgroup = cgroup.map(|path| ("cgroupsPath", Part::Text(path.to_owned())));
    let parts = [
        ("namespaces", Part::Namespaces(namespaces)),
        ("resources", Part::Resources(resources(bundle))),
        ("rootfsPropagation", Part::Text("slave".to_owned())),
        ("maskedPaths", Part::List(MASKED.into())),
        ("readonlyPaths", Part::List(READONLY.into())),
    ];
    let seccomp = seccomp.map(|filter| ("seccomp", Part::Json(filter)));
    parts.into_iter().chain(cgroup).chain(seccomp).collect()
}

fn resources(bundle: &Bundle) -> Resources {
    let cpus = bundle.cpus.clone().map(|cpus| ("cpu", Resource::Cpu(Cpu { cpus })));
    // Else runtimes allow their own short list: what sites and hooks mount, such as an interconnect,
    // could be seen and not opened. Devices that users make are kept out by mounts, not by cgroups.
    let list = bundle.devices.as_deref();
    let devices = list.map(|list| ("devices", Resource::Devices(devices(list))));
    cpus.into_iter().chain(devices).collect()
}

/// What a list of the kernel's allows: lines such as `c 10:* rwm`.
fn devices(list: &str) -> Vec<Device> {
    let number = |text: &str| if text == "*" { Some(-1) } else { text.parse().ok() };
    let device = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        let (numbers, access) = rest.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        let (major, minor) = (number(major)?, number(minor)?);
        Some(Device { allow: true, kind: kind.into(), major, minor, access: access.into() })
    };
    list.lines().filter_map(device).collect()
}

fn process(bundle: &Bundle) -> Process<'_> {
    let user = &bundle.user;
    let Size { rows, columns } = bundle.terminal.unwrap_or_default();
    let launch = std::iter::once(LAUNCH.to_owned()).chain(bundle.handoff().to_words());
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
        args: launch.chain(bundle.args.iter().cloned()).collect(),
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
    // One more mount of the same file systems has no restriction that the host's has.
    let closed = ["nosuid", "noexec", "nodev"];
    let proc = options(&closed).into_iter().chain(bundle.proc_options.iter().cloned());
    let mount = |destination, kind, source, options| Mount { destination, kind, source, options };
    vec![
        mount("/proc", "proc", "proc", proc.collect()),
        mount("/dev/pts", "devpts", "devpts", pts),
        // The host's: ranks of one node share memory across their containers.
        mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            options(&["nosuid", "noexec", "nodev", "rbind", "slave", "rw"]),
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", options(&closed)),
        mount("/sys", "sysfs", "sysfs", options(&["nosuid", "noexec", "nodev", "ro"])),
    ]
}

fn options(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_those_that_the_kernel_lists() {
        let device = |kind: &str, major, minor, access: &str| {
            let (kind, access) = (kind.to_owned(), access.to_owned());
            Device { allow: true, kind, major, minor, access }
        };
        for (list, expected) in [
            ("a *:* rwm\n", vec![device("a", -1, -1, "rwm")]),
            ("c *:* m\nb 8:0 r", vec![device("c", -1, -1, "m"), device("b", 8, 0, "r")]),
            ("c 136:* rwm\n", vec![device("c", 136, -1, "rwm")]),
            ("", vec![]),
            ("c x:1 r\nc\nc 1", vec![]),
        ] {
            assert_eq!(devices(list), expected, "{list}");
        }
    }
}
