//! Tests of the tools that other tests rely on, and of a build script.

mod harness;
mod openssh;
mod registry;
