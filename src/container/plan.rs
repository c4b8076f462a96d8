//! The plan of a container: everything that is decided before anything is done.
//!
//! [`Plan::new`] makes it from configuration, image metadata, options and caller. No function here
//! performs I/O, writes to the log or reads global state: warnings are part of the plan. Executors
//! (`container::run`) need nothing but the plan; [`oci_spec`] renders it as config.json.
//!
//! Beside the fields of [`Plan`], these hold for every container: all capability sets are empty,
//! `no_new_privs` is set, the mount namespace is new, and its propagation is slave.

pub mod devices;
pub mod environment;
pub mod hooks;
pub mod mounts;
pub mod namespaces;
pub mod oci_runtime;
pub mod oci_spec;
pub mod process;

use crate::container::handoff::Descriptors;
use crate::error::Result;
use crate::hook;
use crate::image::metadata::Metadata;
use crate::log::Level;
use crate::site::config::{Config, RamFilesystem, SeccompProfile, UserMounts};
use crate::site::passwd;
use crate::site::trust::Checks;
use crate::sys::process::ProcessId;
use crate::sys::process::limits::CallerLimits;
use crate::sys::terminal::WindowSize;
use crate::user::User;
use devices::DeviceRule;
use hooks::PlannedHook;
use mounts::{BindMount, MountRequest, SystemMount};
use namespaces::PidNamespace;
use oci_runtime::OciRuntime;
use process::{ContainerProcess, Entrypoint};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options and arguments of `sarus run`, typed.
#[derive(Debug)]
pub struct Options {
    /// `--entrypoint`
    pub entrypoint: Entrypoint,
    /// `--mount`, in the order given.
    pub mounts: Vec<MountRequest>,
    /// `--workdir`, absolute.
    pub workdir: Option<String>,
    /// `--tty`
    pub tty: bool,
    /// `--init`
    pub init: bool,
    /// `--pid`
    pub pid: Option<PidNamespace>,
    /// `--mpi`
    pub mpi: bool,
    /// `--glibc`
    pub glibc: bool,
    /// `--ssh`
    pub ssh: bool,
    /// Arguments behind the image.
    pub args: Vec<OsString>,
    /// Lowest level of messages that are shown.
    pub log_level: Level,
    /// Warnings about the options.
    pub warnings: Vec<String>,
}

/// Facts about the calling process and the host, as [`container::caller`](super::caller) finds them.
#[derive(Debug)]
pub struct Caller {
    /// Real ids and groups.
    pub user: User,
    /// Environment.
    pub environment: Vec<(OsString, OsString)>,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits and priority.
    pub limits: CallerLimits,
    /// Descriptors that enter the container.
    pub descriptors: Descriptors,
    /// Size of the terminal that stdin is, with `--tty`.
    pub terminal: Option<WindowSize>,
    /// PID namespace that the options ask for or that suits the job.
    pub pid: PidNamespace,
    /// Mount options of the host's `/proc` that hide processes, if the container sees the host's.
    pub proc_options: Vec<String>,
    /// Resources of the caller's cgroups.
    pub cgroup: Cgroup,
    /// Text of the site's copy of the group database (group(5)).
    pub group_database: String,
    /// Warnings about the caller.
    pub warnings: Vec<String>,
}

/// Resources of a cgroup that an OCI runtime makes for the container. Both are absent where it makes
/// none, and the caller's hold by themselves.
#[derive(Debug, Default)]
pub struct Cgroup {
    /// Processors as a list (`0-3,8`), if not all that are online.
    pub cpus: Option<String>,
    /// Devices that are allowed.
    pub devices: Option<Vec<DeviceRule>>,
}

/// Decisions of the site about how and where containers are made.
#[derive(Debug)]
pub struct Site {
    /// Tells if the files that root uses are verified.
    pub checks: Checks,
    /// Directory over which the bundle is mounted.
    pub bundle_dir: PathBuf,
    /// Name of the root directory in the bundle.
    pub rootfs_folder: String,
    /// File system that holds the bundle.
    pub ram_filesystem: RamFilesystem,
    /// Directory of the site's files.
    pub prefix_dir: PathBuf,
    /// The site's own init program.
    pub init_path: Option<PathBuf>,
    /// Directories of OpenSSH that `ssh_hook` uses.
    pub openssh: Vec<PathBuf>,
    /// Destinations that users may not mount on.
    pub user_mounts: UserMounts,
    /// Filter of the container's system calls.
    pub seccomp_profile: SeccompProfile,
}

/// A file of the host that is copied into the container's `/etc`, read with the user's rights.
#[derive(Debug, PartialEq, Eq)]
pub struct EtcFile {
    /// Name in `/etc`.
    pub name: &'static str,
    /// Path on the host; the copy is empty if it does not exist.
    pub source: PathBuf,
}

/// Plan of a container. See the [module](self) for the attributes that all containers have in common.
#[derive(Debug)]
pub struct Plan {
    /// Ids and groups of the program.
    pub user: User,
    /// The program.
    pub process: ContainerProcess,
    /// PID namespace of the program.
    pub pid: PidNamespace,
    /// File systems of the kernel, in the order in which they are mounted, before the hooks.
    pub system_mounts: Vec<SystemMount>,
    /// Bind mounts, in the order in which they are made: the site's, then the user's.
    pub mounts: Vec<BindMount>,
    /// Paths covered by an empty file or directory.
    pub masked_paths: &'static [&'static str],
    /// Paths that are made read-only.
    pub readonly_paths: &'static [&'static str],
    /// Files of `/etc`.
    pub etc_files: Vec<EtcFile>,
    /// True if `init` is placed in the container at [`INIT`].
    pub init: bool,
    /// Hooks of the site, in the order of sarus.json.
    pub hooks: Vec<PlannedHook>,
    /// Annotations that ask hooks to act.
    pub requests: Vec<&'static str>,
    /// Resources for an OCI runtime that makes a cgroup.
    pub cgroup: Cgroup,
    /// Descriptors that enter the container.
    pub descriptors: Descriptors,
    /// Decisions of the site.
    pub site: Site,
    /// The OCI runtime that executes the plan; the built-in one if absent.
    pub runtime: Option<OciRuntime>,
    /// Lowest level of messages that hooks show.
    pub log_level: Level,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Path of the init program in the container.
