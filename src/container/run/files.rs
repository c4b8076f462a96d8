//! Creation of files that root makes for a container, and reading with the user's rights.

use crate::error::{Context, Result};
use crate::site::passwd;
use crate::sys;
use crate::sys::fs::read::read_at_most;
use crate::sys::ids;
use crate::user::User;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::path::Path;

/// Creates the file `name` in `directory`; fails if that exists, as a link too.
pub fn create(
    directory: impl AsFd,
    name: &str,
    content: &[u8],
    mode: u32,
    owner: Option<&User>,
) -> Result<OwnedFd> {
    let context = || format!("cannot create {name}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode)).context(context)?;
    let mut file = std::fs::File::from(file);
    file.write_all(content).context(context)?;
    if let Some(owner) = owner {
        sys::fs::set_owner(&file, owner.uid, owner.gid).context(context)?;
    }
    Ok(file.into())
}

/// Changes the owner of the file behind an `O_PATH` descriptor.
pub fn chown(file: impl AsFd, user: &User) -> Result<()> {
    sys::fs::set_owner(file, user.uid, user.gid)
        .context(|| format!("cannot change the owner to uid {}", user.uid.as_raw()))
}

/// Opens the directory `path` of the host.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, DIRECTORY, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))
}

/// Opens the directory `name` in `parent`.
pub fn subdirectory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
        .context(|| format!("cannot open {name} in the bundle"))
}

/// Flags that open a directory and no link to one.
pub const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Content of a file of the host, `None` if it does not exist. Read with the rights of `user`, who
/// sees it in the container: a link shows nothing that the user may not read.
pub fn read(user: &User, path: &Path) -> Result<Option<Vec<u8>>> {
    ids::as_user(user, || read_as_is(path))
}

/// Does the same as [`read`], with the rights of this process.
pub fn read_as_is(path: &Path) -> Result<Option<Vec<u8>>> {
    let context = || format!("cannot read {}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(context),
    };
    read_at_most(file, passwd::MAX_SIZE).context(context).map(Some)
}
