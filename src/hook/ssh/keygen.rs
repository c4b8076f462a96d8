//! Generation of a user's keys: the work of `sarus ssh-keygen` and of `ssh_hook keygen`.

use std::path::PathBuf;

use super::keys::UserKeys;
use crate::error::{Error, Result};
use crate::hook::home;
use crate::log;
use crate::site::config::Config;
use crate::user::User;

/// Returns the keys of `user` at the place where the `ssh_hook` of this site looks for them.
///
/// # Errors
/// The site configured no `ssh_hook`, or does not know the user.
pub fn keys_of_site(config: &Config, user: &User) -> Result<UserKeys> {
    let Some(hook) = config.hooks.list.iter().find(|hook| hook.is("ssh_hook")) else {
        return Err(Error::new("cannot use SSH: this site configured no ssh_hook")
            .with_hint("the administrator adds it to OCIHooks in sarus.json"));
    };
    let path = |name: &str, usual: PathBuf| hook.setting(name).map_or(usual, PathBuf::from);
    let base = path("HOOK_BASE_DIR", config.local_repository_base_dir.clone());
    let passwd = path("PASSWD_FILE", config.prefix_dir.join("etc/passwd"));
    Ok(UserKeys::in_home(&home::directory_below(&base, &passwd, user)?))
}

/// Generates `keys`, and prints the result. Existing keys are replaced only to `overwrite` them.
///
/// # Errors
/// The keys cannot be written.
pub fn generate(keys: &UserKeys, overwrite: bool) -> Result<()> {
    if keys.generate(overwrite)? {
        log::print("Successfully generated SSH keys");
    } else {
        log::print(&format!(
            "SSH keys not generated because they already exist in \"{}\". \
             Use the '--overwrite' option to overwrite the existing keys.",
            keys.directory().display()
        ));
    }
    Ok(())
}
