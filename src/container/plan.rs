//! The plan of a container: everything that is decided before anything is done.
//!
//! [`Bundle`] is made by a pure function from configuration, image, options and caller; `runtime`
//! realises it. `spec` says it in the words of the OCI runtime specification.

pub mod environment;
pub mod handoff;
pub mod hooks;
pub mod mounts;
pub mod namespaces;
pub mod oci_spec;
pub mod process;

use crate::error::{Error, Result};
use crate::hook;
use crate::image::metadata::Metadata;
use crate::log;
use crate::site::config::Config;
use crate::sys::process::limits::Limits;
use crate::sys::terminal::Size;
use crate::user::User;
use environment::Variables;
use handoff::{Handoff, PMI_FD};
use mounts::MountRequest;
use namespaces::PidNamespace;
use process::Entrypoint;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What the command line asks for, typed.
#[derive(Debug)]
pub struct Options {
    /// `--entrypoint`
    pub entrypoint: Entrypoint,
    /// `--mount`, in the order given.
    pub mounts: Vec<MountRequest>,
    /// `--workdir`, absolute.
    pub workdir: Option<String>,
    /// `--tty`, and the size of the caller's terminal.
    pub terminal: Option<Size>,
    /// `--init`
    pub init: bool,
    /// `--pid`, or what suits the job.
    pub pid: PidNamespace,
    /// `--mpi`
    pub mpi: bool,
    /// `--glibc`
    pub glibc: bool,
    /// `--ssh`
    pub ssh: bool,
    /// The words behind the image.
    pub args: Vec<OsString>,
}

/// What the caller brought along.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub user: User,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The file mode creation mask.
    pub umask: u32,
    /// Resource limits and priority.
    pub limits: Limits,
    /// The processors that the caller may use, as a list (`0-3,8`), if not all of the machine's.
    pub cpus: Option<String>,
    /// The devices that the caller's cgroup allows, as the kernel lists them, if the container gets
    /// one of its own.
    pub devices: Option<String>,
    /// What the host's `/proc` hides, if the container shall see the host's processes.
    pub proc_options: Vec<String>,
    /// Whether [`PMI_FD`] is a descriptor that a process manager named in the variable `PMI_FD`.
    pub pmi: bool,
}

/// A container, as it shall be.
#[derive(Debug)]
pub struct Bundle {
    /// Who the program runs as.
    pub user: User,
    /// Its file mode creation mask.
    pub umask: u32,
    /// Its resource limits and priority, which those of the OCI runtime are not.
    pub limits: Limits,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Variables,
    /// Where it starts.
    pub directory: String,
    /// The size of its terminal, if it gets one of its own.
    pub terminal: Option<Size>,
    /// Whether an init process runs it.
    pub init: bool,
    /// Which processes it sees.
    pub pid: PidNamespace,
    /// The options of its `/proc`.
    pub proc_options: Vec<String>,
    /// The folder of the root file system in the bundle.
    pub rootfs: String,
    /// Mounts of the site, then of the user.
    pub mounts: Vec<Mount>,
    /// The processors that it may use, if not all.
    pub cpus: Option<String>,
    /// The devices that its cgroup allows, if it has one.
    pub devices: Option<String>,
    /// The number of the site's group `tty`.
    pub tty_group: Option<u32>,
    /// What hooks shall do that act only when they are asked to.
    pub asked: Vec<&'static str>,
    /// Whether [`PMI_FD`] is handed on.
    pub pmi: bool,
}

/// A bind mount, and who asked for it.
#[derive(Debug)]
pub struct Mount {
    /// What and where.
    pub request: MountRequest,
    /// The limits of user mounts hold for it, and its source is opened with the user's rights.
    pub by_user: bool,
}

/// Where the init process lies in the container.
pub const INIT: &str = "/dev/init";

/// Where crun shall put what hooks print, in the bundle.
pub const HOOKS_OUTPUT: &str = "hooks.log";

/// Where the program lies in the container that becomes the one to run.
pub const LAUNCH: &str = "/dev/launch";

/// The kernel's limit of an argument or a variable, `=` and the final NUL left out: execve(2).
const LONGEST: usize = (128 << 10) - 2;

