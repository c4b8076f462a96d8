//! `sarus images`: what the repository holds.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::args::Words;
use sarus::error::Result;
use sarus::log;
use sarus::store;

pub const COMMAND: Command = Command {
    name: "images",
    usage: "[OPTIONS]",
    about: "List images",
    note: "",
    options: Given::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

/// The options, as words.
#[derive(FromArgs, ArgsInfo)]
struct Given {
    /// use centralized repository instead of the local one
    #[argh(switch)]
    centralized_repository: bool,
}

fn main(command: &Command, words: Words) -> Result<u8> {
    let given: Given = command.options(&words)?;
    command.expect_words(&words, 0)?;
    let (_, repository) = super::open(given.centralized_repository)?;
    log::print(store::table(&repository.images()?).trim_end_matches('\n'));
    Ok(0)
}
