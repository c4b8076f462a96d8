//! `sarus images`: lists the images of a repository.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::error::{Error, Result};
use sarus::log;
use sarus::store;

pub const COMMAND: Command = Command {
    name: "images",
    usage: "[OPTIONS]",
    about: "List images",
    note: "",
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
    /// print everything about the images as JSON
    #[argh(switch)]
    json: bool,
    /// print only the names to give to run and rmi
    #[argh(switch, short = 'q')]
    quiet: bool,
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 0)?;
    let (_, repository) = super::open(args.centralized_repository)?;
    let images = repository.images()?;
    let text = match (args.json, args.quiet) {
        (true, true) => {
            return Err(
                command.see(Error::new("options '--json' and '--quiet' exclude each other"))
            );
        }
        (true, false) => store::json(&images),
        (false, true) if images.is_empty() => return Ok(0),
        (false, true) => store::names(&images),
        (false, false) => store::table(&images),
    };
    log::print(&text);
    Ok(0)
}