impl Bundle {
    /// Decides.
    ///
    /// # Errors
    /// When there is nothing to run, or it cannot be said in config.json.
    pub fn plan(
        config: &Config,
        image: &Metadata,
        options: Options,
        caller: Caller,
        group_database: &str,
    ) -> Result<Self> {
        let env_of_image = image.env.as_deref().unwrap_or_default();
        let mut env = environment::unite(&caller.environment, env_of_image, &config.environment);
        if caller.pmi {
            env.insert("PMI_FD".into(), PMI_FD.to_string());
        }
        let mut args = process::words(image, &options.entrypoint, &options.args)?;
        if options.init {
            args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
        }
        if let Some(word) = args.iter().find(|word| word.contains('\0')) {
            return Err(Error::new(format!("cannot run with a NUL byte in '{word}'")));
        }
        if let Some((name, _)) = env.iter().find(|(name, value)| name.len() + value.len() > LONGEST)
        {
            return Err(Error::new(format!("cannot run with a variable as long as {name}")));
        }
        if args.iter().any(|word| word.len() > LONGEST) {
            return Err(Error::new("cannot run with an argument of more than 128 KiB"));
        }
        let site = config.site_mounts.iter().map(|mount| Mount {
            request: MountRequest {
                source: mount.source.clone(),
                destination: mount.destination.clone(),
                readonly: mount.readonly,
            },
            by_user: false,
        });
        let asked = [
            (hook::glibc::ENABLED, options.glibc),
            (hook::mpi::ENABLED, options.mpi),
            (hook::ssh::ENABLED, options.ssh),
            // Nobody shall look for a container that is still to come.
            (hook::slurm::ENABLED, options.ssh),
        ];
        let asked: Vec<_> = asked.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        // --mpi asks for glibc only where the host's MPI needs it.
        let for_itself = options.glibc && !options.mpi;
        for (option, is_asked, hook) in
            [("--mpi", options.mpi, "mpi_hook"), ("--glibc", for_itself, "glibc_hook")]
        {
            if is_asked && !config.hooks.list.iter().any(|one| one.is(hook)) {
                let why = format!("{option} may have no effect: this site configured no {hook}");
                log::warn("bundle", &why);
            }
        }
        let user = options.mounts.into_iter().map(|request| Mount { request, by_user: true });
        Ok(Self {
            directory: process::directory(image, options.workdir.as_deref()),
            mounts: site.chain(user).collect(),
            args,
            env,
            umask: caller.umask,
            limits: caller.limits,
            terminal: options.terminal,
            init: options.init,
            pid: options.pid,
            proc_options: caller.proc_options,
            rootfs: config.rootfs_folder.clone(),
            cpus: caller.cpus,
            devices: caller.devices,
            tty_group: group_id(group_database, "tty"),
            asked,
            pmi: caller.pmi,
            user: caller.user,
        })
    }

    /// How many descriptors above 2 enter the container, from 3 on. With a terminal of its own, a
    /// program does not get the caller's streams.
    #[must_use]
    pub fn preserved_fds(&self) -> u32 {
        u32::from(self.pmi) + 1 + if self.terminal.is_some() { 0 } else { 3 }
    }

    /// The last step of the start, inside the container.
    fn handoff(&self) -> Handoff {
        Handoff {
            socket: handoff::socket(self.pmi),
            streams: self.terminal.is_none().then(|| handoff::first_stream(self.pmi)),
            directory: self.directory.clone().into(),
            limits: Some(self.limits.clone()),
            sshd: self.asked.contains(&hook::ssh::ENABLED),
            level: log::Level::from_number(Some(log::threshold())),
        }
    }

    /// What hooks are told beside the state: what to log, and where. They find the engine's stdout
    /// and stderr at the OCI runtime, which is process `runtime` for them.
    fn annotations(&self, runtime: Pid) -> BTreeMap<&'static str, String> {
        let runtime = runtime.as_raw_nonzero();
        let stream =
            |number| format!("/proc/{runtime}/fd/{}", handoff::first_stream(self.pmi) + number);
        let asked = self.asked.iter().map(|name| (*name, "true".to_owned()));
        let engine = [
            (hook::LOG_LEVEL, log::threshold().to_string()),
            (hook::LOG_STDOUT, stream(1)),
            (hook::LOG_STDERR, stream(2)),
            // crun's own: it throws away what hooks print otherwise.
            ("run.oci.hooks.stdout", HOOKS_OUTPUT.to_owned()),
            ("run.oci.hooks.stderr", HOOKS_OUTPUT.to_owned()),
        ];
        engine.into_iter().chain(asked).collect()
    }
}

/// The number of a group in the text of a group database (group(5)).
fn group_id(database: &str, name: &str) -> Option<u32> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}
