//! The calling user, read once from the real IDs, before anything else.

use rustix::process::{Gid, Uid};

/// IDs of a user.
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
    /// Reads the real IDs of this process.
    ///
    /// # Errors
    /// If the groups cannot be read.
    pub fn caller() -> crate::Result<Self> {
        use crate::error::Context;
        let gid = rustix::process::getgid();
        let mut groups = rustix::process::getgroups()
            .context(|| "cannot read the groups of this process".into())?;
        groups.retain(|group| *group != gid);
        Ok(Self { uid: rustix::process::getuid(), gid, groups })
    }
}
