//! Mounts of a container: the kernel's file systems, and bind mounts of site and user.
//!
//! `--mount=type=bind,source=S,destination=D[,readonly]` is parsed here by its grammar alone. Source
//! and destination are opened and checked when the mount is made. Manual, "Mounting custom directories
//! into the container".

use crate::error::{Error, Result};
use crate::site::config::SiteMount;
use crate::sys::fs::mount::Restrictions;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A request for a bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// Path on the host, absolute.
    pub source: PathBuf,
    /// Path in the container, absolute, without `..`.
    pub destination: PathBuf,
    /// True if nothing can be written through the mount.
    pub readonly: bool,
}

/// A bind mount of the plan.
#[derive(Debug)]
pub struct BindMount {
    /// Source, destination and mode.
    pub request: MountRequest,
    /// True if a user asked for it: `userMounts` holds, and the source is opened with the user's
    /// rights.
    pub by_user: bool,
}

/// A file system of the kernel, always mounted `nosuid`.
#[derive(Debug, PartialEq, Eq)]
pub struct SystemMount {
    /// Path in the container.
    pub destination: &'static str,
    /// File system, or directory of the host.
    pub source: SystemSource,
    /// Restrictions beside `nosuid`.
    pub restrictions: Restrictions,
    /// Options of the file system.
    pub options: Vec<String>,
}

/// Origin of a [`SystemMount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemSource {
    /// A new instance of the file system of this name.
    Filesystem(&'static str),
    /// A recursive bind mount of this directory of the host, with slave propagation.
    Host(&'static str),
}

/// File systems of the kernel, in the order in which they are mounted. `tty_group` owns terminals;
/// `proc_options` are options of `/proc`.
#[must_use]
pub fn system_mounts(tty_group: Option<u32>, proc_options: &[String]) -> Vec<SystemMount> {
    let owned = |options: &[&str]| options.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let mut pts = owned(&["newinstance", "ptmxmode=0666", "mode=0620"]);
    pts.extend(tty_group.map(|group| format!("gid={group}")));
    // Not less than the host's own mounts of these file systems have.
    let closed = Restrictions { readonly: false, nodev: true, noexec: true };
    let new = |destination, name, restrictions, options| {
        let source = SystemSource::Filesystem(name);
        SystemMount { destination, source, restrictions, options }
    };
    // The host's: ranks of one node share memory across their containers.
    let shm = SystemSource::Host("/dev/shm");
    vec![
        new("/proc", "proc", closed, proc_options.to_vec()),
        new("/dev/pts", "devpts", Restrictions { nodev: false, ..closed }, pts),
        SystemMount {
            destination: "/dev/shm",
            source: shm,
            restrictions: closed,
            options: Vec::new(),
        },
        new("/dev/mqueue", "mqueue", closed, Vec::new()),
        new("/sys", "sysfs", Restrictions { readonly: true, ..closed }, Vec::new()),
    ]
}

/// Mounts of the site, then those of the user.
#[must_use]
pub fn bind_mounts(site: &[SiteMount], user: Vec<MountRequest>) -> Vec<BindMount> {
    let site = site.iter().map(|mount| BindMount {
        request: MountRequest {
            source: mount.source.clone(),
            destination: mount.destination.clone(),
            readonly: mount.readonly,
        },
        by_user: false,
    });
    let user = user.into_iter().map(|request| BindMount { request, by_user: true });
    site.chain(user).collect()
}

impl MountRequest {
    /// Parses the value of `--mount`, and adds warnings about it to `warnings`.
    ///
    /// # Errors
    /// If the value is invalid; the error quotes it.
    pub fn parse(request: &str, warnings: &mut Vec<String>) -> Result<Self> {
        parse(request, warnings).map_err(|cause| {
            Error::caused_by(format!("invalid mount request '{request}'"), cause)
                .with_hint("--mount=type=bind,source=/on/host,destination=/in/container[,readonly]")
        })
    }
}

impl fmt::Display for MountRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source.display(), self.destination.display());
        let readonly = if self.readonly { ",readonly" } else { "" };
        write!(f, "type=bind,source={source},destination={destination}{readonly}")
    }
}

