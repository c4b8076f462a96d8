//! `--mount=type=bind,source=S,destination=D[,readonly]`: from words to a request.
//!
//! Only the grammar is judged here; what lies behind the paths, and whether the site allows the
//! destination, is judged on descriptors when the mount is made. Manual, "Mounting custom
//! directories into the container".

use crate::error::{Error, Result};
use crate::log;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A bind mount that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute, without `..`.
    pub destination: PathBuf,
    /// Nothing can be written through it.
    pub readonly: bool,
}

impl MountRequest {
    /// Understands the value of `--mount`.
    ///
    /// # Errors
    /// With the request as it was given, and what is wrong with it.
    pub fn parse(request: &str) -> Result<Self> {
        parse(request).map_err(|cause| {
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

fn parse(request: &str) -> Result<MountRequest, String> {
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
                log::warn("mount", "'bind-propagation' is ignored: mounts are recursive private");
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
        Some(text) if text.contains('\0') => Err(format!("'{key}' must not hold a NUL byte")),
        Some(text) => Ok(PathBuf::from(text)),
    }
}

/// What it means depends on links of the image, which may not be there yet.
fn without_parents(destination: PathBuf) -> Result<PathBuf, String> {
    match has_parent(&destination) {
        true => Err("'destination' must not hold '..'".into()),
        false => Ok(destination),
    }
}

/// Whether `..` is among the components of `path`.
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
            assert_eq!(MountRequest::parse(request).unwrap(), expected(readonly), "{request}");
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
            ("type=bind,source=/a,destination=/../b", "'destination' must not hold '..'"),
            ("type=bind,source=/a,dst=/b,target=/c", "'target' is given twice"),
            ("type=bind,source=/a,dst=/b,readonly=true", "'readonly' takes no value"),
            ("type=bind,,source=/a,dst=/b", "empty key in ''"),
            ("type=bind,source=/a,dst=/b,size=3", "'size' is not a valid key"),
            ("", "empty key in ''"),
        ] {
            let error = MountRequest::parse(request).unwrap_err().to_string();
            assert_eq!(error, format!("invalid mount request '{request}': {cause}"));
        }
    }
}
