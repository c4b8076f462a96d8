//! Files, mounts and loop devices, by descriptor.

mod file_id;
pub mod lock;
pub mod lockfile;
pub mod loop_device;
pub mod mount;
mod mount_compat;
pub mod read;
pub mod resolve;
pub mod space;
pub mod writeback;

pub use file_id::FileId;

use rustix::fd::AsFd;
use rustix::fs::AtFlags;
use rustix::process::{Gid, Uid};

/// `TMPFS_MAGIC` of `linux/magic.h`, the type of a tmpfs in statfs(2).
pub const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Changes the owner of an open file, which may be opened by `O_PATH`. See fchownat(2).
///
/// # Errors
/// `EPERM` without `CAP_CHOWN`, and what the file system says.
pub fn set_owner(file: impl AsFd, uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}
