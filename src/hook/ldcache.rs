//! Reads `/etc/ld.so.cache`, where the dynamic linker of the GNU C Library looks up libraries: a pure
//! function from bytes that an image brought, to what they say.
//!
//! Two formats are in use: the one of 1.7.0, behind which the new one may stand for linkers that know
//! it, and the new one alone, which ldconfig has written since 2.32.

use crate::error::{Error, Result};

/// A machine with thousands of libraries has some hundred kilobytes.
pub const MAX_SIZE: u64 = 16 << 20;

/// As the kernel's own limit of paths.
const MAX_NAME: usize = 4096;

/// A line of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What programs call the library.
    pub soname: String,
    /// Where it is.
    pub path: String,
    /// Whether it is for some processors only, and lies in a directory of theirs.
    pub special: bool,
}

impl Entry {
    /// The directory that ldconfig can be told to find it in. It takes what follows `=` for a kind.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        let (folder, _) = self.path.rsplit_once('/')?;
        (folder.starts_with('/') && !folder.contains('=') && !self.special).then_some(folder)
    }
}

const OLD: &[u8] = b"ld.so-1.7.0\0";
const NEW: &[u8] = b"glibc-ld.so.cache1.1";

/// The kind of libraries that this machine's programs use: the GNU C Library's, 64-bit.
#[cfg(target_arch = "x86_64")]
const FLAGS: u32 = 0x0303;
#[cfg(target_arch = "aarch64")]
const FLAGS: u32 = 0x0a03;

/// The libraries of this machine's kind, in the order of the cache: the linker takes the first that
/// it can use.
///
/// # Errors
/// When it is no cache, or a damaged one.
pub fn read(bytes: &[u8]) -> Result<Vec<Entry>> {
    if bytes.starts_with(NEW) {
        return new(bytes);
    }
    let damaged = || Error::new("it is damaged");
    let old = bytes.strip_prefix(OLD).ok_or_else(|| Error::new("it is no cache of ld.so"))?;
    let count = u32_at(old, 0).ok_or_else(damaged)? as usize;
    let entries = count.checked_mul(12).and_then(|size| old.get(4..)?.split_at_checked(size));
    let (entries, strings) = entries.ok_or_else(damaged)?;
    // The new format begins at the next multiple of 8.
    let begin = (bytes.len() - strings.len()).next_multiple_of(8);
    if let Some(rest) = bytes.get(begin..).filter(|rest| rest.starts_with(NEW)) {
        return new(rest);
    }
    collect(entries.chunks_exact(12), strings)
}

/// A header of 48 bytes, entries of 24, strings; offsets count from the header on.
fn new(bytes: &[u8]) -> Result<Vec<Entry>> {
    let damaged = || Error::new("it is damaged");
    let count = u32_at(bytes, 20).ok_or_else(damaged)? as usize;
    let size = count.checked_mul(24).ok_or_else(damaged)?;
    let entries = bytes.get(48..).and_then(|rest| rest.get(..size)).ok_or_else(damaged)?;
    collect(entries.chunks_exact(24), bytes)
}

/// Both kinds of entries begin with flags, and the offsets of name and path.
fn collect<'a>(entries: impl Iterator<Item = &'a [u8]>, strings: &[u8]) -> Result<Vec<Entry>> {
    let mut list = Vec::new();
    for entry in entries.filter(|entry| u32_at(entry, 0) == Some(FLAGS)) {
        let name = |at: usize| text(strings, u32_at(entry, at)? as usize);
        let (Some(soname), Some(path)) = (name(4), name(8)) else {
            return Err(Error::new("it is damaged"));
        };
        let special = entry.get(16..).is_some_and(|hwcap| hwcap.iter().any(|byte| *byte != 0));
        list.push(Entry { soname, path, special });
    }
    Ok(list)
}

fn text(strings: &[u8], at: usize) -> Option<String> {
    let rest = strings.get(at..)?;
    let rest = rest.get(..rest.len().min(MAX_NAME))?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
