//! Parsers of files below `/proc`. See proc(5).

pub mod mountinfo;
pub mod stat;
