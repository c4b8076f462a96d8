//! The directory of a user's files for hooks: `<HOOK_BASE_DIR>/<user>/.oci-hooks`.

use std::path::{Path, PathBuf};

use super::path_setting;
use crate::error::{Context, Error, Result};
use crate::sys::fs::resolve;
use crate::user::User;

/// Maximum size of a user database in bytes. The engine has the same limit.
pub const MAX_PASSWD: u64 = 64 << 20;

/// The directory of `user`, from the variables `HOOK_BASE_DIR` and `PASSWD_FILE` of the hook.
///
/// # Errors
/// If a variable is not an absolute path, or the user is not in the user database.
pub fn directory(user: &User) -> Result<PathBuf> {
    let path =
        |name: &str| path_setting(name).context(|| "cannot find the user's directory".into());
    directory_below(&path("HOOK_BASE_DIR")?, &path("PASSWD_FILE")?, user)
}

/// The directory of `user` below `base`, by the user's name in the user database `passwd`.
///
/// # Errors
/// If the user is not in it.
pub fn directory_below(base: &Path, passwd: &Path, user: &User) -> Result<PathBuf> {
    let file = std::fs::File::from(resolve::regular_file(passwd)?);
    let bytes = super::read_bytes(file, MAX_PASSWD)
        .context(|| format!("cannot use {}", passwd.display()))?;
    // Comments of old databases may not be UTF-8.
    let text = String::from_utf8_lossy(&bytes);
    let uid = user.uid.as_raw();
    let unknown = || Error::new(format!("cannot find user id {uid} in {}", passwd.display()));
    let name = user.name(&text).ok_or_else(unknown)?;
    Ok(base.join(name).join(".oci-hooks"))
}
