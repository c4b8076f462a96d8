//! Small images, made by umoci and skopeo from Debian's busybox-static, without any network.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, fs};

use super::{Output, SOURCE};

/// An image of busybox with a configuration: `Image::busybox().cmd(&["id"]).env("A=b")`.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Options of `umoci config`.
    options: Vec<String>,
}

impl Image {
    /// Busybox with all its links in /bin, the host's /etc/os-release, and no configuration.
    pub fn busybox() -> Self {
        Self::default()
    }

    fn option(mut self, name: &str, values: &[&str]) -> Self {
        self.options.extend(values.iter().map(|value| format!("--config.{name}={value}")));
        self
    }

    pub fn cmd(self, args: &[&str]) -> Self {
        self.option("cmd", args)
    }

    pub fn entrypoint(self, args: &[&str]) -> Self {
        self.option("entrypoint", args)
    }

    /// Adds `NAME=value` to its environment.
    pub fn env(self, variable: &str) -> Self {
        self.option("env", &[variable])
    }

    pub fn working_dir(self, path: &str) -> Self {
        self.option("workingdir", &[path])
    }

    /// Adds `NAME=value` to its labels.
    pub fn label(self, label: &str) -> Self {
        self.option("label", &[label])
    }

    /// Makes it an image for another architecture, by its word alone.
    pub fn architecture(mut self, name: &str) -> Self {
        self.options.push(format!("--architecture={name}"));
        self
    }

    /// A file name that differs where the image differs.
    pub fn key(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.options.hash(&mut hasher);
        format!("busybox-{:016x}", hasher.finish())
    }

    /// The image as docker-archive with plain layers; its name inside is `busybox:latest`.
    pub fn docker_archive(&self) -> PathBuf {
        self.made("docker-archive", "tar", |file| {
            format!("docker-archive:{}:busybox:latest", file.display())
        })
    }

    /// The image as OCI archive with gzip layers.
    pub fn oci_archive(&self) -> PathBuf {
        self.made("oci-archive", "tar", |file| format!("oci-archive:{}:latest", file.display()))
    }

    /// The image as OCI layout, a directory, with gzip layers.
    pub fn oci_layout(&self) -> PathBuf {
        self.made("oci", "dir", |path| format!("oci:{}:latest", path.display()))
    }

    /// Makes the image unless this process did: `output` is skopeo's name for a path.
    fn made(&self, kind: &str, suffix: &str, output: impl Fn(&Path) -> String) -> PathBuf {
        static MAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = cache().join(format!("{}-{kind}.{suffix}", self.key()));
        if !path.exists() {
            let mut make = Command::new(script("make-image.sh"));
            make.arg(output(&path)).arg(busybox_rootfs()).arg("--").args(&self.options);
            Output::of(&mut make).succeeds();
        }
        path
    }
}

/// Makes `root`, a new directory, the root directory of a busybox image.
pub fn copy_busybox_rootfs(root: &Path) {
    Output::of(Command::new("cp").arg("-aT").arg(busybox_rootfs()).arg(root)).succeeds();
}

/// The original of all of them, made once in this process.
fn busybox_rootfs() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = cache().join("rootfs");
        Output::of(Command::new(script("busybox-rootfs.sh")).arg(&root)).succeeds();
        root
    })
}

/// A directory of this process's own, for what is made once.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        remove_caches_of_ended_processes();
        let name = format!("images-{}", std::process::id());
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&cache).unwrap();
        cache
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(SOURCE).join("scripts").join(name)
}

/// A process has no end at which it could remove its own.
fn remove_caches_of_ended_processes() {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.strip_prefix("images-"))
            && !Path::new("/proc").join(pid).exists()
        {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
