//! Shared libraries of host and container: names, ELF contents, and the cache of the dynamic linker.

pub mod elf;
pub mod ldcache;
pub mod ldconfig;
mod library;

pub use library::{Abi, Library, linker_name, major, open, open_all};

#[cfg(test)]
pub(crate) use library::tests;
