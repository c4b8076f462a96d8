//! Configuration of a site: `<prefix>/etc/sarus.json`, read into a [`Config`].
//!
//! Start at [`Config::load`]. The keys are those of the manual's configuration file
//! reference; `etc/sarus.schema.json` tells editors the same rules, and `tests/install/config.rs` holds the
//! two together. A new key is a field of [`Config`] and a line in `Config::take`.

mod sections;

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::log::{self, Level};
use crate::site::json::{self, Object, Value};
use crate::site::trust::{self, Checks};
use crate::squashfs::compression::{Compression, Compressor};

pub use sections::{
    Environment, Hook, Hooks, Pulling, RamFilesystem, SeccompProfile, SiteMount, UserMounts,
};

/// Maximum size of a configuration, in bytes, far beyond any real one.
const MAX_SIZE: u64 = 1 << 20;

/// Installation of this program: the directory above that of the executable.
#[derive(Debug, Clone)]
pub struct Installation {
    /// `PREFIX` of `make install`.
    pub prefix: PathBuf,
    /// The executable of this program.
    pub program: PathBuf,
}

impl Installation {
    /// Finds the installation by the running executable, `<prefix>/bin/sarusbox`.
    ///
    /// # Errors
    /// If the kernel does not tell the executable's path (`/proc` is not mounted).
    pub fn find() -> Result<Self> {
        let program = std::env::current_exe().context(|| "cannot find this program".into())?;
        match program.parent().and_then(Path::parent) {
            Some(prefix) => Ok(Self { prefix: prefix.to_owned(), program }),
            None => {
                let program = program.display();
                Err(Error::new(format!(
                    "cannot find the installation: {program} is not in a bin/ directory"
                )))
            }
        }
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.prefix.join("etc/sarus.json")
    }

    /// JSON schema of the configuration, for editors.
    #[must_use]
    pub fn schema(&self) -> PathBuf {
        self.prefix.join("etc/sarus.schema.json")
    }
}

/// The configuration of a site. All paths are absolute and without `..`.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Checks of owner and mode of files that root uses.
    pub checks: Checks,
    /// Mount point of bundles, each on a file system of its own in memory.
    pub bundle_dir: PathBuf,
    /// Name of the container's root directory in the bundle.
    pub rootfs_folder: String,
    /// Directory of files of the site: `etc/passwd`, `openssh` and others.
    pub prefix_dir: PathBuf,
    /// Directory of temporary files of imports.
    pub temp_dir: PathBuf,
    /// Directory above each user's `<name>/.sarus`.
    pub local_repository_base_dir: PathBuf,
    /// Repository that all users share.
    pub centralized_repository_dir: Option<PathBuf>,
    /// Program for `--init`, instead of the engine's own.
    pub init_path: Option<PathBuf>,
    /// The OCI runtime.
    pub runc_path: Option<PathBuf>,
    /// Type of the file system of bundles.
    pub ram_filesystem: RamFilesystem,
    /// Mounts of every container.
    pub site_mounts: Vec<SiteMount>,
    /// Changes of every container's environment.
    pub environment: Environment,
    /// Restrictions of mounts by users.
    pub user_mounts: UserMounts,
    /// OCI hooks.
    pub hooks: Hooks,
    /// Filter of system calls of containers, if the site chooses one.
    pub seccomp_profile: Option<SeccompProfile>,
    /// Compression of imported images.
    pub compression: Compression,
    /// Compressors of the images that may be run.
    pub accepted_compressors: Vec<Compressor>,
    /// Settings of pulls.
    pub pulling: Pulling,
}

/// Result of parsing a configuration.
#[derive(Debug)]
pub struct Parsed {
    /// The configuration, or all of its faults.
    pub config: Result<Config>,
    /// Notes for the administrator, each with its position.
    pub notes: Vec<(Level, String)>,
}

impl Config {
    /// Opens the installation's configuration, which nobody but root may be able to change, and
    /// reads it. Notes go to the log.
    ///
    /// # Errors
    /// If the file or its schema can be tampered with, cannot be read, or has faults.
    pub fn load(installation: &Installation) -> Result<Self> {
        let parsed = Self::read(installation)?;
        for (level, note) in parsed.notes {
            log::write(level, "config", &note);
        }
        parsed.config
    }

    /// Reads it as [`Config::load`] does, but returns faults and notes apart.
    ///
    /// # Errors
    /// If the file or its schema can be tampered with, or cannot be read.
    pub fn read(installation: &Installation) -> Result<Parsed> {
        let path = installation.config();
        let text = trust::read(&path, MAX_SIZE)?;
        // Nothing is read from the schema, so it may be absent; but editors believe it.
        trust::find(&installation.schema())?;
        // A setuid program must not show lines that its caller may not read: access(2) asks for
        // the real user.
        let readable = rustix::fs::access(&path, rustix::fs::Access::READ_OK).is_ok();
        Ok(Self::parse(&path.display().to_string(), &text, readable))
    }

    /// Reads `text`, the content of the file that messages call `file`. Only if the file is
    /// `readable` for the caller, messages show the values and lines that they are about.
    #[must_use]
    pub fn parse(file: &str, text: &str, readable: bool) -> Parsed {
        let reading = json::read(text, |root| root.object(Self::take));
        let (config, notes) = reading.explain(file, readable);
        Parsed { config, notes }
    }

    fn take(keys: &mut Object<'_>) -> Self {
        keys.optional("$schema", Value::text);
        keys.optional("mksquashfsPath", |path| {
            path.absolute_path();
            path.note(Level::Info, "not used: images are made without external programs");
        });
        Self {
            checks: keys.required("securityChecks", sections::checks),
            bundle_dir: keys.required("OCIBundleDir", Value::absolute_path),
            rootfs_folder: keys.required("rootfsFolder", sections::folder_name),
            prefix_dir: keys.required("prefixDir", Value::absolute_path),
            temp_dir: keys.required("tempDir", Value::absolute_path),
            local_repository_base_dir: keys
                .required("localRepositoryBaseDir", Value::absolute_path),
            centralized_repository_dir: keys
                .optional("centralizedRepositoryDir", Value::absolute_path),
            init_path: keys.optional("initPath", Value::absolute_path),
            runc_path: keys.optional("runcPath", Value::absolute_path),
            ram_filesystem: keys.required("ramFilesystemType", sections::ram_filesystem),
            site_mounts: keys.optional("siteMounts", sections::site_mounts).unwrap_or_default(),
            environment: keys.optional("environment", sections::environment).unwrap_or_default(),
            user_mounts: keys.optional("userMounts", sections::user_mounts).unwrap_or_default(),
            hooks: keys.optional("OCIHooks", sections::hooks).unwrap_or_default(),
            seccomp_profile: keys.optional("seccompProfile", sections::seccomp_profile),
            compression: sections::compression(keys),
            accepted_compressors: sections::accepted_compressors(keys),
            pulling: sections::pulling(keys),
        }
    }
}

#[cfg(test)]
mod tests;
