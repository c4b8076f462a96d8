//! `sarus run`: from options, image and caller to a plan, and on to its realisation.

use super::Command;
use crate::rights::Rights;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::container::plan::handoff;
use sarus::container::plan::mounts::MountRequest;
use sarus::container::plan::namespaces::PidNamespace;
use sarus::container::plan::process::Entrypoint;
use sarus::container::plan::{self, Bundle, Caller, Options};
use sarus::container::run::{self, Image, OciRuntime};
use sarus::error::{Context, Error, Result};
use sarus::hook::ssh::keygen;
use sarus::image::reference::Reference;
use sarus::log;
use sarus::site::config::{Config, Installation};
use sarus::store::Repository;
use sarus::sys::process::limits::Limits;
use sarus::sys::process::start_notify::Listener;
use sarus::sys::process::supervisor;
use sarus::sys::terminal::Terminal;
use sarus::sys::{descriptors, ids, process};
use sarus::user::User;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

pub const COMMAND: Command = Command {
    name: "run",
    usage: "[OPTIONS] REPOSITORY[:TAG] [COMMAND] [ARG...]",
    about: "Run a command in a new container",
    note: "Note: REPOSITORY[:TAG] has to be specified as\n      \
           displayed by the \"sarus images\" command.",
    options: Given::get_args_info,
    // The manual's `--entrypoint -t <image> bash`: it never takes the next word.
    optional_value: &["--entrypoint"],
    failure: 125,
    main,
};

/// Root is needed to run something, from an image at least.
pub fn rights(words: &[OsString]) -> Rights {
    match COMMAND.split(words) {
        Ok(words) if !words.help && !words.rest.is_empty() => Rights::Keep,
        _ => Rights::Drop,
    }
}

/// The options, as words.
#[derive(FromArgs, ArgsInfo)]
struct Given {
    /// use centralized repository instead of the local one
    #[argh(switch)]
    centralized_repository: bool,
    /// allocate a pseudo-TTY in the container
    #[argh(switch, short = 't')]
    tty: bool,
    /// overwrite the default ENTRYPOINT of the image; without =arg, remove it
    #[argh(option)]
    entrypoint: Option<String>,
    /// replace the container's glibc by the host's, if that is newer
    #[argh(switch)]
    glibc: bool,
    /// run an init process inside the container that forwards signals and reaps processes
    #[argh(switch)]
    init: bool,
    /// use the host's MPI in the container; implies --glibc
    #[argh(switch, short = 'm')]
    mpi: bool,
    /// mount what the host has: type=bind,source=PATH,destination=PATH[,readonly]
    #[argh(option)]
    mount: Vec<String>,
    /// process numbers inside: host or private; default: host for one of several processes of a
    /// job, else private
    #[argh(option)]
    pid: Option<String>,
    /// enable SSH in the container
    #[argh(switch)]
    ssh: bool,
    /// set working directory inside the container
    #[argh(option, short = 'w')]
    workdir: Option<String>,
}

fn main(command: &Command, words: ParsedArgs) -> Result<u8> {
    let start = Instant::now();
    let limits = Limits::take()?;
    let (environment, pmi, listener) = take_from_caller()?;
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022)).as_raw_mode();
    let given: Given = command.options(&words)?;
    let (image, args) = words.rest.split_first().ok_or_else(|| command.wrong_number())?;
    let reference: Reference = image.to_string_lossy().parse()?;
    let (centralized, options) = typed(given, args, &environment)?;
    require_root()?;

    let user = User::caller()?;
    let installation = Installation::find()?;
    let config = Config::load(&installation)?;
    if options.ssh {
        let keys = keygen::keys_of_site(&config, &user)?;
        ids::as_user(&user, || keys.check())?;
    }
    let (image, metadata) =
        ids::as_user(&user, || find_image(&config, &user, centralized, &reference))?;
    let runtime = OciRuntime::identify(&config)?;
    let (cpus, devices) = match runtime.makes_cgroups() {
        true => (limited_cpus(), Some(run::allowed_devices())),
        false => (None, None),
    };
    let groups = run::read_group_database(&config, &user)?;
    let proc_options = match options.pid {
        PidNamespace::Host => proc_options()?,
        PidNamespace::Private => Vec::new(),
    };
    let caller = Caller { user, environment, umask, limits, cpus, devices, proc_options, pmi };
    let bundle = Bundle::plan(&config, &metadata, options, caller, &groups)?;
    log::info("cli", || {
        format!("command line processed in {:.6} s", start.elapsed().as_secs_f64())
    });
    run::run(&config, &runtime, &bundle, &image, &installation.program, &listener)
}

type Environment = Vec<(OsString, OsString)>;

