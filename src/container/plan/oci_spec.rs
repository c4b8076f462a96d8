//! Rendering of a plan as config.json: plain structs of the OCI runtime specification, and one function
//! that fills them. <https://github.com/opencontainers/runtime-spec/blob/main/config.md>

use super::Plan;
use super::devices::DeviceRule;
use super::mounts::{SystemMount, SystemSource};
use super::namespaces::PidNamespace;
use crate::sys::terminal::WindowSize;
use miniserde::Serialize;
use miniserde::json::{self, Value};
use miniserde::ser::Fragment;
use std::collections::BTreeMap;

/// Parts of config.json that the executor adds to the plan.
#[derive(Debug)]
pub struct Additions {
    /// Arguments before the program.
    pub launcher: Vec<String>,
    /// The object `hooks`.
    pub hooks: Value,
    /// Annotations.
    pub annotations: BTreeMap<&'static str, String>,
    /// Path of the cgroup to make, if that is prescribed.
    pub cgroup: Option<String>,
    /// The object `linux.seccomp`, if the runtime shall install a filter.
    pub seccomp: Option<Value>,
}

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(rename = "ociVersion")]
    version: &'a str,
    process: Process<'a>,
    root: Root<'a>,
    mounts: Vec<SpecMount>,
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

/// Capability sets, which are all empty.
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
struct SpecMount {
    destination: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'static str,
    options: Vec<String>,
}

/// The object `linux` by its keys: miniserde would write an absent option as null, which the
/// specification does not allow.
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

/// Resources of a cgroup; empty if none is made.
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

/// A rule for devices; -1 stands for all numbers.
#[derive(Serialize)]
struct Device {
    allow: bool,
    #[serde(rename = "type")]
    kind: String,
    major: i64,
    minor: i64,
    access: String,
}

/// Text of config.json for `plan`.
#[must_use]
pub fn render(plan: &Plan, additions: Additions) -> String {
    let Additions { launcher, hooks, annotations, cgroup, seccomp } = additions;
    json::to_string(&Spec {
        // The first version in which a user has a umask.
        version: "1.0.2",
        process: process(plan, launcher),
        root: Root { path: &plan.site.rootfs_folder, readonly: false },
        mounts: plan.system_mounts.iter().map(mount).collect(),
        hooks,
        linux: linux(plan, cgroup, seccomp),
        annotations,
    })
}

fn linux(plan: &Plan, cgroup: Option<String>, seccomp: Option<Value>) -> Linux {
    let namespaces: &[_] = match plan.pid {
        PidNamespace::Private => &["pid", "mount"],
        PidNamespace::Host => &["mount"],
    };
    let namespaces = namespaces.iter().map(|kind| Namespace { kind }).collect();
    let parts = [
        ("namespaces", Part::Namespaces(namespaces)),
        ("resources", Part::Resources(resources(plan))),
        ("rootfsPropagation", Part::Text("slave".to_owned())),
        ("maskedPaths", Part::List(plan.masked_paths.into())),
        ("readonlyPaths", Part::List(plan.readonly_paths.into())),
    ];
    let cgroup = cgroup.map(|path| ("cgroupsPath", Part::Text(path)));
    let seccomp = seccomp.map(|filter| ("seccomp", Part::Json(filter)));
    parts.into_iter().chain(cgroup).chain(seccomp).collect()
}

fn resources(plan: &Plan) -> Resources {
    let cpus = plan.cgroup.cpus.clone().map(|cpus| ("cpu", Resource::Cpu(Cpu { cpus })));
    // Without a list, runtimes allow a short one of their own: interconnects that sites and hooks mount
    // could not be opened. Devices that users make are prevented by `nodev`, not by cgroups.
    let rules = plan.cgroup.devices.as_deref();
    let devices = rules.map(|rules| ("devices", Resource::Devices(devices(rules))));
    cpus.into_iter().chain(devices).collect()
}

fn devices(rules: &[DeviceRule]) -> Vec<Device> {
    let device = |rule: &DeviceRule| {
        let DeviceRule { kind, major, minor, access } = rule.clone();
        Device { allow: true, kind, major, minor, access }
    };
    rules.iter().map(device).collect()
}

fn process(plan: &Plan, launcher: Vec<String>) -> Process<'_> {
    let (user, process) = (&plan.user, &plan.process);
    let WindowSize { rows, columns } = process.terminal.unwrap_or_default();
    Process {
        terminal: process.terminal.is_some(),
        // Runtimes ignore it without a terminal.
        size: ConsoleSize { height: rows, width: columns },
        user: User {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            umask: process.umask,
            groups: user.groups.iter().map(|group| group.as_raw()).collect(),
        },
        args: launcher.into_iter().chain(process.args.iter().cloned()).collect(),
        env: process.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: "/",
        capabilities: Capabilities::default(),
        no_new_privileges: true,
    }
}

fn mount(mount: &SystemMount) -> SpecMount {
    let restrictions = mount.restrictions;
    let (kind, source, more): (_, _, &[_]) = match mount.source {
        SystemSource::Filesystem(name) => (name, name, &[]),
        SystemSource::Host(path) => ("bind", path, &["rbind", "slave"]),
    };
    let flags = [
        ("nodev", restrictions.nodev),
        ("noexec", restrictions.noexec),
        ("ro", restrictions.readonly),
    ];
    let flags = flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name);
    let words = std::iter::once("nosuid").chain(flags).chain(more.iter().copied());
    let options = words.map(str::to_owned).chain(mount.options.iter().cloned()).collect();
    SpecMount { destination: mount.destination, kind, source, options }
}
