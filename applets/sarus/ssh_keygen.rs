//! `sarus ssh-keygen`: the keys with which a user's containers reach each other.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::Words;
use sarus::error::{Error, Result};
use sarus::hook::home;
use sarus::hook::ssh::keys::UserKeys;
use sarus::site::config::{Config, Installation};
use sarus::user::User;
use std::path::PathBuf;

pub const COMMAND: Command = Command {
    name: "ssh-keygen",
    usage: "[OPTIONS]",
    about: "Generate the SSH keys in the local repository",
    note: "Containers that run with \"sarus run --ssh\" use them, on all nodes.\n\
           They need to be generated once only.",
    options: Given::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

/// The options, as words.
#[derive(FromArgs, ArgsInfo)]
struct Given {
    /// replace the keys that are there
    #[argh(switch)]
    overwrite: bool,
}

fn main(command: &Command, words: Words) -> Result<u8> {
    let given: Given = command.options(&words)?;
    command.expect_words(&words, 0)?;
    let config = Config::load(&Installation::find()?)?;
    crate::ssh_hook::keygen(&keys(&config, &User::caller()?)?, given.overwrite)
}

/// The keys of `user` in the directory that this site configured for `ssh_hook`.
pub fn keys(config: &Config, user: &User) -> Result<UserKeys> {
    let Some(hook) = config.hooks.list.iter().find(|hook| hook.is("ssh_hook")) else {
        return Err(Error::new("cannot use SSH: this site configured no ssh_hook")
            .with_hint("the administrator names it in OCIHooks of sarus.json"));
    };
    let path = |name: &str, usual: PathBuf| hook.setting(name).map_or(usual, PathBuf::from);
    let base = path("HOOK_BASE_DIR", config.local_repository_base_dir.clone());
    let passwd = path("PASSWD_FILE", config.prefix_dir.join("etc/passwd"));
    Ok(UserKeys::in_home(&home::directory_below(&base, &passwd, user)?))
}
