//! The squashfs format: validation of an image file before the kernel reads it.

pub mod validate;
