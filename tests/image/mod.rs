//! Images and repositories: import, listing, and many writers at once.

mod import;
mod list;
mod store;
