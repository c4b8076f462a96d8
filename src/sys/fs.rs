//! Files, mounts and loop devices, by descriptor.

pub mod lock;
pub mod lockfile;
pub mod loop_device;
pub mod mount;
mod mount_compat;
pub mod resolve;
pub mod writeback;
