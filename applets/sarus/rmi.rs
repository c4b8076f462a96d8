//! `sarus rmi`: removes an image from a repository. Running containers keep it.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::error::Result;
use sarus::image::reference::Reference;
use sarus::log;

pub const COMMAND: Command = Command {
    name: "rmi",
    usage: "[OPTIONS] REPOSITORY[:TAG]",
    about: "Remove an image",
    note: "Note: REPOSITORY[:TAG] has to be specified as\n      \
           displayed by the \"sarus images\" command.",
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
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 1)?;
    let [name] = parsed.rest.as_slice() else { return Err(command.wrong_number()) };
    let reference: Reference = name.to_string_lossy().parse()?;
    let (_, repository) = super::open(args.centralized_repository)?;
    let image = repository.remove(&reference)?;
    log::print(&format!("removed {}", image.key()));
    Ok(0)
}
