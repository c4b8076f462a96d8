//! A container engine for HPC systems.
//!
//! Data flows one way, and nothing points back up:
//!
//! ```text
//! config, trust, user                  what the site says, what root may believe, who called
//! registry -> source                   an image made by others is found, here or far away
//! source -> layer -> tree -> squashfs  it becomes one file
//! reference, store                     where images live
//! bundle -> runtime                    the plan of a container, then its realisation
//! hook                                 what runtimes run around it
//! ```
//!
//! Only [`sys`] asks the kernel for what an ordinary user may not do, and only it has `unsafe`.

// What all stand on.
pub mod error;
pub mod log;
pub mod sys;

// What the site says, and what of it root may believe.
pub mod config;
pub mod json;
pub mod reserved;
pub mod trust;

// Who calls, how, and with which rights.
pub mod args;
pub mod privilege;
pub mod user;

// Where images live.
pub mod reference;
pub mod store;

// What an image says of itself.
pub mod image;

// An image made by others becomes one file.
pub mod archive;
pub mod blob;
pub mod digest;
pub mod import;
pub mod layer;
pub mod progress;
pub mod pull;
pub mod registry;
pub mod source;
pub mod squashfs;
pub mod temp;
pub mod tree;

// The plan of a container, and its realisation.
pub mod bundle;
pub mod runtime;

// What OCI runtimes run around it, for this engine or any other.
pub mod hook;

// Whether all of this can work on this machine.
pub mod check;

pub use error::{Because, Error, Result};

#[cfg(test)]
mod nonsense;
