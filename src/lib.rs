//! A container engine for HPC systems.
//!
//! The flow of `sarus pull`, `load` and `run`, room by room:
//!
//! ```text
//! cli        the words of a command become options; progress is shown
//! site       sarus.json is read, and everything that root will use is checked
//! image      a reference such as `debian:12` becomes a server, a name, a tag and a digest
//! registry   a manifest and its layers arrive from a registry
//! import     layers, of a registry or of a file, become one tree and then one squashfs file
//! store      the file is published in a repository under its reference
//! squashfs   the file is validated before the kernel mounts it
//! container  plan: options, image and site become a plan; run: the plan becomes a container
//! hook       OCI hooks: what an OCI runtime runs around the container
//! check      `sarus check`: whether all of this can work on this machine
//! ```
//!
//! Rooms use only rooms below them; `ROOMS` in `src/rooms.rs` is the order, which a test holds. [`sys`] alone has
//! `unsafe` code and privileged system calls.

pub mod bytes;
pub mod error;
pub mod log;
pub mod user;

pub mod sys;

pub mod cli;
pub mod image;
pub mod registry;
pub mod site;
pub mod squashfs;

pub mod store;

pub mod container;
pub mod hook;
pub mod import;

pub mod check;

pub use error::{Context, Error, ErrorKind, Result};

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod rooms;
