//! Files of `/etc` that a program on a cluster needs from host and site. They hide the image's.

use super::files;
use crate::container::plan::EtcFile;
use crate::error::{Context, Result};
use crate::sys::ids;
use crate::user::User;
use rustix::fd::OwnedFd;

/// Writes `files` into the new directory `etc`, for `user`.
pub fn write(etc: &OwnedFd, files: &[EtcFile], user: &User) -> Result<()> {
    let read_all = || files.iter().map(|file| files::read_as_is(&file.source)).collect();
    let contents: Vec<Option<Vec<u8>>> = ids::as_user(user, read_all)?;
    for (file, content) in files.iter().zip(contents) {
        // A node without name servers has no resolv.conf: the image's would not be right either.
        files::create(etc, file.name, &content.unwrap_or_default(), 0o644, Some(user))
            .context(|| "cannot write /etc".into())?;
    }
    Ok(())
}
