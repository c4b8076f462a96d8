//! What the site decides: `<prefix>/etc/sarus.json`, read into a [`Config`].
//!
//! [`Config::load`] is where to start. The keys are those of the manual's configuration file
//! reference; `etc/sarus.schema.json` tells editors the same rules, and `tests/config.rs` holds the
//! two together. A new key is a field of [`Config`] and a line in [`Config::take`].

mod sections;

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::log::{self, Level};
use crate::site::json::{self, Object, Value};
use crate::site::trust::{self, Checks};

pub use sections::{
    Compression, Environment, Hook, Hooks, Pulling, RamFilesystem, SeccompProfile, SiteMount,
    UserMounts,
};

/// Far beyond any real configuration; keeps a mistake from filling the memory of a root process.
const MAX_SIZE: u64 = 1 << 20;

/// Where this program is installed: the directory above the one that holds the executable.
#[derive(Debug, Clone)]
pub struct Installation {
    /// What `make install` was given as `PREFIX`.
    pub prefix: PathBuf,
    /// The executable of this program.
    pub program: PathBuf,
}

impl Installation {
    /// Finds it by the running executable, `<prefix>/bin/sarusbox`.
    ///
    /// # Errors
    /// When the kernel does not tell the executable's path (`/proc` is not mounted).
    pub fn find() -> Result<Self> {
        let program = std::env::current_exe().context(|| "cannot find this program".into())?;
        match program.parent().and_then(Path::parent) {
            Some(prefix) => Ok(Self { prefix: prefix.to_owned(), program }),
            None => {
                let program = program.display();
                Err(Error::new(format!("cannot find the installation: {program} is in no bin/")))
            }
        }
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.prefix.join("etc/sarus.json")
    }

    /// The same rules for editors.
    #[must_use]
    pub fn schema(&self) -> PathBuf {
        self.prefix.join("etc/sarus.schema.json")
    }
}

/// The configuration of a site. All paths are absolute and without `..`.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Whether what root uses must be safe from other users.
    pub checks: Checks,
    /// Where bundles are made, on a file system that exists only for the container.
    pub bundle_dir: PathBuf,
    /// The name of the container's root directory in the bundle.
    pub rootfs_folder: String,
    /// Where the site's files for us are: `etc/passwd`, `openssh` and others.
    pub prefix_dir: PathBuf,
    /// Where an import may put what does not fit into memory.
    pub temp_dir: PathBuf,
    /// Above each user's `<name>/.sarus`.
    pub local_repository_base_dir: PathBuf,
    /// The repository that all users share.
    pub centralized_repository_dir: Option<PathBuf>,
    /// The site's own process 1 for `--init`.
    pub init_path: Option<PathBuf>,
    /// The OCI runtime.
    pub runc_path: PathBuf,
    /// What the bundle lies on.
    pub ram_filesystem: RamFilesystem,
    /// What every container gets from the host.
    pub site_mounts: Vec<SiteMount>,
    /// What is done to every container's environment.
    pub environment: Environment,
    /// Where users may not mount.
    pub user_mounts: UserMounts,
    /// What the OCI runtime runs around the container's start and end.
    pub hooks: Hooks,
    /// Filter of system calls of containers, if the site chooses one.
    pub seccomp_profile: Option<SeccompProfile>,
    /// How images are compressed.
    pub compression: Compression,
    /// Compressors of the images that may be run.
    pub accepted_compressions: Vec<&'static str>,
    /// How images are pulled.
    pub pulling: Pulling,
}

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Parsed {
    /// The configuration, or all that is wrong with it.
    pub config: Result<Config>,
    /// What the administrator should know nevertheless, each with its place.
    pub notes: Vec<(Level, String)>,
}

impl Config {
    /// Opens the installation's configuration, which nobody but root may be able to change, and
    /// reads it. Notes go to the log.
    ///
    /// # Errors
    /// When the file or its schema can be tampered with, cannot be read, or has faults.
    pub fn load(installation: &Installation) -> Result<Self> {
        let parsed = Self::read(installation)?;
        for (level, note) in parsed.notes {
            log::write(level, "config", &note);
        }
        parsed.config
    }

    /// As [`Config::load`], for who wants faults and notes apart.
    ///
    /// # Errors
    /// When the file or its schema can be tampered with, or cannot be read.
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
            runc_path: keys.required("runcPath", Value::absolute_path),
            ram_filesystem: keys.required("ramFilesystemType", sections::ram_filesystem),
            site_mounts: keys.optional("siteMounts", sections::site_mounts).unwrap_or_default(),
            environment: keys.optional("environment", sections::environment).unwrap_or_default(),
            user_mounts: keys.optional("userMounts", sections::user_mounts).unwrap_or_default(),
            hooks: keys.optional("OCIHooks", sections::hooks).unwrap_or_default(),
            seccomp_profile: keys.optional("seccompProfile", sections::seccomp_profile),
            compression: sections::compression(keys),
            accepted_compressions: sections::accepted_compressions(keys),
            pulling: sections::pulling(keys),
        }
    }
}

#[cfg(test)]
mod tests;
