//! Where hooks keep what belongs to a user: `<HOOK_BASE_DIR>/<user>/.oci-hooks`.

use std::path::{Path, PathBuf};

use super::setting;
use crate::error::{Context, Error, Result};
use crate::site::passwd;
use crate::sys::fs::read::read_at_most;
use crate::sys::fs::resolve;
use crate::user::User;

/// The directory of `user`, as the variables `HOOK_BASE_DIR` and `PASSWD_FILE` of the hook say.
///
/// # Errors
/// When one of them is not set well, or does not know the user.
pub fn of(user: &User) -> Result<PathBuf> {
    let path = |name: &str| {
        let path = setting(name).map(PathBuf::from).filter(|path| path.is_absolute());
        path.ok_or_else(|| {
            Error::new(format!("cannot find the user's directory: {name} is no absolute path"))
                .with_hint("the site sets it in the environment of the hook, in sarus.json")
        })
    };
    below(&path("HOOK_BASE_DIR")?, &path("PASSWD_FILE")?, user)
}

/// The directory of `user` below `base`, by the name that the file `passwd` knows them by.
///
/// # Errors
/// When it does not know them.
pub fn below(base: &Path, passwd: &Path, user: &User) -> Result<PathBuf> {
    let file = std::fs::File::from(resolve::regular_file(passwd)?);
    let bytes = read_at_most(file, passwd::MAX_SIZE)
        .context(|| format!("cannot use {}", passwd.display()))?;
    // Comments of old databases are not in UTF-8.
    let text = String::from_utf8_lossy(&bytes);
    let uid = user.uid.as_raw();
    let unknown = || Error::new(format!("cannot find user id {uid} in {}", passwd.display()));
    let name = passwd::user_name(&text, user.uid).ok_or_else(unknown)?;
    Ok(base.join(name).join(".oci-hooks"))
}
