//! Configuration by the administrator, and the checks of files that root trusts.

pub mod config;
pub mod json;
pub mod passwd;
pub mod reserved;
pub mod trust;
