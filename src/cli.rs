//! The command line: the words of a command, progress of long work, and questions to the user.

pub mod args;
pub mod progress;
pub mod prompt;
