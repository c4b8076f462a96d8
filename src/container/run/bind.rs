//! Bind mounts of site and user: sources are opened before anything of the container exists, and
//! attached when its root file system does.

use super::rootfs::Rootfs;
use super::{files, mountpoint};
use crate::container::plan::mounts::BindMount;
use crate::error::{Context, Result};
use crate::rootfs::mount_point::MountPoint;
use crate::site::config::UserMounts;
use crate::site::reserved;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::resolve;
use crate::sys::ids;
use crate::user::User;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// A bind mount with its source, opened with `O_PATH`.
#[derive(Debug)]
pub struct OpenedMount<'a> {
    mount: &'a BindMount,
    source: OwnedFd,
}

/// Opens the sources of `mounts`; those of a user's requests with the rights of `user`.
pub fn open<'a>(mounts: &'a [BindMount], user: &User) -> Result<Vec<OpenedMount<'a>>> {
    let root = files::directory(Path::new("/"))?;
    let open = |mount: &'a BindMount| {
        // Not through magic links, which would lead to descriptors of this process.
        let open =
            || resolve::open_in_root(&root, &mount.request.source, OFlags::PATH, Mode::empty());
        let as_user = || ids::as_user(user, open);
        // The file system of a site's mount may refuse root (root_squash).
        let source = if mount.by_user { as_user() } else { open().or_else(|_| as_user()) };
        Ok(OpenedMount { mount, source: source.context(|| context(mount))? })
    };
    mounts.iter().map(open).collect()
}

impl OpenedMount<'_> {
    /// Mounts the source on its destination in `rootfs`. A mount by `user` must be allowed by `limits`.
    pub fn attach(&self, rootfs: &Rootfs, limits: &UserMounts, user: &User) -> Result<()> {
        self.try_attach(rootfs, limits, user).context(|| context(self.mount))
    }

    fn try_attach(&self, rootfs: &Rootfs, limits: &UserMounts, user: &User) -> Result<()> {
        let BindMount { request, by_user } = self.mount;
        reserved::check(&request.destination)?;
        let find = || MountPoint::find(&rootfs.root, &request.destination);
        // The path may lead through directories of the host: errors must not tell a user what is in
        // those that are closed to them.
        let point = if *by_user { ids::as_user(user, find)? } else { find()? };
        point.check_reserved()?;
        if *by_user {
            mountpoint::check_allowed(&point, rootfs, limits, user)?;
        }
        let target = point.create_for(&self.source, &rootfs.creator)?;
        let restrictions = Restrictions { readonly: request.readonly, ..Restrictions::default() };
        mount::bind(self.source.as_fd(), target.as_fd(), restrictions)
    }
}

fn context(mount: &BindMount) -> String {
    let whose = if mount.by_user { "" } else { "the site's " };
    format!("cannot mount {whose}{}", mount.request)
}
