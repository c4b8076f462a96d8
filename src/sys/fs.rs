//! Files, mounts and loop devices, by descriptor.

mod file_id;
pub mod loop_device;
pub mod mount;
mod mount_compat;
pub mod read;
pub mod resolve;
pub mod space;
pub mod writeback;

pub use file_id::FileId;

/// `TMPFS_MAGIC` of `linux/magic.h`, the type of a tmpfs in statfs(2).
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