fn parse(request: &str, warnings: &mut Vec<String>) -> Result<MountRequest, String> {
    let (mut kind, mut source, mut destination, mut readonly) = (None, None, None, None);
    for field in request.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let slot = match key {
            "type" => &mut kind,
            "source" | "src" => &mut source,
            "destination" | "dst" | "target" => &mut destination,
            "readonly" | "ro" => &mut readonly,
            "bind-propagation" => {
                let text = "'bind-propagation' is ignored: mounts are recursive and private";
                warnings.push(text.to_owned());
                continue;
            }
            "" => return Err(format!("empty key in '{field}'")),
            _ => return Err(format!("'{key}' is not a valid key")),
        };
        if slot.replace(value).is_some() {
            return Err(format!("'{key}' is given twice"));
        }
    }
    match kind {
        Some(Some("bind")) => {}
        Some(kind) => {
            return Err(format!("'{}' is not a valid mount type", kind.unwrap_or_default()));
        }
        None => return Err("'type' must be specified".into()),
    }
    if readonly.flatten().is_some() {
        return Err("'readonly' takes no value".into());
    }
    Ok(MountRequest {
        source: absolute("source", source)?,
        destination: without_parents(absolute("destination", destination)?)?,
        readonly: readonly.is_some(),
    })
}

fn absolute(key: &str, value: Option<Option<&str>>) -> Result<PathBuf, String> {
    match value.flatten() {
        None | Some("") => Err(format!("'{key}' must be specified")),
        Some(text) if !text.starts_with('/') => Err(format!("'{key}' must be an absolute path")),
        Some(text) if text.contains('\0') => Err(format!("'{key}' must not contain a NUL byte")),
        Some(text) => Ok(PathBuf::from(text)),
    }
}

/// Rejects `..`: its meaning depends on symlinks of the image, which are not resolved yet.
fn without_parents(destination: PathBuf) -> Result<PathBuf, String> {
    if has_parent(&destination) {
        return Err("'destination' must not contain '..'".into());
    }
    Ok(destination)
}

/// True if `..` is among the components of `path`.
#[must_use]
pub fn has_parent(path: &Path) -> bool {
    path.components().any(|component| component == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_any_order_and_spelling() {
        let expected =
            |readonly| MountRequest { source: "/a".into(), destination: "/b".into(), readonly };
        for (request, readonly) in [
            ("type=bind,source=/a,destination=/b", false),
            ("dst=/b,readonly,src=/a,type=bind", true),
            ("type=bind,src=/a,target=/b,bind-propagation=slave", false),
        ] {
            let mut warnings = Vec::new();
            let parsed = MountRequest::parse(request, &mut warnings).unwrap();
            assert_eq!(parsed, expected(readonly), "{request}");
            assert_eq!(warnings.len(), usize::from(request.contains("propagation")), "{request}");
        }
    }

    #[test]
    fn every_mistake_has_its_own_words() {
        for (request, cause) in [
            ("source=/a,destination=/b", "'type' must be specified"),
            ("type=tmpfs,source=/a,destination=/b", "'tmpfs' is not a valid mount type"),
            ("type,source=/a,destination=/b", "'' is not a valid mount type"),
            ("type=bind,destination=/b", "'source' must be specified"),
            ("type=bind,source=,destination=/b", "'source' must be specified"),
            ("type=bind,source=a,destination=/b", "'source' must be an absolute path"),
            ("type=bind,source=/a", "'destination' must be specified"),
            ("type=bind,source=/a,destination=b", "'destination' must be an absolute path"),
            ("type=bind,source=/a,destination=/../b", "'destination' must not contain '..'"),
            ("type=bind,source=/a,dst=/b,target=/c", "'target' is given twice"),
            ("type=bind,source=/a,dst=/b,readonly=true", "'readonly' takes no value"),
            ("type=bind,,source=/a,dst=/b", "empty key in ''"),
            ("type=bind,source=/a,dst=/b,size=3", "'size' is not a valid key"),
            ("", "empty key in ''"),
        ] {
            let error = MountRequest::parse(request, &mut Vec::new()).unwrap_err().to_string();
            assert_eq!(error, format!("invalid mount request '{request}': {cause}"));
        }
    }
}
