//! `sarus ssh-keygen`: generates the SSH keys for a user's containers.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::error::Result;
use sarus::hook::ssh::keygen;
use sarus::site::config::{Config, Installation};
use sarus::user::User;

pub const COMMAND: Command = Command {
    name: "ssh-keygen",
    usage: "[OPTIONS]",
    about: "Generate the SSH keys in the local repository",
    note: "Containers that run with \"sarus run --ssh\" use them, on all nodes.\n\
           They need to be generated once only.",
    options: Args::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

/// Options of the command, as argh parses them.
#[derive(FromArgs, ArgsInfo)]
struct Args {
    /// replace existing keys
    #[argh(switch)]
    overwrite: bool,
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 0)?;
    let config = Config::load(&Installation::find()?)?;
    let keys = keygen::keys_of_site(&config, &User::caller()?)?;
    keygen::generate(&keys, args.overwrite).map(|()| 0)
}
