//! `/proc/<pid>/mountinfo`: the mounts of a mount namespace. See proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A line of mountinfo. Fields are as they stand in the file: blank, tab, newline and backslash are
/// escaped as three octal digits, and names need not be UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountInfo<'a> {
    /// Mount ID.
    pub id: u64,
    /// Mount ID of the parent mount.
    pub parent: u64,
    /// Device of the file system, `major:minor`.
    pub device: &'a [u8],
    /// Directory of the file system that is the root of this mount.
    pub root: &'a [u8],
    /// Mount point, relative to the root directory of the process.
    pub mount_point: &'a [u8],
    /// Options of this mount, separated by commas.
    pub options: &'a [u8],
    /// Type of the file system.
    pub fs_type: &'a [u8],
    /// Options of the file system, separated by commas.
    pub super_options: &'a [u8],
}

impl<'a> MountInfo<'a> {
    /// Parses a line; `None` if it is malformed.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        // Optional fields stand before the hyphen.
        let hyphen = line.windows(3).position(|part| part == b" - ")?;
        let (mount, filesystem) = (line.get(..hyphen)?, line.get(hyphen + 3..)?);
        let mut mount = mount.split(|byte| *byte == b' ');
        let mut filesystem = filesystem.split(|byte| *byte == b' ');
        Some(Self {
            id: number(mount.next()?)?,
            parent: number(mount.next()?)?,
            device: mount.next()?,
            root: mount.next()?,
            mount_point: mount.next()?,
            options: mount.next()?,
            fs_type: filesystem.next()?,
            super_options: filesystem.nth(1)?,
        })
    }

    /// Mount point without escapes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(unescape(self.mount_point)))
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Replaces each backslash and three octal digits by the byte that they stand for.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn fields_are_found_on_both_sides_of_the_optional_ones() {
        for optional in ["", " master:1", " shared:3 propagate_from:2"] {
            let line = format!(
                r"36 35 98:0 /mnt1 /a\040b\134 ro,noexec{optional} - ext3 /dev/root rw,errors=x"
            );
            let mount = MountInfo::parse(line.as_bytes()).unwrap();
            assert_eq!((mount.id, mount.parent, mount.device), (36, 35, &b"98:0"[..]));
            assert_eq!((mount.root, mount.options), (&b"/mnt1"[..], &b"ro,noexec"[..]));
            assert_eq!(mount.path(), Path::new("/a b\\"));
            assert_eq!((mount.fs_type, mount.super_options), (&b"ext3"[..], &b"rw,errors=x"[..]));
        }
        for line in ["", "x", "36 35 98:0 / /a rw", "36 35 98:0 / /a rw - ext3 /dev/root"] {
            assert_eq!(MountInfo::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn every_mount_of_this_process_is_parsed() {
        let text = crate::sys::fs::read::read_proc("/proc/self/mountinfo").unwrap();
        assert!(
            !text.is_empty()
                && text.lines().all(|line| MountInfo::parse(line.as_bytes()).is_some())
        );
    }
}
