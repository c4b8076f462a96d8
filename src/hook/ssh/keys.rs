//! The keys of a user: one pair for the daemons in their containers, one for the clients.
//!
//! All is done with the rights of the user, and nobody else can read a private key at any moment:
//! the pairs are written into a new directory that is closed to others, which then takes the place
//! of the old one at once.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::format;
use crate::error::{Context, Error, Result};
use crate::store::lock;
use crate::sys::fs::read::read_text_at_most;
use crate::sys::fs::resolve;

/// The pair of the daemons. The name of its public part has `.pub` added.
pub const HOST: &str = "ssh_host_ed25519_key";

/// The pair of the clients.
pub const USER: &str = "id_ed25519";

/// What earlier releases of Sarus made. No other program is known to keep keys there.
const OLD: [&str; 2] = ["ssh_host_rsa_key", "id_rsa"];

/// The name of the directory; those of directories that shall become it start so too.
const NAME: &str = "keys";

/// Several times what ssh-keygen writes for any kind of key.
const MAX_KEY: u64 = 1 << 14;

/// Where a user has keys, or will have.
#[derive(Debug)]
pub struct Keys {
    /// Of everything for SSH.
    place: PathBuf,
    directory: PathBuf,
}

/// The texts of the four files.
pub(super) struct Texts {
    /// The private key of the daemons.
    pub host: String,
    /// Its public part.
    pub host_public: String,
    /// The private key of the clients.
    pub user: String,
    /// Its public part.
    pub user_public: String,
}

impl Keys {
    /// The keys in `<home>/ssh/keys`; `home` is `<HOOK_BASE_DIR>/<user>/.oci-hooks`.
    #[must_use]
    pub fn of(home: &Path) -> Self {
        let place = home.join("ssh");
        Self { directory: place.join(NAME), place }
    }

    /// The directory of the four files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether all of them are there and good to use, for their owner who asks.
    ///
    /// # Errors
    /// When one is missing, or others could have read or changed it.
    pub fn check(&self) -> Result<()> {
        self.read().map(drop)
    }

    /// Reads all of them, as their owner.
    ///
    /// # Errors
    /// As [`Keys::check`].
    pub(super) fn read(&self) -> Result<Texts> {
        let read = |name: &str, public: bool| {
            let name = if public { format!("{name}.pub") } else { name.to_owned() };
            self.read_one(&name, public)
        };
        let all = || -> Result<Texts> {
            self.judge_directory()?;
            Ok(Texts {
                host: read(HOST, false)?,
                host_public: read(HOST, true)?,
                user: read(USER, false)?,
                user_public: read(USER, true)?,
            })
        };
        all().context(|| "failed to check the SSH keys".into())
    }

