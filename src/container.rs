//! A container: its plan, made by pure functions, and the run that realises it.
//!
//! [`caller`] observes the process that called the engine, [`plan`] decides, [`run`] acts. The two
//! ends of what crosses the border of the container are in [`handoff`].

pub mod caller;
pub mod handoff;
pub mod plan;
pub mod run;
pub mod seccomp;
