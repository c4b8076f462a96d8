//! Mount points of the engine: those that users may choose, and the working directory.
//!
//! Links of the image are followed inside its root ([`crate::rootfs::mount_point`]), and may lead to
//! directories of the host that were mounted before: a user's paths are resolved with their rights.

use super::rootfs::Rootfs;
use crate::error::{Error, Result};
use crate::rootfs::mount_point::MountPoint;
use crate::site::config::UserMounts;
use crate::site::reserved;
use crate::sys::ids;
use crate::user::User;
use rustix::fs::FileType;
use std::path::{Path, PathBuf};

/// Creates the working directory `path` of the container if it is missing; not at a reserved path,
/// where the OCI runtime creates files later: there `launch` finds the directory, or ends the run.
pub fn create_directory(rootfs: &Rootfs, user: &User, path: &Path) -> Result<()> {
    if reserved::check(path).is_err() {
        return Ok(());
    }
    let point = ids::as_user(user, || MountPoint::find(&rootfs.root, path))?;
    match point.check_reserved() {
        Ok(()) => point.create(FileType::Directory, &rootfs.creator).map(drop),
        Err(_) => Ok(()),
    }
}

/// Refuses a mount point of `user` that the site does not allow: `userMounts` of sarus.json. Its paths
/// are compared component by component, as they stand and where the image's links lead them.
///
/// # Errors
/// With the rule.
pub fn check_allowed(
    point: &MountPoint<'_>,
    rootfs: &Rootfs,
    limits: &UserMounts,
    user: &User,
) -> Result<()> {
    let path = point.path();
    // A rule for a directory that the user cannot search: no mount point of theirs is in it.
    let resolve = |rule: &Path| ids::as_user(user, || MountPoint::find(&rootfs.root, rule)).ok();
    let resolved = |rule: &Path| resolve(rule).map(|point| point.path().to_owned());
    let is_below = |rule: &&PathBuf| {
        path.starts_with(rule) || resolved(rule).is_some_and(|rule| path.starts_with(rule))
    };
    if let Some(prefix) = limits.not_allowed_prefixes.iter().find(is_below) {
        let text = format!("the site does not allow mounts below {}", prefix.display());
        return Err(Error::new(text));
    }
    let is_same = |rule: &PathBuf| path == *rule || resolved(rule).is_some_and(|rule| rule == path);
    if limits.not_allowed_paths.iter().any(is_same) {
        let text = format!("the site does not allow mounts on {}", path.display());
        return Err(Error::new(text));
    }
    Ok(())
}
