//! Model of an image: reference, digest, manifest, platform, metadata. No network, no files.

pub mod digest;
pub mod manifest;
pub mod metadata;
pub mod platform;
pub mod reference;