    fn judge_directory(&self) -> Result<()> {
        let what = || self.directory.display().to_string();
        let missing = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => self.missing(HOST),
            _ => Error::caused_by(what(), error),
        };
        let status = rustix::fs::stat(&self.directory).map_err(|errno| missing(errno.into()))?;
        judge(&status, 0o022).context(what)
    }

    fn read_one(&self, name: &str, public: bool) -> Result<String> {
        let path = self.directory.join(name);
        let what = || path.display().to_string();
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Err(self.missing(name));
        }
        let file = resolve::regular_file(&path)?;
        let status = resolve::status(&file).context(what)?;
        judge(&status, if public { 0o022 } else { 0o077 }).context(what)?;
        read_text_at_most(fs::File::from(file), MAX_KEY).context(what)
    }

    fn missing(&self, name: &str) -> Error {
        let place = self.directory.display();
        if self.has_old() {
            Error::new(format!("{place} has RSA keys of an earlier release only"))
                .with_hint("replace them by 'sarus ssh-keygen --overwrite'")
        } else {
            Error::new(format!("{place} has no {name}"))
                .with_hint("try to generate the SSH keys with 'sarus ssh-keygen'")
        }
    }

    fn has_old(&self) -> bool {
        OLD.iter().any(|name| self.directory.join(name).exists())
    }

    fn is_there(&self) -> bool {
        let names = [HOST, USER].map(|name| [name.to_owned(), format!("{name}.pub")]);
        names.iter().flatten().all(|name| self.directory.join(name).exists())
    }

    /// Makes new keys. Those that are there are only replaced to `overwrite` them; whether new ones
    /// were made.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn generate(&self, overwrite: bool) -> Result<bool> {
        let cannot = || format!("cannot generate SSH keys in {}", self.directory.display());
        let closed = |path: &Path| fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        closed(&self.place).context(cannot)?;
        let _lock = lock::exclusive(&self.place).context(cannot)?;
        if !overwrite && (self.is_there() || self.has_old()) {
            return Ok(false);
        }
        self.clear().context(cannot)?;
        let new = self.place.join(format!("{NAME}-{}", std::process::id()));
        closed(&new).context(cannot)?;
        for name in [HOST, USER] {
            let pair = format::generate("sarus")?;
            write(&new.join(name), 0o600, &pair.private).context(cannot)?;
            write(&new.join(format!("{name}.pub")), 0o644, &pair.public).context(cannot)?;
        }
        sync(&new).context(cannot)?;
        self.exchange(&new).context(cannot)?;
        sync(&self.place).context(cannot)?;
        self.clear().context(cannot)?;
        Ok(true)
    }

    /// Puts the directory `new` in place of the old one, which takes its name if there is one.
    fn exchange(&self, new: &Path) -> std::io::Result<()> {
        match rustix::fs::renameat_with(CWD, new, CWD, &self.directory, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => fs::rename(new, &self.directory),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.replace(new),
            result => Ok(result?),
        }
    }

    /// The same for kernels before 3.15, NFS and others: for a moment there are no keys.
    fn replace(&self, new: &Path) -> std::io::Result<()> {
        fs::rename(&self.directory, new.with_extension("old"))?;
        fs::rename(new, &self.directory)
    }

    /// Removes replaced keys, and what somebody began who was killed: the lock is ours.
    fn clear(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.place)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"keys-") {
                let path = entry.path();
                // What lay there in place of the directory may have been a file.
                fs::remove_dir_all(&path)
                    .or_else(|error| fs::remove_file(&path).map_err(|_| error))?;
            }
        }
        Ok(())
    }
}

/// Whether a file is the caller's own, and grants nothing of `mode`.
fn judge(status: &rustix::fs::Stat, mode: u32) -> Result<()> {
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Error::new(format!("it belongs to user id {}", status.st_uid)));
    }
    if status.st_mode & mode != 0 {
        let mode = status.st_mode & 0o7777;
        return Err(Error::new(format!("it is open to others (mode {mode:o})")).with_hint(
            "others may know the keys: make new ones by 'sarus ssh-keygen --overwrite'",
        ));
    }
    Ok(())
}

fn write(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync(directory: &Path) -> std::io::Result<()> {
    match fs::File::open(directory)?.sync_all() {
        // Some network file systems cannot.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_replaced_where_directories_cannot_be_exchanged() {
        let home = std::env::temp_dir().join(format!("sarus-keys-{}", std::process::id()));
        fs::remove_dir_all(&home).ok();
        let keys = Keys::of(&home);
        assert!(keys.generate(false).unwrap());
        let first = keys.read().unwrap().user;
        let new = keys.place.join("keys-1");
        fs::create_dir(&new).unwrap();
        for name in [HOST, USER] {
            let pair = format::generate("test").unwrap();
            write(&new.join(name), 0o600, &pair.private).unwrap();
            write(&new.join(format!("{name}.pub")), 0o644, &pair.public).unwrap();
        }
        keys.replace(&new).unwrap();
        let second = keys.read().unwrap().user;
        assert_ne!(first, second);
        assert!(!keys.generate(false).unwrap());
        assert!(keys.generate(true).unwrap());
        assert_ne!(second, keys.read().unwrap().user);
        let left: Vec<_> =
            fs::read_dir(&keys.place).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_dir_all(&home).unwrap();
    }
}
