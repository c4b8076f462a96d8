//! Documents and manual pages: their examples are executed, and they are complete.

mod examples;
mod pages;
mod security;
