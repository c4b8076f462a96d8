//! Who called the program: read once, from the real ids, before anything is done.

use rustix::process::{Gid, Uid};

/// The calling user, as the kernel knows them.
#[derive(Debug, Clone)]
pub struct User {
    /// The real user id.
    pub uid: Uid,
    /// The real group id.
    pub gid: Gid,
    /// The supplementary groups, without `gid`.
    pub groups: Vec<Gid>,
}

impl User {
    /// The user whose real ids this process has.
    ///
    /// # Errors
    /// When the kernel does not tell the groups.
    pub fn caller() -> crate::Result<Self> {
        use crate::error::Context;
        let gid = rustix::process::getgid();
        let mut groups = rustix::process::getgroups()
            .context(|| "cannot read the groups of this process".into())?;
        groups.retain(|group| *group != gid);
        Ok(Self { uid: rustix::process::getuid(), gid, groups })
    }
}
