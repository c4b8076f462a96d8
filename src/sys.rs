//! What only root may ask of the kernel, and every `unsafe` block: nothing else in this crate has
//! either.

#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

pub mod open;
