//! The squashfs format: compressors, the writer of images, and the validation of an image file before
//! the kernel reads it.

pub mod compression;
pub mod compressor;
pub mod validate;
pub mod writer;
