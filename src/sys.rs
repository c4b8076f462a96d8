//! Privileged system calls, and the only `unsafe` code of the crate, with what they share: descriptors,
//! bounded reading, resolution of paths. Each function does one thing, says which kernel it needs, and
//! takes a descriptor rather than a path.

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
