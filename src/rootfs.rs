//! The root file system of a container, as the engine and the hooks see it while root prepares it:
//! paths that do not lead out of it, and mount points in it.

pub mod mount_point;
pub mod root_dir;
