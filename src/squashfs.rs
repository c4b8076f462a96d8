//! The squashfs format, as far as writer and mount share it, and the check that an image file is
//! valid before the kernel reads it.

pub mod compression;
pub mod validate;
