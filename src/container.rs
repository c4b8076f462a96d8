//! A container: first its plan, made by pure functions, then the run that realises it.

pub mod plan;
pub mod run;
pub mod seccomp;
