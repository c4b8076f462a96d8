//! `/etc/ld.so.cache`, in which the dynamic linker of the GNU C Library looks up libraries. [`read`] lists
//! the libraries, [`add`] adds some: pure functions from the bytes of an image.
//!
//! Two formats are in use: that of `ld.so-1.7.0`, which the new one may follow for linkers that know
//! it, and the new one alone, which ldconfig writes by default since glibc 2.32. The structures in
//! `sysdeps/generic/dl-cache.h` of glibc specify both, `elf/cache.c` and `elf/dl-cache.c` their order.

mod write;

pub use write::{Listing, RootLayout, add};

use std::path::Path;

use super::elf::ReadAt;
use crate::bytes::u32_at;
use crate::error::{Context, Error, Result};
use crate::rootfs::root_dir::RootDir;
use crate::sys::fs::resolve;

/// The path of the cache.
pub const PATH: &str = "/etc/ld.so.cache";

/// Maximum size in bytes. A machine with thousands of libraries has some hundred kilobytes.
const MAX_SIZE: u64 = 8 << 20;

/// Maximum number of entries, of all kinds. No system has as many libraries.
const MAX_ENTRIES: usize = 1 << 15;

/// Maximum length of a name in bytes: `PATH_MAX`, the kernel's own limit.
const MAX_NAME: usize = 4096;

/// An entry for this machine's kind of libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheEntry<'a> {
    /// The name that programs load the library by.
    pub soname: &'a str,
    /// The absolute path of the library.
    pub path: &'a str,
}

const OLD: &[u8] = b"ld.so-1.7.0\0";
const NEW: &[u8] = b"glibc-ld.so.cache1.1";

/// Sizes in bytes: the header of the new format, its entries, and entries of the old format.
const HEADER: usize = 48;
const WIDTH: usize = 24;
const OLD_WIDTH: usize = 12;

/// Flags of libraries for this machine's 64-bit programs: `FLAG_ELF_LIBC6` with the machine.
#[cfg(target_arch = "x86_64")]
const FLAGS: u32 = 0x0303;
#[cfg(target_arch = "aarch64")]
const FLAGS: u32 = 0x0a03;

/// Reads the cache of `root`; `None` if it has none.
///
/// # Errors
/// If it is too large, or not a regular file.
pub fn load(root: &RootDir) -> Result<Option<Vec<u8>>> {
    let Some(file) = root.open_file(Path::new(PATH))? else { return Ok(None) };
    let size = resolve::status(&file).context(|| "cannot stat the file".into())?.st_size;
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    if size > MAX_SIZE {
        return Err(Error::new(format!("larger than {MAX_SIZE} bytes")));
    }
    file.read_at(0, size).map(Some)
}

/// Lists the libraries for this machine that have absolute paths, in the order of the cache: the
/// linker takes the first that it can use.
///
/// # Errors
/// If the bytes are not a cache, or are damaged, or list too many libraries.
pub fn read(bytes: &[u8]) -> Result<Vec<CacheEntry<'_>>> {
    let table = Table::parse(bytes)?;
    let mut list = Vec::new();
    for record in table.records() {
        let record = record?;
        if record.flags == FLAGS {
            let text = |name| std::str::from_utf8(name).map_err(|_| damaged());
            list.push(CacheEntry { soname: text(record.soname)?, path: text(record.path)? });
        }
    }
    list.retain(|entry| entry.path.starts_with('/'));
    Ok(list)
}

/// The table that the linker searches: the new one if there are two.
#[derive(Debug)]
struct Table<'a> {
    /// The whole file.
    file: &'a [u8],
    /// The bytes that offsets of strings count from.
    data: &'a [u8],
    entries: &'a [u8],
    /// The size of an entry in bytes.
    width: usize,
    /// The offset in `data` at which the strings begin.
    strings: usize,
}

/// An entry for any machine: `struct file_entry_new`. Fields that the old format lacks are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record<'a> {
    flags: u32,
    soname: &'a [u8],
    path: &'a [u8],
    /// The offsets of soname and path behind the beginning of the strings.
    key: usize,
    value: usize,
    osversion: u32,
    hwcap: u64,
}

impl<'a> Table<'a> {
    fn parse(file: &'a [u8]) -> Result<Self> {
        if file.starts_with(NEW) {
            return Self::new(file, file);
        }
        let old = file.strip_prefix(OLD).ok_or_else(|| Error::new("not a cache of ld.so"))?;
        let count = count_at(old, 0)?;
        let table = old.get(4..).and_then(|rest| rest.split_at_checked(count * OLD_WIDTH));
        let (entries, data) = table.ok_or_else(damaged)?;
        // The new format begins at the next multiple of 8.
        let begin = (file.len() - data.len()).next_multiple_of(8);
        match file.get(begin..).filter(|rest| rest.starts_with(NEW)) {
            Some(rest) => Self::new(file, rest),
            None => Ok(Self { file, data, entries, width: OLD_WIDTH, strings: 0 }),
        }
    }

    /// A header, entries, strings; offsets count from the header on.
    fn new(file: &'a [u8], data: &'a [u8]) -> Result<Self> {
        let strings = HEADER + count_at(data, 20)? * WIDTH;
        let entries = data.get(HEADER..strings).ok_or_else(damaged)?;
        // `flags`: 0 is of a glibc without byte order, 2 is little-endian.
        if !matches!(data.get(28), Some(0)) && data.get(28).is_none_or(|flags| flags & 3 != 2) {
            return Err(Error::new("written for machines of another byte order"));
        }
        Ok(Self { file, data, entries, width: WIDTH, strings })
    }

    fn records(&self) -> impl Iterator<Item = Result<Record<'a>>> {
        self.entries.chunks_exact(self.width).map(|entry| self.record(entry).ok_or_else(damaged))
    }

    fn record(&self, entry: &[u8]) -> Option<Record<'a>> {
        let (key, value) = (self.string_at(entry, 4)?, self.string_at(entry, 8)?);
        Some(Record {
            flags: u32_at(entry, 0)?,
            soname: self.text(key)?,
            path: self.text(value)?,
            key,
            value,
            osversion: u32_at(entry, 12).unwrap_or(0),
            hwcap: entry
                .get(16..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |bytes| u64::from_le_bytes(*bytes)),
        })
    }

    /// Reads an offset at `at` of `bytes`, and counts it from the beginning of the strings.
    fn string_at(&self, bytes: &[u8], at: usize) -> Option<usize> {
        (u32_at(bytes, at)? as usize).checked_sub(self.strings)
    }

    /// The string at offset `at`, without its NUL.
    fn text(&self, at: usize) -> Option<&'a [u8]> {
        let rest = self.data.get(self.strings..)?.get(at..)?;
        let rest = rest.get(..rest.len().min(MAX_NAME))?;
        let text = rest.get(..rest.iter().position(|byte| *byte == 0)?)?;
        (!text.is_empty()).then_some(text)
    }
}

fn damaged() -> Error {
    Error::new("damaged")
}

fn count_at(bytes: &[u8], at: usize) -> Result<usize> {
    let count = u32_at(bytes, at).ok_or_else(damaged)? as usize;
    if count > MAX_ENTRIES {
        return Err(Error::new(format!("more than {MAX_ENTRIES} libraries")));
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
