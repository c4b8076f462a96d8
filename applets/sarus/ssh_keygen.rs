//! `sarus ssh-keygen`: the keys with which a user's containers reach each other.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::ParsedArgs;
use sarus::error::{Error, Result};
use sarus::hook::home;
use sarus::hook::ssh::keys::Keys;
use sarus::site::config::{Config, Installation};
use sarus::user::User;
use std::path::PathBuf;

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
    /// replace the keys that are there
    #[argh(switch)]
    overwrite: bool,
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 0)?;
    let config = Config::load(&Installation::find()?)?;
    crate::ssh_hook::keygen(&keys(&config, &User::caller()?)?, args.overwrite)
}

/// Where `ssh_hook` looks for the keys of `user`, as this site configured it.
pub fn keys(config: &Config, user: &User) -> Result<Keys> {
    let Some(hook) = config.hooks.list.iter().find(|hook| hook.is("ssh_hook")) else {
        return Err(Error::new("cannot use SSH: this site configured no ssh_hook")
            .with_hint("the administrator names it in OCIHooks of sarus.json"));
    };
    let path = |name: &str, usual: PathBuf| hook.setting(name).map_or(usual, PathBuf::from);
    let base = path("HOOK_BASE_DIR", config.local_repository_base_dir.clone());
    let passwd = path("PASSWD_FILE", config.prefix_dir.join("etc/passwd"));
    Ok(Keys::of(&home::below(&base, &passwd, user)?))
}
