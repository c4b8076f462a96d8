//! PAX extended headers (`pax(1)`): records `<length> <key>=<value>\n` about the next entry.

use super::sparse::{self, MAX_EXTENTS};
use crate::error::{Error, Result};
use crate::squashfs::writer::Xattrs;

/// Longest name of an extended attribute without `user.`, and longest value, in bytes (xattr(7)).
const MAX_XATTR_NAME: usize = 250;
const MAX_XATTR_VALUE: usize = 64 << 10;

/// Content of the extension headers of an entry.
#[derive(Debug, Default)]
pub struct Pax {
    /// Path, also from a GNU long name.
    pub path: Option<Vec<u8>>,
    /// Link target, also from a GNU long link.
    pub linkpath: Option<Vec<u8>>,
    /// Size of the data in the archive in bytes.
    pub size: Option<u64>,
    /// Modification time in whole seconds since 1970.
    pub mtime: Option<i64>,
    /// Name of a sparse file: `path` is a substitute for readers that do not know sparse files.
    pub sparse_name: Option<Vec<u8>>,
    xattrs: Xattrs,
    sparse_major: Option<u64>,
    sparse_size: Option<u64>,
    /// Offsets and lengths of extents, alternating.
    sparse_map: Vec<u64>,
}

/// Extents of a file that are in the archive.
pub enum Map {
    /// The file is not sparse.
    None,
    /// Offsets and lengths of the extents, and length of the file (formats 0.0 and 0.1).
    Given(Vec<u64>, u64),
    /// The map precedes the data; length of the file (format 1.0).
    InData(u64),
}

impl Pax {
    /// Parses the records of a header. Later records override earlier ones.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(bad)?;
            self.take(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.linkpath = text(),
            b"size" => self.size = Some(decimal(value).ok_or_else(bad)?),
            b"mtime" => self.mtime = Some(seconds(value).ok_or_else(bad)?),
            b"GNU.sparse.name" => self.sparse_name = text(),
            b"GNU.sparse.major" => self.sparse_major = Some(decimal(value).ok_or_else(bad)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse_size = Some(decimal(value).ok_or_else(bad)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse_map.push(decimal(value).ok_or_else(bad)?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                self.sparse_map = numbers.collect::<Option<_>>().ok_or_else(bad)?;
            }
            _ => self.take_xattr(key, value)?,
        }
        if self.sparse_map.len() > 2 * MAX_EXTENTS { Err(sparse::bad()) } else { Ok(()) }
    }

    /// Takes an extended attribute of the namespace `user.`. Attributes of `security.` and `trusted.`
    /// have no effect in containers, whose mounts are nosuid; those of overlayfs would tell of the file
    /// system below another one.
    fn take_xattr(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(name) = key.strip_prefix(b"SCHILY.xattr.user.") else { return Ok(()) };
        if name.starts_with(b"overlay.") {
            return Ok(());
        }
        if !(1..=MAX_XATTR_NAME).contains(&name.len()) || value.len() > MAX_XATTR_VALUE {
            let (name, length) = (name.escape_ascii(), value.len());
            return Err(Error::new(format!("extended attribute user.{name} of {length} bytes")));
        }
        self.xattrs.insert(name.into(), value.into());
        Ok(())
    }

    /// Returns the extended attributes, if there are any.
    pub fn xattrs(self) -> Option<Box<Xattrs>> {
        (!self.xattrs.is_empty()).then(|| Box::new(self.xattrs))
    }

    /// Returns the map of an entry with `stored` bytes of data.
    pub fn sparse_map(&mut self, stored: u64) -> Result<Map> {
        match (self.sparse_major, self.sparse_size) {
            (Some(1), Some(real)) => Ok(Map::InData(real)),
            (None | Some(0), Some(real)) => Ok(match std::mem::take(&mut self.sparse_map) {
                map if map.is_empty() && stored == real => Map::None,
                map => Map::Given(map, real),
            }),
            (None, None) => Ok(Map::None),
            _ => Err(sparse::bad()),
        }
    }
}

/// Splits off the first record: key, value and the remaining bytes.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..blank)?)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses `[-]seconds[.fraction]`, and drops the fraction.
fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    fraction.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    whole.parse().ok()
}

#[cold]
fn bad() -> Error {
    Error::new("malformed PAX header")
}
