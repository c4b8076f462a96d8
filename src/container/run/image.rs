//! Opening and validation of an image file before root mounts it: its user may have written it by hand.

use crate::error::{Context, Error, Result};
use crate::squashfs::compression::Compressor;
use crate::squashfs::validate;
use crate::sys::fs::resolve;
use crate::user::User;
use rustix::fd::OwnedFd;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// `FUSE_SUPER_MAGIC` of statfs(2).
const FUSE: u64 = 0x6573_5546;

const IMPORT_AGAIN: &str = "remove the image with 'sarus rmi' and import it again";

/// An image, opened with the rights of the user who runs it.
#[derive(Debug)]
pub struct Image {
    /// The squashfs file.
    pub file: OwnedFd,
    /// Reference, for messages.
    pub name: String,
    /// Compressor in its superblock.
    pub compressor: Compressor,
}

impl Image {
    /// Opens and checks the image file `path`, to be called `name` in messages. `accepted` are the
    /// compressors that the site allows. Must be called with the rights of `user`.
    ///
    /// The file can change after this check if it is the user's own: see docs/security.md.
    ///
    /// # Errors
    /// If the file cannot be opened, if its content is not under the control of `user` or root alone,
    /// or if it is not a valid image.
    pub fn open(path: &Path, name: String, user: &User, accepted: &[Compressor]) -> Result<Self> {
        let file = File::from(resolve::regular_file(path)?);
        let checked = check(&file, user, accepted);
        let compressor = checked.context(|| format!("cannot use the image {name}"))?;
        Ok(Self { file: file.into(), name, compressor })
    }
}

fn check(file: &File, user: &User, accepted: &[Compressor]) -> Result<Compressor> {
    let metadata = file.metadata().context(|| "cannot stat it".into())?;
    let owner = metadata.uid();
    if owner != 0 && owner != user.uid.as_raw() {
        return Err(Error::new(format!("it belongs to uid {owner}, neither to you nor to root"))
            .with_hint("import it yourself; images that users share must belong to root"));
    }
    // A FUSE daemon can answer each read differently, or never.
    let system = rustix::fs::fstatfs(file).context(|| "cannot look at its file system".into())?;
    if system.f_type as u64 == FUSE {
        return Err(Error::new(
            "it is on a FUSE file system, whose content can change at any time",
        )
        .with_hint("import it into a repository on another file system"));
    }
    let read = |buffer: &mut [u8], offset| file.read_exact_at(buffer, offset);
    let compressor =
        validate::check(&read, metadata.len()).map_err(|error| error.with_hint(IMPORT_AGAIN))?;
    if !accepted.contains(&compressor) {
        let names: Vec<_> = accepted.iter().map(|accepted| accepted.name()).collect();
        return Err(Error::new(format!("this site does not accept {compressor} compression"))
            .with_hint(format!("{IMPORT_AGAIN}; the site accepts {}", names.join(", "))));
    }
    Ok(compressor)
}
