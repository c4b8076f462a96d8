//! The directory of a user's files for hooks: `<HOOK_BASE_DIR>/<user>/.oci-hooks`.

use std::path::{Path, PathBuf};

use super::path_setting;
use crate::error::{Context, Error, Result};
use crate::site::passwd;
use crate::sys::fs::read::read_at_most;
use crate::sys::fs::resolve;
use crate::user::User;

/// The directory of `user`, from the variables `HOOK_BASE_DIR` and `PASSWD_FILE` of the hook.
///
/// # Errors
/// If a variable is not an absolute path, or the user is not in the user database.
pub fn directory(user: &User) -> Result<PathBuf> {
    let path =
        |name: &str| path_setting(name).context(|| "cannot find the user's directory".into());
    directory_below(&path("HOOK_BASE_DIR")?, &path("PASSWD_FILE")?, user)
}

/// The directory of `user` below `base`, by the user's name in the user database `database`.
///
/// # Errors
/// If the user is not in it.
pub fn directory_below(base: &Path, database: &Path, user: &User) -> Result<PathBuf> {
    let file = std::fs::File::from(resolve::regular_file(database)?);
    let bytes = read_at_most(file, passwd::MAX_SIZE)
        .context(|| format!("cannot use {}", database.display()))?;
    // Comments of old databases may not be UTF-8.
    let text = String::from_utf8_lossy(&bytes);
    let uid = user.uid.as_raw();
    let unknown = || Error::new(format!("cannot find user id {uid} in {}", database.display()));
    let name = passwd::user_name(&text, user.uid).ok_or_else(unknown)?;
    Ok(base.join(name).join(".oci-hooks"))
}
