//! `ssh_hook start-sshd`: an OCI hook of the stage `prestart`; `ssh_hook keygen [--overwrite]` and
//! `ssh_hook check-user-has-sshkeys`: commands for the caller's own keys. See [`sarus::hook::ssh`].

use sarus::error::{Error, Result};
use sarus::hook::ssh::keygen;
use sarus::hook::ssh::keys::UserKeys;
use sarus::hook::{self, home};
use sarus::user::User;
use std::ffi::OsString;

pub fn main(args: &[OsString]) -> Result<u8> {
    let words: Vec<_> = args.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match words.as_slice() {
        ["start-sshd"] => hook::run(hook::ssh::prepare),
        ["check-user-has-sshkeys"] => own_keys()?.check().map(|()| 0),
        ["keygen"] => keygen::generate(&own_keys()?, false).map(|()| 0),
        ["keygen", "--overwrite"] => keygen::generate(&own_keys()?, true).map(|()| 0),
        _ => Err(Error::new("invalid command of ssh_hook").with_hint(
            "usage: ssh_hook start-sshd | keygen [--overwrite] | check-user-has-sshkeys",
        )),
    }
}

fn own_keys() -> Result<UserKeys> {
    Ok(UserKeys::in_home(&home::directory(&User::caller()?)?))
}
