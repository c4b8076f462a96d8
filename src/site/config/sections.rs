//! Parts of a configuration that are more than one value.

use std::path::{Path, PathBuf};

use crate::bytes;
use crate::log::Level;
use crate::site::json::{Object, Value, is_absolute_path};
use crate::site::reserved;
use crate::site::trust::Checks;
use crate::squashfs::compression::{Compression, Compressor};

/// The file system that a container's bundle lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RamFilesystem {
    /// tmpfs: limited in size, may be swapped out.
    #[default]
    Tmpfs,
    /// ramfs: for Cray compute nodes (CLE 5.2 and 6.0), where an overlay on tmpfs does not work.
    Ramfs,
}

/// A directory or file of the host that every container gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteMount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: PathBuf,
    /// True if the mount and all below it are read-only.
    pub readonly: bool,
}

/// Changes of a container's environment, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// Variables that get a value.
    pub set: Vec<(String, String)>,
    /// Variables with text that is put before the value, with a colon.
    pub prepend: Vec<(String, String)>,
    /// Variables with text that is put after the value, with a colon.
    pub append: Vec<(String, String)>,
    /// Variables that are removed.
    pub unset: Vec<String>,
}

/// Destinations where users may not mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserMounts {
    /// Paths with all that is below them.
    pub not_allowed_prefixes: Vec<PathBuf>,
    /// Single paths.
    pub not_allowed_paths: Vec<PathBuf>,
}

/// The hooks of the site.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Stage by stage, in the order of the specification.
    pub list: Vec<Hook>,
}

/// A program that the OCI runtime runs at some stage of a container's life.
#[derive(Debug, Clone)]
pub struct Hook {
    /// One of `prestart`, `poststop` and so on.
    pub stage: &'static str,
    /// The program: on the host if [`Hook::is_of_host`], else in the image.
    pub path: PathBuf,
    /// Arguments, from `argv[0]` on.
    pub args: Vec<String>,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Time-out in seconds.
    pub timeout: Option<u32>,
    /// The object as it stands in the file, for config.json.
    pub verbatim: miniserde::json::Value,
}

impl Default for Hook {
    fn default() -> Self {
        let verbatim = miniserde::json::Value::Null;
        let (args, env, timeout) = (vec![], vec![], None);
        Self { stage: "", path: PathBuf::new(), args, env, timeout, verbatim }
    }
}

impl Hook {
    /// Tells whether root executes it, by a path of the host. Programs of the stage
    /// `startContainer` are the image's, and run as the container's user.
    #[must_use]
    pub fn is_of_host(&self) -> bool {
        self.stage != "startContainer"
    }

    /// Tells whether it is the applet `name`, by its path or by `argv[0]`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.path.ends_with(name)
            || self.args.first().is_some_and(|word| Path::new(word).ends_with(name))
    }

    /// Returns the directory of OpenSSH if it is `ssh_hook`, in an installation at `prefix`.
    #[must_use]
    pub fn openssh(&self, prefix: &Path) -> Option<PathBuf> {
        let configured = self.setting("OPENSSH_DIR").map(PathBuf::from);
        self.is("ssh_hook").then(|| configured.unwrap_or_else(|| prefix.join("openssh")))
    }

    /// Returns a variable of its environment.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Seccomp profile of containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SeccompProfile {
    /// The built-in profile.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A file in the format of Docker.
    File(PathBuf),
}

/// Settings of pulls from registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulling {
    /// `host[:port]` of registries that may speak plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Number of layers that are transferred at the same time.
    pub downloads: u32,
    /// Maximum size of a repository's cache, in bytes.
    pub cache_limit: Option<u64>,
}

impl Default for Pulling {
    fn default() -> Self {
        Self { insecure_registries: Vec::new(), downloads: 4, cache_limit: None }
    }
}

/// Maximum number of connections: registries refuse more.
const MAX_DOWNLOADS: u32 = 64;

/// The stages of the OCI runtime specification, in the order in which they are reached.
const STAGES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

pub(super) fn checks(value: &Value<'_>) -> Checks {
    if value.flag() { Checks::On } else { Checks::Off }
}

pub(super) fn folder_name(value: &Value<'_>) -> String {
    value.text_where("a name without \"/\", and not \".\" or \"..\"", |name| {
        !matches!(name, "" | "." | "..") && !name.contains('/')
    })
}

pub(super) fn ram_filesystem(value: &Value<'_>) -> RamFilesystem {
    value.one_of(&[("tmpfs", RamFilesystem::Tmpfs), ("ramfs", RamFilesystem::Ramfs)])
}

pub(super) fn site_mounts(value: &Value<'_>) -> Vec<SiteMount> {
    value.list(|mount| {
        mount.object(|keys| {
            keys.required("type", |kind| kind.one_of(&[("bind", ())]));
            SiteMount {
                source: keys.required("source", Value::absolute_path),
                destination: keys.required("destination", destination),
                readonly: keys.optional("flags", mount_flags).unwrap_or_default(),
            }
        })
    })
}

fn destination(value: &Value<'_>) -> PathBuf {
    let path = value.absolute_path();
    // An empty one was noted already.
    if path.is_absolute() && reserved::check(&path).is_err() {
        value.expected("a path that is not reserved for the container itself");
    }
    path
}

