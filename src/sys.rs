//! What only root may ask of the kernel, and every `unsafe` block: nothing else in this crate has
//! either. Each function does one thing, says which kernel it needs, and trusts no caller with a
//! path where a descriptor will do.

#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

pub mod clock;
pub mod descriptors;
pub mod fs;
pub mod ids;
pub mod proc;
pub mod process;
pub mod random;
pub mod terminal;
