//! Command line interface: arguments, progress, and prompts.

pub mod args;
pub mod progress;
pub mod prompt;
