//! The keys of a user: one pair for the sshd of their containers, one for the clients.
//!
//! All is done with the rights of the user. No other user can read a private key at any moment: the
//! pairs are written to a new directory of mode 0700, which replaces the old one by renameat2(2).

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::key_format;
use crate::error::{Context, Error, Result};
use crate::sys::fs::read::read_text_at_most;
use crate::sys::fs::{lock, resolve};

/// The private key of sshd. The name of the public key has `.pub` added.
pub const HOST: &str = "ssh_host_ed25519_key";

/// The private key of clients.
pub const USER: &str = "id_ed25519";

/// Private keys that Sarus 1.x makes.
const OLD: [&str; 2] = ["ssh_host_rsa_key", "id_rsa"];

/// The name of the directory. Names of new and old directories begin with it.
const NAME: &str = "keys";

/// Maximum size of a key file in bytes: several times that of any kind of key.
const MAX_KEY: u64 = 1 << 14;

/// The directory in which a user has keys, or will have.
#[derive(Debug)]
pub struct UserKeys {
    /// The directory above, for all files of SSH.
    parent: PathBuf,
    directory: PathBuf,
}

/// The texts of the four key files.
pub(super) struct KeyFiles {
    /// The private key of sshd.
    pub host: String,
    /// The public key of sshd.
    pub host_public: String,
    /// The private key of the clients.
    pub user: String,
    /// The public key of clients.
    pub user_public: String,
}

impl UserKeys {
    /// The keys in `<home>/ssh/keys`; `home` is `<HOOK_BASE_DIR>/<user>/.oci-hooks`.
    #[must_use]
    pub fn in_home(home: &Path) -> Self {
        let parent = home.join("ssh");
        Self { directory: parent.join(NAME), parent }
    }

    /// The directory of the four files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Checks that all files exist, belong to the caller, and are closed to others.
    ///
    /// # Errors
    /// If a file is missing, or others could have read or changed it.
    pub fn check(&self) -> Result<()> {
        self.read().map(drop)
    }

    /// Reads all files, with the rights of their owner.
    ///
    /// # Errors
    /// Those of [`UserKeys::check`].
    pub(super) fn read(&self) -> Result<KeyFiles> {
        let read = |name: &str, public: bool| {
            let name = if public { format!("{name}.pub") } else { name.to_owned() };
            self.read_one(&name, public)
        };
        let all = || -> Result<KeyFiles> {
            self.check_directory()?;
            Ok(KeyFiles {
                host: read(HOST, false)?,
                host_public: read(HOST, true)?,
                user: read(USER, false)?,
                user_public: read(USER, true)?,
            })
        };
        all().context(|| "failed to check the SSH keys".into())
    }

    fn check_directory(&self) -> Result<()> {
        let context = || self.directory.display().to_string();
        let missing = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => self.missing(HOST),
            _ => Error::caused_by(context(), error),
        };
        let status = rustix::fs::stat(&self.directory).map_err(|errno| missing(errno.into()))?;
        check_access(&status, 0o022).context(context)
    }

    fn read_one(&self, name: &str, public: bool) -> Result<String> {
        let path = self.directory.join(name);
        let context = || path.display().to_string();
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Err(self.missing(name));
        }
        let file = resolve::regular_file(&path)?;
        let status = resolve::status(&file).context(context)?;
        check_access(&status, if public { 0o022 } else { 0o077 }).context(context)?;
        read_text_at_most(fs::File::from(file), MAX_KEY).context(context)
    }

    fn missing(&self, name: &str) -> Error {
        let directory = self.directory.display();
        if self.has_old() {
            Error::new(format!("{directory} has RSA keys of an earlier release only"))
                .with_hint("replace them by 'sarus ssh-keygen --overwrite'")
        } else {
            Error::new(format!("{directory} has no {name}"))
                .with_hint("try to generate the SSH keys with 'sarus ssh-keygen'")
        }
    }

    fn has_old(&self) -> bool {
        OLD.iter().any(|name| self.directory.join(name).exists())
    }

    fn exist(&self) -> bool {
        let names = [HOST, USER].map(|name| [name.to_owned(), format!("{name}.pub")]);
        names.iter().flatten().all(|name| self.directory.join(name).exists())
    }

    /// Generates keys, and returns true; keys that exist are kept, unless `overwrite` is true.
    ///
    /// # Errors
    /// If another process generates keys, or they cannot be written.
    pub fn generate(&self, overwrite: bool) -> Result<bool> {
        let context = || format!("cannot generate SSH keys in {}", self.directory.display());
        let create_closed =
            |path: &Path| fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        create_closed(&self.parent).context(context)?;
        let _lock = lock::exclusive(&self.parent).context(context)?;
        if !overwrite && (self.exist() || self.has_old()) {
            return Ok(false);
        }
        self.clear().context(context)?;
        let new = self.parent.join(format!("{NAME}-{}", std::process::id()));
        create_closed(&new).context(context)?;
        for name in [HOST, USER] {
            let pair = key_format::generate("sarus")?;
            write(&new.join(name), 0o600, &pair.private).context(context)?;
            write(&new.join(format!("{name}.pub")), 0o644, &pair.public).context(context)?;
        }
        sync(&new).context(context)?;
        self.exchange(&new).context(context)?;
        sync(&self.parent).context(context)?;
        self.clear().context(context)?;
        Ok(true)
    }

    /// Exchanges the directory `new` with the old one, if there is one.
    fn exchange(&self, new: &Path) -> std::io::Result<()> {
        match rustix::fs::renameat_with(CWD, new, CWD, &self.directory, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => fs::rename(new, &self.directory),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.replace(new),
            result => Ok(result?),
        }
    }

    /// Replaces the directory where the kernel (before 3.15) or the file system (NFS) cannot exchange two
    /// names: for a moment there are no keys.
    fn replace(&self, new: &Path) -> std::io::Result<()> {
        fs::rename(&self.directory, new.with_extension("old"))?;
        fs::rename(new, &self.directory)
    }

    /// Removes old keys, and directories that a killed process left. The caller has the lock.
    fn clear(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.parent)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"keys-") {
                let path = entry.path();
                // A file may have been in place of the old directory.
                fs::remove_dir_all(&path)
                    .or_else(|error| fs::remove_file(&path).map_err(|_| error))?;
            }
        }
        Ok(())
    }
}

/// Checks that a file belongs to the caller, and grants no permission of `mode`.
fn check_access(status: &rustix::fs::Stat, mode: u32) -> Result<()> {
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Error::new(format!("owned by user id {}", status.st_uid)));
    }
    if status.st_mode & mode != 0 {
        let mode = status.st_mode & 0o7777;
        return Err(Error::new(format!("open to other users (mode {mode:o})")).with_hint(
            "others may know the keys: generate new ones by 'sarus ssh-keygen --overwrite'",
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
        // Some network file systems cannot sync a directory.
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
        let keys = UserKeys::in_home(&home);
        assert!(keys.generate(false).unwrap());
        let first = keys.read().unwrap().user;
        let new = keys.parent.join("keys-1");
        fs::create_dir(&new).unwrap();
        for name in [HOST, USER] {
            let pair = key_format::generate("test").unwrap();
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
            fs::read_dir(&keys.parent).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_dir_all(&home).unwrap();
    }
}
