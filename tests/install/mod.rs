//! Installation, packages, sarus.json and `sarus check`: the side of administrators.

mod check;
mod config;
mod make;
mod packages;
