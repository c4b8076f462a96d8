//! What only root may ask of the kernel, and every `unsafe` block: nothing else in this crate has
//! either. Each function does one thing, says which kernel it needs, and trusts no caller with a
//! path where a descriptor will do.

#![allow(unsafe_code)]
#![allow(clippy::disallowed_methods)]

pub mod announce;
pub mod clock;
pub mod contained;
pub mod daemon;
pub mod descriptors;
mod guard;
pub mod guardian;
pub mod helper;
pub mod ids;
pub mod limits;
pub mod loopdev;
pub mod mount;
mod mount_compat;
mod offspring;
pub mod open;
pub mod output;
pub mod parent;
pub mod pidfd;
pub mod process;
pub mod prompt;
pub mod random;
pub mod signal;
pub mod terminal;
pub mod writeback;