/// The flags of a site mount: whether it is read-only.
fn mount_flags(value: &Value<'_>) -> bool {
    value.object(|keys| {
        for ignored in ["bind-propagation", "size", "bs"] {
            keys.optional(ignored, |flag| {
                flag.text();
                flag.note(Level::Warn, "ignored: bind mounts are always recursive and private");
            });
        }
        keys.optional("readonly", |flag| flag.one_of(&[("", true)])).unwrap_or_default()
    })
}

pub(super) fn environment(value: &Value<'_>) -> Environment {
    value.object(|keys| Environment {
        set: keys.optional("set", variables).unwrap_or_default(),
        prepend: keys.optional("prepend", variables).unwrap_or_default(),
        append: keys.optional("append", variables).unwrap_or_default(),
        unset: keys
            .optional("unset", |names| {
                names.list(|name| name.text_where("the name of a variable", is_variable))
            })
            .unwrap_or_default(),
    })
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Variables and values: `[{"A": "1"}, {"B": "2"}]`, or since release 1.4 `{"A": "1", "B": "2"}`.
fn variables(value: &Value<'_>) -> Vec<(String, String)> {
    if value.is_object() {
        return value.entries().iter().map(|(name, value)| variable(name, value)).collect();
    }
    let one = |item: &Value<'_>| match item.entries().as_slice() {
        [(name, value)] => variable(name, value),
        _ => {
            item.expected("an object with one variable and its value");
            Default::default()
        }
    };
    value.list(one)
}

fn variable(name: &str, value: &Value<'_>) -> (String, String) {
    if !is_variable(name) {
        value.expected_key(name, "the name of a variable");
    }
    (name.to_owned(), value.text())
}

pub(super) fn user_mounts(value: &Value<'_>) -> UserMounts {
    let paths = |paths: &Value<'_>| paths.list(Value::absolute_path);
    value.object(|keys| UserMounts {
        not_allowed_prefixes: keys.optional("notAllowedPrefixesOfPath", paths).unwrap_or_default(),
        not_allowed_paths: keys.optional("notAllowedPaths", paths).unwrap_or_default(),
    })
}

pub(super) fn hooks(value: &Value<'_>) -> Hooks {
    let list = value.object(|keys| {
        let mut list = Vec::new();
        for stage in STAGES {
            list.extend(keys.optional(stage, |hooks| hooks.list(|one| hook(stage, one))));
        }
        list.concat()
    });
    Hooks { list }
}

fn hook(stage: &'static str, value: &Value<'_>) -> Hook {
    value.object(|keys| {
        let timeout = keys.optional("timeout", |seconds| seconds.number(1..=u32::MAX));
        let variable = |one: &Value<'_>| {
            one.text_where("NAME=value", |one| one.find('=').is_some_and(|at| at > 0))
        };
        Hook {
            stage,
            path: keys.required("path", Value::absolute_path),
            args: keys.optional("args", |args| args.list(Value::text)).unwrap_or_default(),
            env: keys.optional("env", |env| env.list(variable)).unwrap_or_default(),
            timeout,
            verbatim: value.verbatim(),
        }
    })
}

pub(super) fn seccomp_profile(value: &Value<'_>) -> SeccompProfile {
    let expected = "\"default\", \"unconfined\" or an absolute path without \"..\"";
    let fits = |text: &str| matches!(text, "default" | "unconfined") || is_absolute_path(text);
    match value.text_where(expected, fits).as_str() {
        "default" => SeccompProfile::Default,
        "unconfined" => SeccompProfile::Unconfined,
        path => SeccompProfile::File(Path::new(path).components().collect()),
    }
}

pub(super) fn compression(keys: &mut Object<'_>) -> Compression {
    let compression = keys.optional("squashfsCompression", |name| name.one_of(&Compression::NAMED));
    // The level beside an unknown name is checked as one of the default's.
    let compression = compression.unwrap_or_default();
    let level = keys.optional("squashfsCompressionLevel", |level| match compression.levels() {
        Some(levels) => level.number(levels),
        None => {
            level.fault("this kind of compression has no levels");
            0
        }
    });
    level.map_or(compression, |level| compression.with_level(level))
}

pub(super) fn accepted_compressors(keys: &mut Object<'_>) -> Vec<Compressor> {
    let names = |names: &Value<'_>| names.list(|name| name.one_of(&Compressor::NAMED));
    keys.optional("squashfsAcceptedCompressions", names)
        .unwrap_or_else(|| Compressor::WRITTEN.into())
}

pub(super) fn pulling(keys: &mut Object<'_>) -> Pulling {
    let default = Pulling::default();
    let server = |name: &Value<'_>| name.text_where("host or host:port", is_server);
    Pulling {
        insecure_registries: keys
            .optional("insecureRegistries", |names| names.list(server))
            .unwrap_or_default(),
        downloads: keys
            .optional("maxConcurrentDownloads", |number| number.number(1..=MAX_DOWNLOADS))
            .unwrap_or(default.downloads),
        cache_limit: keys.optional("cacheMaxSize", size),
    }
}

fn is_server(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is_port = port.bytes().all(|digit| digit.is_ascii_digit()) && (1..=5).contains(&port.len());
    !host.is_empty() && host.chars().all(is_host) && is_port
}

/// `20GB`: a whole number and a unit.
fn size(value: &Value<'_>) -> u64 {
    let is_size = |text: &str| bytes::parse_size(text).is_some();
    let text = value.text_where("a size such as \"20GB\"", is_size);
    bytes::parse_size(&text).unwrap_or_default()
}
