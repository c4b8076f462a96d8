//! `sarus load`: imports an image from an archive, a directory or stdin.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::cli::progress::Progress;
use sarus::error::Result;
use sarus::image::platform::TargetPlatform;
use sarus::image::reference::Reference;
use sarus::import::load::{self, LoadRequest};
use sarus::import::source::ImageSelector;
use sarus::import::temp::TempDir;
use sarus::log;
use std::path::PathBuf;

pub const COMMAND: Command = Command {
    name: "load",
    usage: "[OPTIONS] FILE REPOSITORY[:TAG]",
    about: "Load the contents of a tarball to create a filesystem image",
    note: "FILE is an archive of docker save, podman save or skopeo, an OCI archive or the\n\
           directory of an OCI layout; - is stdin. The image is then called\n\
           load/<namespace>/<image>, as \"sarus images\" shows.",
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
    /// temporary directory for decompressed layers
    #[argh(option)]
    temp_dir: Option<PathBuf>,
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 2)?;
    let [file, name] = parsed.rest.as_slice() else { return Err(command.wrong_number()) };
    let name = name.to_string_lossy();
    let reference = name.parse::<Reference>()?.for_load();
    let (config, repository) = super::open(args.centralized_repository)?;
    let temp_dir = TempDir::new(args.temp_dir.as_deref().unwrap_or(&config.temp_dir))?;
    let request = LoadRequest {
        file,
        selector: ImageSelector { name: name.into_owned(), platform: TargetPlatform::host() },
        reference: &reference,
        repository: &repository,
        temp_dir: &temp_dir,
        compression: super::compression(&config, args.compression.as_deref())?,
    };
    let image = load::load(&request, Progress::new())?;
    log::print(&format!("# created: {}", image.paths.squashfs.display()));
    log::print(&format!("# created: {}", image.paths.metadata.display()));
    Ok(0)
}
