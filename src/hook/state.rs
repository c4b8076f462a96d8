//! The two documents that tell a hook of its container: the state that the runtime writes to stdin,
//! and the bundle's config.json. Pure functions from text.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use miniserde::Deserialize;
use miniserde::json;
use rustix::process::{Gid, Pid, Uid};

use crate::error::{Error, Result};
use crate::site::json::bounds::{self, Limits};
use crate::user::User;

/// Limits of both documents. A container of a thousand mounts and system call rules has ten thousand
/// values, five deep.
const LIMITS: Limits = Limits { depth: 32, values: 1 << 16 };

/// Notes that engines attach to containers.
pub type Annotations = BTreeMap<String, String>;

/// The state of a container, as far as hooks use it.
#[derive(Debug, Clone)]
pub struct State {
    /// What the runtime calls it.
    pub id: String,
    /// Its first process; none when the container has ended, or where the runtime does not tell.
    pub pid: Option<Pid>,
    /// The directory of config.json.
    pub bundle: PathBuf,
    /// Those of the state itself.
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

/// Decodes the JSON of a document that is called `what`.
fn decode<T: Deserialize>(text: &str, what: &str) -> Result<T> {
    bounds::check(text, LIMITS)?;
    json::from_str(text).map_err(|_| {
        Error::new(format!("it is no {what} as the OCI runtime specification describes it"))
    })
}

/// The stages of a container's life, and what engines add to them.
const STATUSES: [&str; 5] = ["creating", "created", "running", "stopped", "paused"];

impl State {
    /// Reads the text of a state.
    ///
    /// # Errors
    /// When it is none, or a field has a value that it cannot have.
    pub fn parse(text: &str) -> Result<Self> {
        let wire: WireState = decode(text, "state")?;
        let wrong = |field: &str, value: &str| {
            Err(Error::new(format!("its {field} cannot be '{value:.100}'")))
        };
        if !wire.version.starts_with("1.") {
            return wrong("ociVersion", &wire.version);
        }
        if wire.id.is_empty() || wire.id.contains('/') {
            return wrong("id", &wire.id);
        }
        if !STATUSES.contains(&wire.status.as_str()) {
            return wrong("status", &wire.status);
        }
        let bundle = PathBuf::from(&wire.bundle);
        if !is_plain(&bundle) {
            return wrong("bundle", &wire.bundle);
        }
        let pid = match wire.pid {
            // As some runtimes write where there is none.
            None | Some(0) => None,
            Some(number) => match i32::try_from(number).ok().filter(|pid| *pid > 0) {
                Some(number) => Pid::from_raw(number),
                None => return wrong("pid", &number.to_string()),
            },
        };
        let annotations = wire.annotations.unwrap_or_default();
        Ok(Self { id: wire.id, pid, bundle, annotations })
    }
}

/// Whether a path is absolute and says what it means.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| part != Component::ParentDir)
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

/// A container's config.json, as far as hooks use it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The root file system before the container starts, absolute.
    pub rootfs: PathBuf,
    /// Whom the program runs as, by the numbers of the host.
    pub user: User,
    /// The program's umask.
    pub umask: u32,
    /// The program's environment: what image and user say, so nothing to believe.
    pub env: Vec<(String, String)>,
    /// Those of config.json.
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
    /// Reads the text of the config.json of `bundle`.
    ///
    /// # Errors
    /// When it is none, or lacks what every container has.
    pub fn parse(text: &str, bundle: &Path) -> Result<Self> {
        let wire: WireSpec = decode(text, "config.json")?;
        let process = wire.process.ok_or_else(|| Error::new("it has no process"))?;
        let root = wire.root.ok_or_else(|| Error::new("it has no root"))?;
        let rootfs = bundle.join(&root.path);
        if !is_plain(&rootfs) || root.path.is_empty() {
            return Err(Error::new(format!("its root.path cannot be '{:.100}'", root.path)));
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

    /// A variable of the program's environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// What the kernel calls no id at all.
const NO_ID: u32 = u32::MAX;

/// The host's number for the container's `id`: the same, unless there is a user namespace.
fn on_host(id: u32, mappings: &[Mapping]) -> Result<u32> {
    let mapped = |mapping: &Mapping| {
        let offset = id.checked_sub(mapping.inside)?;
        (offset < mapping.size).then(|| mapping.outside.checked_add(offset))?
    };
    let number = if mappings.is_empty() { Some(id) } else { mappings.iter().find_map(mapped) };
    number
        .filter(|number| *number != NO_ID)
        .ok_or_else(|| Error::new(format!("its user or group {id} is none of the host's")))
}

#[cfg(test)]
mod tests;
