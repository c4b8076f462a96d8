//! `sarus pull`, from real registries and from servers that misbehave.

mod challenges;
mod edges;
mod errors;
mod forged;
mod hostile;
mod images;
mod login;
mod network;
mod recovery;
mod sharing;