/// Takes the environment and the open descriptors away from this process: nothing of them shall
/// reach what runs as root. What the container gets of them is given back: the environment, and
/// whether there is a descriptor for PMI; and where its start is heard of.
fn take_from_caller() -> Result<(Environment, bool, Listener)> {
    let environment = process::take_environment();
    let pmi_fd = environment
        .iter()
        .find(|(name, _)| name == "PMI_FD")
        .and_then(|(_, value)| value.to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && descriptors::is_open(*fd));
    descriptors::close_descriptors(pmi_fd)?;
    if let Some(fd) = pmi_fd {
        descriptors::move_descriptor(fd, handoff::PMI_FD)?;
    }
    let pmi = pmi_fd.is_some();
    let listener = Listener::new(handoff::socket(pmi))?;
    descriptors::copy_streams(handoff::first_stream(pmi))?;
    Ok((environment, pmi, listener))
}

fn typed(given: Given, args: &[OsString], environment: &Environment) -> Result<(bool, Options)> {
    let entrypoint = match given.entrypoint {
        None => Entrypoint::Image,
        Some(program) if program.is_empty() => Entrypoint::Removed,
        Some(program) => Entrypoint::Set(program),
    };
    if let Some(path) = given.workdir.as_deref() {
        if !path.starts_with('/') {
            return Err(Error::new(format!(
                "the working directory '{path}' is invalid, it needs to be an absolute path"
            )));
        }
        if plan::mounts::has_parent(Path::new(path)) {
            return Err(Error::new(format!(
                "the working directory '{path}' is invalid, it must not hold '..'"
            )));
        }
    }
    // sshd and what it starts end with a namespace of their own; its sessions are no ranks.
    let pid = match (given.pid.map(|text| text.parse()).transpose()?, given.ssh) {
        (Some(PidNamespace::Host), true) => {
            return Err(Error::new("cannot run with both --ssh and --pid=host").with_hint(
                "leave --pid=host out: with --ssh, ranks start in one container of a node",
            ));
        }
        (_, true) => PidNamespace::Private,
        (Some(pid), false) => pid,
        (None, false) => match PidNamespace::for_job(environment) {
            PidNamespace::Host if !supervisor::adopt_orphans() => {
                log::warn(
                    "run",
                    "this kernel cannot hold ranks together that share the host's \
                           process numbers: each has its own, which some MPI libraries do not \
                           bear (--pid=private says that it shall be so)",
                );
                PidNamespace::Private
            }
            usual => usual,
        },
    };
    let mounts = given.mount.iter().map(|request| MountRequest::parse(request));
    let options = Options {
        entrypoint,
        mounts: mounts.collect::<Result<_>>()?,
        workdir: given.workdir,
        terminal: given.tty.then(|| Ok(Terminal::of_stdin()?.size())).transpose()?,
        // sshd and what logins leave behind need a first process that reaps them.
        init: given.init || given.ssh,
        pid,
        mpi: given.mpi,
        glibc: given.glibc || given.mpi,
        ssh: given.ssh,
        args: args.to_vec(),
    };
    Ok((given.centralized_repository, options))
}

fn require_root() -> Result<()> {
    if ids::is_effective_root() {
        return Ok(());
    }
    Err(Error::new("cannot run containers: sarus is not installed set-user-id root").with_hint(
        "ask the administrator to run configure_installation.sh as root; the file system of the \
         installation must not be mounted nosuid",
    ))
}

/// Finds the image in the repository, opens and checks it: everything here belongs to the user.
fn find_image(
    config: &Config,
    user: &User,
    centralized: bool,
    reference: &Reference,
) -> Result<(Image, sarus::image::metadata::Metadata)> {
    let repository = Repository::open(config, user, centralized)?;
    let Some(found) = repository.find(reference)? else {
        return Err(not_available(&repository, reference));
    };
    let metadata = repository.metadata(&found)?;
    let name = reference.to_string();
    let image = Image::open(&found.paths.squashfs, name, user, &config.accepted_compressors)?;
    Ok((image, metadata))
}

fn not_available(repository: &Repository, reference: &Reference) -> Error {
    let error = Error::new(format!("specified image {reference} is not available"));
    let loaded = reference.clone().for_load();
    match repository.find(&loaded) {
        Ok(Some(_)) => {
            error.with_hint(format!("an image of that name was loaded: it is called {loaded}"))
        }
        _ => error.with_hint(
            "'sarus images' lists what is here; 'sarus pull' and 'sarus load' bring more",
        ),
    }
}

/// How `/proc` of a container is to be mounted that sees the processes of the host.
fn proc_options() -> Result<Vec<String>> {
    let path = "/proc/self/mountinfo";
    // Whoever may mount may do it on any name.
    let text = std::fs::read(path).context(|| format!("cannot read {path}"))?;
    plan::namespaces::restrictions_of_proc(&String::from_utf8_lossy(&text))
}

/// The processors that this process may use, if they are not all that there are.
fn limited_cpus() -> Option<String> {
    // A cgroup of version 2 below our own has no controllers: it is confined as our own is.
    if run::are_unified() {
        return None;
    }
    let status = read_at_once("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let online = read_at_once("/sys/devices/system/cpu/online").unwrap_or_default();
    (list != online.trim()).then(|| list.to_owned())
}

/// A file of the kernel's, which has no size: without room for it, it is read piece by piece.
fn read_at_once(path: &str) -> Option<String> {
    let mut text = String::with_capacity(4096);
    std::fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}
