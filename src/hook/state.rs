//! The two documents that describe a container to a hook: the state that the OCI runtime writes to stdin,
//! and the bundle's config.json. Pure functions from text.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use miniserde::Deserialize;
use miniserde::json;
use rustix::process::{Gid, Pid, Uid};

use crate::error::{Error, Result};
use crate::site::json::bounds::{self, Limits};
use crate::user::User;

/// Limits of both documents. With a thousand mounts and system call rules, config.json has ten thousand
/// values in five levels.
const LIMITS: Limits = Limits { depth: 32, values: 1 << 16 };

/// Annotations of a container: "Annotations" of the OCI runtime specification.
pub type Annotations = BTreeMap<String, String>;

/// The state of a container: the fields that hooks use.
#[derive(Debug, Clone)]
pub struct State {
    /// The container id.
    pub id: String,
    /// The first process; `None` if the container has ended, or the runtime does not write it.
    pub pid: Option<Pid>,
    /// The directory of config.json.
    pub bundle: PathBuf,
    /// Annotations of the state.
    pub annotations: Annotations,
}

#[derive(Deserialize)]
struct WireState {
    #[serde(rename = "ociVersion")]
    version: String,
    id: String,
    status: String,
    pid: Option<i64>,
    bundle: String,
    annotations: Option<Annotations>,
}

/// Decodes a JSON document; `name` is for the message.
fn decode<T: Deserialize>(text: &str, name: &str) -> Result<T> {
    bounds::check(text, LIMITS)?;
    json::from_str(text)
        .map_err(|_| Error::new(format!("not a {name} of the OCI runtime specification")))
}

/// Values of `status`: those of the specification, and `paused`, which runtimes add.
const STATUSES: [&str; 5] = ["creating", "created", "running", "stopped", "paused"];

impl State {
    /// Parses a state.
    ///
    /// # Errors
    /// If the text is not a state, or a field has an invalid value.
    pub fn parse(text: &str) -> Result<Self> {
        let wire: WireState = decode(text, "state")?;
        let invalid =
            |field: &str, value: &str| Err(Error::new(format!("invalid {field} '{value:.100}'")));
        if !wire.version.starts_with("1.") {
            return invalid("ociVersion", &wire.version);
        }
        if wire.id.is_empty() || wire.id.contains('/') {
            return invalid("id", &wire.id);
        }
        if !STATUSES.contains(&wire.status.as_str()) {
            return invalid("status", &wire.status);
        }
        let bundle = PathBuf::from(&wire.bundle);
        if !is_plain(&bundle) {
            return invalid("bundle", &wire.bundle);
        }
        let pid = match wire.pid {
            // Some runtimes write 0 where there is no process.
            None | Some(0) => None,
            Some(number) => match i32::try_from(number).ok().filter(|pid| *pid > 0) {
                Some(number) => Pid::from_raw(number),
                None => return invalid("pid", &number.to_string()),
            },
        };
        let annotations = wire.annotations.unwrap_or_default();
        Ok(Self { id: wire.id, pid, bundle, annotations })
    }
}

/// True if `path` is absolute, and has neither `..` nor NUL.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| part != Component::ParentDir)
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

/// A container's config.json: the fields that hooks use.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The absolute path of the root directory, before the container starts.
    pub rootfs: PathBuf,
    /// The program's user, by the ids of the host.
    pub user: User,
    /// The program's umask.
    pub umask: u32,
    /// The program's environment, which image and user set.
    pub env: Vec<(String, String)>,
    /// Annotations of config.json.
    pub annotations: Annotations,
}

#[derive(Deserialize)]
struct WireSpec {
    process: Option<WireProcess>,
    root: Option<WireRoot>,
    linux: Option<WireLinux>,
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct WireProcess {
    user: WireUser,
    env: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WireUser {
    uid: u32,
    gid: u32,
    umask: Option<u32>,
    #[serde(rename = "additionalGids")]
    groups: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct WireRoot {
    path: String,
}

#[derive(Deserialize)]
struct WireLinux {
    #[serde(rename = "uidMappings")]
    uids: Option<Vec<Mapping>>,
    #[serde(rename = "gidMappings")]
    gids: Option<Vec<Mapping>>,
}

/// A range of ids of a user namespace.
#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
    size: u32,
}

impl Spec {
    /// Parses the config.json of `bundle`.
    ///
    /// # Errors
    /// If the text is not a config.json, or has no process or root.
    pub fn parse(text: &str, bundle: &Path) -> Result<Self> {
        let wire: WireSpec = decode(text, "config.json")?;
        let process = wire.process.ok_or_else(|| Error::new("no process in it"))?;
        let root = wire.root.ok_or_else(|| Error::new("no root in it"))?;
        let rootfs = bundle.join(&root.path);
        if !is_plain(&rootfs) || root.path.is_empty() {
            return Err(Error::new(format!("invalid root.path '{:.100}'", root.path)));
        }
        let (uids, gids) = match wire.linux {
            Some(linux) => (linux.uids.unwrap_or_default(), linux.gids.unwrap_or_default()),
            None => Default::default(),
        };
        let user = process.user;
        let groups = user.groups.unwrap_or_default();
        let groups: Result<Vec<_>> = groups.into_iter().map(|id| on_host(id, &gids)).collect();
        let (uid, gid) = (on_host(user.uid, &uids)?, on_host(user.gid, &gids)?);
        let groups = groups?.into_iter().filter(|group| *group != gid).map(Gid::from_raw);
        let env = process.env.unwrap_or_default();
        Ok(Self {
            rootfs,
            user: User {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
                groups: groups.collect(),
            },
            umask: user.umask.unwrap_or(0o022),
            env: env
                .iter()
                .filter_map(|variable| variable.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            annotations: wire.annotations.unwrap_or_default(),
        })
    }

    /// The value of a variable of the program's environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// The id that the kernel reserves for "no user" and "no group".
const NO_ID: u32 = u32::MAX;

/// The host's id for the container's `id`: the same, unless there is a user namespace.
fn on_host(id: u32, mappings: &[Mapping]) -> Result<u32> {
    let mapped = |mapping: &Mapping| {
        let offset = id.checked_sub(mapping.inside)?;
        (offset < mapping.size).then(|| mapping.outside.checked_add(offset))?
    };
    let number = if mappings.is_empty() { Some(id) } else { mappings.iter().find_map(mapped) };
    number.filter(|number| *number != NO_ID).ok_or_else(|| {
        Error::new(format!("user or group id {id} is not mapped to one of the host"))
    })
}

#[cfg(test)]
mod tests;
