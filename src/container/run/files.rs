//! Files that the engine writes: into the bundle, and the few of `/etc` that a program on a cluster
//! needs from the host.

use crate::container::plan::Bundle;
use crate::error::{Context, Result};
use crate::site::config::Config;
use crate::site::passwd;
use crate::sys;
use crate::sys::fs::read::read_at_most;
use crate::sys::ids;
use crate::user::User;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Creates the file `name` in `directory`; it must not be there yet, not as a link either.
pub fn create(
    directory: impl AsFd,
    name: &str,
    content: &[u8],
    mode: u32,
    owner: Option<&User>,
) -> Result<OwnedFd> {
    let cannot = || format!("cannot create {name}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode)).context(cannot)?;
    let mut file = std::fs::File::from(file);
    file.write_all(content).context(cannot)?;
    if let Some(owner) = owner {
        sys::fs::set_owner(&file, owner.uid, owner.gid).context(cannot)?;
    }
    Ok(file.into())
}

/// Gives what an `O_PATH` descriptor stands for to `user`.
pub fn chown(file: impl AsFd, user: &User) -> Result<()> {
    sys::fs::set_owner(file, user.uid, user.gid)
        .context(|| format!("cannot give it to user id {}", user.uid.as_raw()))
}

/// Writes the host's and the site's files into the new directory `etc`, which hide the image's.
pub fn write_etc(etc: &OwnedFd, config: &Config, bundle: &Bundle) -> Result<()> {
    let prefix = config.prefix_dir.join("etc");
    let files: [(&str, PathBuf); 5] = [
        ("hosts", "/etc/hosts".into()),
        ("resolv.conf", "/etc/resolv.conf".into()),
        ("nsswitch.conf", prefix.join("container/nsswitch.conf")),
        ("passwd", prefix.join("passwd")),
        ("group", prefix.join("group")),
    ];
    let read_all = || files.iter().map(|(_, source)| read_as_we_are(source)).collect();
    let contents: Vec<Option<Vec<u8>>> = ids::as_user(&bundle.user, read_all)?;
    for ((name, _), content) in files.iter().zip(contents) {
        // A node without name servers has no resolv.conf: then the image's is not right either.
        create(etc, name, &content.unwrap_or_default(), 0o644, Some(&bundle.user))
            .context(|| "cannot write /etc".into())?;
    }
    Ok(())
}

/// The content of a file of the host, or nothing where there is none. Read with the rights of
/// `user`, who sees it in the container: a link to another file shows nothing that they may not see.
pub fn read(user: &User, path: &Path) -> Result<Option<Vec<u8>>> {
    ids::as_user(user, || read_as_we_are(path))
}

fn read_as_we_are(path: &Path) -> Result<Option<Vec<u8>>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(cannot),
    };
    read_at_most(file, passwd::MAX_SIZE).context(cannot).map(Some)
}
