//! `sarus pull`: imports an image from a registry.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::cli::progress::Progress;
use sarus::cli::prompt;
use sarus::error::{Context, Error, Result};
use sarus::image::platform::TargetPlatform;
use sarus::image::reference::Reference;
use sarus::import::pull::{self, PullRequest};
use sarus::import::temp::TempDir;
use sarus::registry::{Credentials, Login, Registry, Settings};
use std::path::PathBuf;

pub const COMMAND: Command = Command {
    name: "pull",
    usage: "[OPTIONS] REPOSITORY[:TAG]",
    about: "Pull an image from a registry",
    note: "REPOSITORY is [SERVER/][NAMESPACE/]IMAGE; without SERVER it is on Docker Hub. In place\n\
           of :TAG, @sha256:<digest> names an image that never changes. Credentials that \"docker\n\
           login\" or \"podman login\" stored are used where the registry requires them.",
    options: Args::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

/// Options of the command, as argh parses them.
#[derive(FromArgs, ArgsInfo)]
struct Args {
    /// use centralized repository instead of the local one
    #[argh(switch)]
    centralized_repository: bool,
    /// compressor of the image: zstd, gzip, lz4 or none, and :level
    #[argh(option)]
    compression: Option<String>,
    /// enter user credentials for private repository
    #[argh(switch)]
    login: bool,
    /// read the password from stdin
    #[argh(switch)]
    password_stdin: bool,
    /// pull for other nodes: os/architecture[/variant]
    #[argh(option)]
    platform: Option<String>,
    /// temporary directory for decompressed layers
    #[argh(option)]
    temp_dir: Option<PathBuf>,
    /// username for private repository
    #[argh(option, short = 'u')]
    username: Option<String>,
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 1)?;
    let [name] = parsed.rest.as_slice() else { return Err(command.wrong_number()) };
    let reference = reference(&name.to_string_lossy())?;
    let platform = args.platform.as_deref().map(TargetPlatform::parse).transpose()?;
    let (config, repository) = super::open(args.centralized_repository)?;
    let temp_dir = TempDir::new(args.temp_dir.as_deref().unwrap_or(&config.temp_dir))?;
    let request = PullRequest {
        reference: &reference,
        platform: platform.unwrap_or_else(TargetPlatform::host),
        repository: &repository,
        temp_dir: &temp_dir,
        compression: super::compression(&config, args.compression.as_deref())?,
        downloads: usize::try_from(config.pulling.downloads).unwrap_or(1),
        cache_limit: config.pulling.cache_limit,
    };
    let settings = Settings::from_environment(&config.pulling.insecure_registries);
    let login = login(&args).map_err(|error| command.see(error))?;
    let registry = Registry::new(&reference, settings, login);
    pull::pull(&registry, &request, Progress::new())
        .context(|| format!("cannot pull {reference}"))?;
    Ok(0)
}

fn reference(name: &str) -> Result<Reference> {
    let reference: Reference = name.parse()?;
    if reference.server == sarus::image::reference::LOADED {
        return Err(Error::new(format!("cannot pull {reference}: it was loaded from a file"))
            .with_hint("load it again with 'sarus load'"));
    }
    Ok(reference)
}

/// Returns the login of the user. Prompts for credentials, which are stored nowhere.
fn login(args: &Args) -> Result<Login> {
    let username = match &args.username {
        Some(username) => username.clone(),
        None if args.password_stdin => {
            return Err(Error::new("option '--password-stdin' needs --username"));
        }
        None if args.login => prompt::ask("username    :", false)?,
        None => return Ok(Login::Stored),
    };
    let password = prompt::ask("password    :", true)?;
    if username.is_empty() || password.is_empty() {
        return Err(Error::new("the user name or the password is empty"));
    }
    // A colon separates user name and password (RFC 7617).
    if username.contains(':') {
        return Err(Error::new("the user name contains a colon"));
    }
    Ok(Login::Explicit(Credentials::new(username, password)))
}
