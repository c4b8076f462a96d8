//! `sarus run`: options, configuration, image and caller become a plan, which is then realised.

use super::Command;
use crate::rights::Rights;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::container::caller::Inherited;
use sarus::container::plan::mounts::MountRequest;
use sarus::container::plan::namespaces::PidNamespace;
use sarus::container::plan::process::{self, Entrypoint};
use sarus::container::plan::{Options, Plan};
use sarus::container::run::{self, Engine, Image, external};
use sarus::error::{Error, Result};
use sarus::hook::ssh::keygen;
use sarus::image::metadata::Metadata;
use sarus::image::reference::Reference;
use sarus::log::{self, Level};
use sarus::site::config::{Config, Installation};
use sarus::store::Repository;
use sarus::sys::ids;
use sarus::sys::terminal::Terminal;
use sarus::user::User;
use std::ffi::OsString;
use std::time::Instant;

pub const COMMAND: Command = Command {
    name: "run",
    usage: "[OPTIONS] REPOSITORY[:TAG] [COMMAND] [ARG...]",
    about: "Run a command in a new container",
    note: "Note: REPOSITORY[:TAG] has to be specified as\n      \
           displayed by the \"sarus images\" command.",
    options: Flags::get_args_info,
    // As in the manual's `--entrypoint -t <image> bash`: the next word is not its value.
    optional_value: &["--entrypoint"],
    failure: 125,
    main,
};

/// Keeps root if there is an image to run.
pub fn rights(words: &ParsedArgs) -> Rights {
    if words.help || words.rest.is_empty() { Rights::Drop } else { Rights::Keep }
}

/// Options as argh parses them.
#[derive(FromArgs, ArgsInfo)]
struct Flags {
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
    // argh shows the brackets as they stand.
    #[allow(rustdoc::broken_intra_doc_links)]
    /// bind mount from the host: type=bind,source=PATH,destination=PATH[,readonly]
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
    let (inherited, listener) = Inherited::take()?;
    let flags: Flags = command.options(&words)?;
    let (image, args) = words.rest.split_first().ok_or_else(|| command.wrong_number())?;
    let reference: Reference = image.to_string_lossy().parse()?;
    let centralized = flags.centralized_repository;
    let options = typed(flags, args)?;
    let terminal = if options.tty { Some(Terminal::from_stdin()?) } else { None };
    require_root()?;

    let user = User::caller()?;
    let installation = Installation::find()?;
    let config = Config::load(&installation)?;
    if options.ssh {
        let keys = keygen::keys_of_site(&config, &user)?;
        ids::as_user(&user, || keys.check())?;
    }
    let find = || find_image(&config, &user, centralized, &reference);
    let (image, metadata) = ids::as_user(&user, find)?;
    let runtime = external::identify(&config)?;
    let caller = inherited.observe(user, terminal.as_ref(), &options, &config, &runtime)?;
    let plan = Plan::new(&config, &metadata, options, caller, runtime)?;
    plan.warnings.iter().for_each(|warning| log::warn("run", warning));
    log::info("cli", || {
        format!("command line processed in {:.6} s", start.elapsed().as_secs_f64())
    });
    let engine =
        Engine { program: &installation.program, listener: &listener, terminal: terminal.as_ref() };
    run::run(&plan, &image, engine)
}

/// Turns options into types, and checks what can be checked by their words alone.
fn typed(flags: Flags, args: &[OsString]) -> Result<Options> {
    let entrypoint = match flags.entrypoint {
        None => Entrypoint::Image,
        Some(program) if program.is_empty() => Entrypoint::Removed,
        Some(program) => Entrypoint::Set(program),
    };
    flags.workdir.as_deref().map_or(Ok(()), process::check_workdir)?;
    let pid = flags.pid.map(|text| text.parse()).transpose()?;
    if flags.ssh && pid == Some(PidNamespace::Host) {
        return Err(Error::new("cannot run with both --ssh and --pid=host").with_hint(
            "leave --pid=host out: with --ssh, ranks start in one container of a node",
        ));
    }
    let mut warnings = Vec::new();
    let mounts = flags.mount.iter().map(|request| MountRequest::parse(request, &mut warnings));
    Ok(Options {
        entrypoint,
        mounts: mounts.collect::<Result<_>>()?,
        workdir: flags.workdir,
        tty: flags.tty,
        // Orphans of sshd and of logins need a first process that reaps them.
        init: flags.init || flags.ssh,
        pid,
        mpi: flags.mpi,
        glibc: flags.glibc || flags.mpi,
        ssh: flags.ssh,
        args: args.to_vec(),
        log_level: Level::from_number(Some(log::threshold())),
        warnings,
    })
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

/// Finds the image in the repository, opens and validates it. Must be called with the user's rights.
fn find_image(
    config: &Config,
    user: &User,
    centralized: bool,
    reference: &Reference,
) -> Result<(Image, Metadata)> {
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
