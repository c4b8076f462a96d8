//! Images and repositories: import, squashfs files, listing, and many writers at once.

mod import;
mod list;
mod squashfs;
mod store;