pub const INIT: &str = "/dev/init";

/// Paths that tell of the kernel and of other processes, or give access to hardware.
const MASKED_PATHS: [&str; 7] = [
    "/proc/kcore",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Paths by which the kernel or a device could be changed.
const READONLY_PATHS: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// If there is no program to run, or an argument or variable cannot be passed to one.
    pub fn new(
        config: &Config,
        image: &Metadata,
        options: Options,
        caller: Caller,
        runtime: Option<OciRuntime>,
    ) -> Result<Self> {
        let mut warnings = options.warnings.clone();
        warnings.extend(caller.warnings.iter().cloned());
        warnings.extend(missing_hooks(config, &options));
        let process = ContainerProcess::new(config, image, &options, &caller, &mut warnings)?;
        let requests = requests(&options);
        let tty_group = passwd::group_id(&caller.group_database, "tty");
        if tty_group.is_none() {
            warnings.push("no group 'tty' in the site's copy of the group database".to_owned());
        }
        Ok(Self {
            user: caller.user,
            process,
            pid: caller.pid,
            system_mounts: mounts::system_mounts(tty_group, &caller.proc_options),
            mounts: mounts::bind_mounts(&config.site_mounts, options.mounts),
            masked_paths: &MASKED_PATHS,
            readonly_paths: &READONLY_PATHS,
            etc_files: etc_files(config),
            init: options.init,
            hooks: hooks::plan(&config.hooks.list, &requests),
            requests,
            cgroup: caller.cgroup,
            descriptors: caller.descriptors,
            site: Site::new(config, runtime.is_none()),
            runtime,
            log_level: options.log_level,
            warnings,
        })
    }

    /// True if the hook::ssh::ENABLED daemon that `ssh_hook` prepares is to be started before the program.
    #[must_use]
    pub fn starts_sshd(&self) -> bool {
        self.requests.contains(&hook::ssh::ENABLED)
    }

    /// Annotations for hooks: their requests, the log level, and the caller's stdout and stderr as
    /// paths to descriptors of the process `holder`.
    #[must_use]
    pub fn annotations(&self, holder: ProcessId) -> BTreeMap<&'static str, String> {
        let first = self.descriptors.first_stream();
        let stream = |number| format!("/proc/{holder}/fd/{}", first + number);
        let requests = self.requests.iter().map(|name| (*name, "true".to_owned()));
        let log = [
            (hook::LOG_LEVEL, (self.log_level as u8).to_string()),
            (hook::LOG_STDOUT, stream(1)),
            (hook::LOG_STDERR, stream(2)),
        ];
        log.into_iter().chain(requests).collect()
    }
}

impl Site {
    fn new(config: &Config, is_builtin: bool) -> Self {
        // OCI runtimes never had a profile unless the site chose one.
        let default = if is_builtin { SeccompProfile::Default } else { SeccompProfile::Unconfined };
        let openssh = config.hooks.list.iter().filter_map(|hook| hook.openssh(&config.prefix_dir));
        Self {
            checks: config.checks,
            bundle_dir: config.bundle_dir.clone(),
            rootfs_folder: config.rootfs_folder.clone(),
            ram_filesystem: config.ram_filesystem,
            prefix_dir: config.prefix_dir.clone(),
            init_path: config.init_path.clone(),
            openssh: openssh.collect(),
            user_mounts: config.user_mounts.clone(),
            seccomp_profile: config.seccomp_profile.clone().unwrap_or(default),
        }
    }
}

fn requests(options: &Options) -> Vec<&'static str> {
    let all = [
        (hook::glibc::ENABLED, options.glibc),
        (hook::mpi::ENABLED, options.mpi),
        (hook::ssh::ENABLED, options.ssh),
        // No login may come to a container that has not started on its node.
        (hook::slurm::ENABLED, options.ssh),
    ];
    all.iter().filter(|(_, is_requested)| *is_requested).map(|(name, _)| *name).collect()
}

/// Warnings about options whose hook the site did not configure.
fn missing_hooks(config: &Config, options: &Options) -> Vec<String> {
    // --mpi implies --glibc, for the case that the host's MPI needs it.
    let glibc = options.glibc && !options.mpi;
    let options = [("--mpi", options.mpi, "mpi_hook"), ("--glibc", glibc, "glibc_hook")];
    let missing = options.iter().filter(|(_, is_given, hook)| {
        *is_given && !config.hooks.list.iter().any(|one| one.is(hook))
    });
    missing
        .map(|(option, _, hook)| {
            format!("{option} may have no effect: this site configured no {hook}")
        })
        .collect()
}

fn etc_files(config: &Config) -> Vec<EtcFile> {
    let prefix = config.prefix_dir.join("etc");
    let files = [
        ("hosts", "/etc/hosts".into()),
        ("resolv.conf", "/etc/resolv.conf".into()),
        ("nsswitch.conf", prefix.join("container/nsswitch.conf")),
        ("passwd", prefix.join("passwd")),
        ("group", prefix.join("group")),
    ];
    files.into_iter().map(|(name, source)| EtcFile { name, source }).collect()
}

#[cfg(test)]
mod tests;
