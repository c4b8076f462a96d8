//! Rewrites a container's `/etc/ld.so.cache` with libraries that a hook added, as ldconfig(8) would.
//! No program of the image runs for it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::process::{Gid, Uid};

use super::ldcache::{self, Listing};
use crate::error::{Context, Result};
use crate::hook::container_root::ContainerRoot;
use crate::rootfs::root_dir::RootDir;
use crate::sys::fs::{FileId, resolve, set_owner};
use crate::sys::{ids, random};

/// Writes the cache anew, with `libraries` added to its bytes `old`. A new file takes the place of the
/// old one by rename(2), and no link is followed.
///
/// # Errors
/// If `old` is not a cache, or the new one cannot be written.
pub fn update(root: &ContainerRoot, old: &[u8], libraries: &[Listing]) -> Result<()> {
    let container = &root.container;
    let context = || format!("cannot rewrite the container's {}", ldcache::PATH);
    let exists = |path: &[u8]| {
        let path = Path::new(OsStr::from_bytes(path));
        !matches!(container.find(path, OFlags::PATH), Ok(None))
    };
    let is_merged = is_same(container, "/lib", "/usr/lib").context(context)?;
    let layout = ldcache::RootLayout { is_merged, exists: &exists };
    let bytes = ldcache::add(old, libraries, layout).context(context)?;
    if bytes == old {
        return Ok(());
    }
    let path = Path::new(ldcache::PATH);
    let found = container.find(path, OFlags::PATH | OFlags::NOFOLLOW).context(context)?;
    let status =
        resolve::status(found.ok_or("it was removed").context(context)?).context(context)?;
    let folder = path.parent().unwrap_or(path);
    let directory = container.find(folder, OFlags::PATH | OFlags::DIRECTORY).context(context)?;
    let directory = directory.ok_or("its directory was removed").context(context)?;
    root.creator.change(&directory, || {
        replace(&directory, path.file_name().unwrap_or_default(), &bytes, &status).context(context)
    })
}

/// True if both paths of the container lead to the same file.
fn is_same(container: &RootDir, one: &str, other: &str) -> Result<bool> {
    let find = |path: &str| container.find(Path::new(path), OFlags::PATH);
    let (Some(one), Some(other)) = (find(one)?, find(other)?) else { return Ok(false) };
    Ok(FileId::from_fd(&one)? == FileId::from_fd(&other)?)
}

/// Replaces the file `name` of `directory` with `bytes`.
fn replace(directory: &OwnedFd, name: &OsStr, bytes: &[u8], old: &Stat) -> Result<()> {
    let mut number = [0; 8];
    random::fill(&mut number)?;
    let temporary = format!(".ld.so.cache.{:x}", u64::from_ne_bytes(number));
    let written = write_beside(directory, &temporary, bytes, old)
        .and_then(|()| rustix::fs::renameat(directory, &temporary, directory, name));
    if written.is_err() {
        rustix::fs::unlinkat(directory, &temporary, AtFlags::empty()).ok();
    }
    written.context(|| "cannot create the new file".into())
}

/// Writes the new file `name` of mode 0644. Root gives it to the owner of `old`.
fn write_beside(
    directory: &OwnedFd,
    name: &str,
    mut bytes: &[u8],
    old: &Stat,
) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes))?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    if ids::is_effective_root() {
        set_owner(&file, Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))
}
