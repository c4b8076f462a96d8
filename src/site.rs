//! What the administrator decided, and which files root may believe.

pub mod config;
pub mod json;
pub mod passwd;
pub mod reserved;
pub mod trust;
