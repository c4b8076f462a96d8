//! What an image is: its name, its digest, the documents that describe it. No network, no files.

pub mod digest;
pub mod manifest;
pub mod metadata;
pub mod platform;
pub mod reference;
