//! The integration tests, one program: what they share is compiled and linked once, they run side
//! by side, and a helper that none of them uses is an error. `cargo test --test integration pull::`
//! runs one folder of them.
//!
//! They need root and the static binary: see [`support`].

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod attacks;
mod docs;
mod hooks;
mod image;
mod install;
mod privileges;
mod pull;
mod run;
mod ssh;
mod support;
mod tools;
