//! Adds libraries to the bytes of an `/etc/ld.so.cache`. The result has the new format alone, which
//! every linker since glibc 2.2 reads.
//!
//! The strings of the old cache are copied once as a whole, however many entries share them: so the
//! result is never much larger than the old cache. The linker finds a name by binary search: entries
//! must be in the order of `compare` in glibc's `elf/cache.c`: by name in descending order, then by
//! flags, with those of `glibc-hwcaps` first.

use std::cmp::Ordering;
use std::ffi::c_char;

use super::{FLAGS, HEADER, NEW, Record, Table, WIDTH, damaged};
use crate::bytes::u32_at;
use crate::error::{Error, Result};

/// A library to add, under one name, for this machine and all of its processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The name that programs load the library by.
    pub soname: String,
    /// The absolute path of the library.
    pub path: String,
}

/// Properties of a root directory that the order of the entries depends on.
#[derive(Clone, Copy)]
pub struct RootLayout<'a> {
    /// True if `/lib` is a link to `/usr/lib`.
    pub is_merged: bool,
    /// Returns true if a file of this path exists.
    pub exists: &'a dyn Fn(&[u8]) -> bool,
}

impl std::fmt::Debug for RootLayout<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootLayout").field("is_merged", &self.is_merged).finish_non_exhaustive()
    }
}

impl RootLayout<'_> {
    /// True if `path` is in a directory that ldconfig searches after `/usr/lib`. The order is: directories
    /// of `ld.so.conf`, then `/lib`, `/lib64`, `/usr/lib`, `/usr/lib64`, each of them once.
    fn is_late(&self, path: &[u8]) -> bool {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        match path.get(..end) {
            Some(b"/usr/lib64") => true,
            Some(b"/lib64") => self.is_merged,
            _ => false,
        }
    }
}

/// Adds `libraries`, which are in `/usr/lib`, to the cache `file`, in the order of ldconfig: behind
/// entries of the same name, but before those of directories that are searched later. Entries of the
/// same name whose file does not exist are dropped; all others are kept. A cache that lists all of
/// `libraries` is returned as it is.
///
/// # Errors
/// If `file` is not a cache, is damaged or too large, or a name is empty or contains NUL.
pub fn add(file: &[u8], libraries: &[Listing], root: RootLayout<'_>) -> Result<Vec<u8>> {
    let table = Table::parse(file)?;
    let mut records = table.records().collect::<Result<Vec<_>>>()?;
    let is_added = |record: &Record<'_>| {
        record.flags == FLAGS && libraries.iter().any(|one| one.soname.as_bytes() == record.soname)
    };
    records.retain(|record| !is_added(record) || (root.exists)(record.path));
    let mut strings = table.data.get(table.strings..).ok_or_else(damaged)?.to_vec();
    let old = (table.records().count(), strings.len());
    for library in libraries {
        insert(&mut records, &mut strings, library, root)?;
    }
    if (records.len(), strings.len()) == old && file.starts_with(NEW) {
        return Ok(file.to_vec());
    }
    let extension = Extension::parse(&table)?;
    let base = HEADER + records.len() * WIDTH;
    let mut bytes = NEW.to_vec();
    bytes.reserve_exact(base + strings.len() + extension.size());
    bytes.extend(number(records.len())?);
    bytes.extend(number(strings.len())?);
    bytes.extend([extension.byte_order, 0, 0, 0]);
    let end = (base + strings.len()).next_multiple_of(4);
    bytes.extend(number(if extension.is_empty() { 0 } else { end })?);
    bytes.resize(HEADER, 0);
    for record in &records {
        bytes.extend(record.flags.to_le_bytes());
        bytes.extend(number(base + record.key)?);
        bytes.extend(number(base + record.value)?);
        bytes.extend(record.osversion.to_le_bytes());
        bytes.extend(record.hwcap.to_le_bytes());
    }
    bytes.extend(strings);
    if !extension.is_empty() {
        bytes.resize(end, 0);
        extension.write(&mut bytes, base)?;
    }
    Ok(bytes)
}

/// Inserts `library` into `records` in order, and appends its names to `strings`.
fn insert<'a>(
    records: &mut Vec<Record<'a>>,
    strings: &mut Vec<u8>,
    library: &'a Listing,
    root: RootLayout<'_>,
) -> Result<()> {
    let (soname, path) = (library.soname.as_bytes(), library.path.as_bytes());
    if soname.is_empty() || !path.starts_with(b"/") || soname.contains(&0) || path.contains(&0) {
        return Err(Error::new(format!("cannot list {:?} in ld.so.cache", library.soname)));
    }
    let record = Record {
        flags: FLAGS,
        soname,
        path,
        key: strings.len(),
        value: strings.len() + soname.len() + 1,
        osversion: 0,
        hwcap: 0,
    };
    let is_same = |other: &Record<'_>| {
        (other.flags, other.soname, other.path, other.hwcap) == (FLAGS, soname, path, 0)
    };
    if records.iter().any(is_same) {
        return Ok(());
    }
    let is_late = |other: &Record<'_>| {
        (other.flags, other.soname, other.hwcap) == (FLAGS, soname, 0) && root.is_late(other.path)
    };
    let is_behind = |other: &Record<'_>| is_behind(other, &record) || is_late(other);
    let at = records.iter().position(is_behind).unwrap_or(records.len());
    records.insert(at, record);
    strings.extend([soname, &[0], path, &[0]].concat());
    Ok(())
}

/// True if `other` belongs behind a new `record`. Flags are signed, as in ldconfig.
fn is_behind(other: &Record<'_>, record: &Record<'_>) -> bool {
    let flags = other.flags.cast_signed().cmp(&record.flags.cast_signed());
    compare(other.soname, record.soname).then(flags) == Ordering::Less
}

/// Compares names as `_dl_cache_libcmp` of glibc's `elf/dl-cache.c`: digits as numbers in an `int` that
/// overflows, and greater than any other byte; other bytes as `char`, which is signed on some machines.
/// Not a total order where numbers overflow.
fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let digits = (take_number(&mut left), take_number(&mut right));
        let (a, b) = match digits {
            (Some(a), Some(b)) => (a.wrapping_sub(b), 0),
            (Some(_), None) => return Ordering::Greater,
            // The end of a name is less than any byte, digits included.
            (None, Some(_)) => return Ordering::Less,
            (None, None) => match (left.split_first(), right.split_first()) {
                (None, None) => return Ordering::Equal,
                (a, b) => {
                    let next = |one: Option<(&u8, _)>| one.map_or(0, |(byte, _)| *byte as c_char);
                    let pair = (next(a), next(b));
                    (left, right) = (rest(left), rest(right));
                    (i32::from(pair.0), i32::from(pair.1))
                }
            },
        };
        if a != b {
            return a.cmp(&b);
        }
    }
}

fn rest(text: &[u8]) -> &[u8] {
    text.get(1..).unwrap_or_default()
}

/// Removes leading digits from `text`, and returns their number.
fn take_number(text: &mut &[u8]) -> Option<i32> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).filter(|_| end > 0)?;
    *text = rest;
    let shift =
        |value: i32, digit: &u8| value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
    Some(digits.iter().fold(0, shift))
}

/// Sections behind the strings, `struct cache_extension`. Unknown ones are dropped: they may contain
/// offsets, which would be wrong in a new file.
#[derive(Debug, Default)]
struct Extension<'a> {
    byte_order: u8,
    /// Name and version of the program that wrote the cache.
    generator: &'a [u8],
    /// Names of directories in `glibc-hwcaps`, which entries refer to by their index: offsets from the
    /// beginning of the strings.
    hwcaps: Vec<usize>,
}

const MAGIC: u32 = 0xeaa4_2174;
const SECTION: usize = 16;
const GENERATOR: u32 = 0;
const HWCAPS: u32 = 1;

impl<'a> Extension<'a> {
    fn parse(table: &Table<'a>) -> Result<Self> {
        let mut this = Self::default();
        if table.width != WIDTH {
            return Ok(this);
        }
        this.byte_order = table.data.get(28).copied().unwrap_or(0);
        let at = u32_at(table.data, 32).unwrap_or(0) as usize;
        // Without this magic number there are no sections, as for the linker.
        let directory = table.file.get(at..).filter(|bytes| u32_at(bytes, 0) == Some(MAGIC));
        let Some(directory) = directory.filter(|_| at > 0) else { return Ok(this) };
        let count = u32_at(directory, 4).ok_or_else(damaged)? as usize;
        let sections = directory.get(8..).ok_or_else(damaged)?.chunks_exact(SECTION);
        if count > sections.len() {
            return Err(damaged());
        }
        for section in sections.take(count) {
            let field = |at| u32_at(section, at).map(|number| number as usize);
            let data = field(8).and_then(|at| table.file.get(at..)?.get(..field(12)?));
            match (u32_at(section, 0), data.ok_or_else(damaged)?) {
                (Some(GENERATOR), data) => this.generator = data,
                (Some(HWCAPS), data) => this.hwcaps = names(table, data)?,
                _ => {}
            }
        }
        Ok(this)
    }

    fn is_empty(&self) -> bool {
        self.generator.is_empty() && self.hwcaps.is_empty()
    }

    fn size(&self) -> usize {
        12 + 2 * SECTION + 4 * self.hwcaps.len() + self.generator.len()
    }

    /// Appends the sections to `bytes`; the strings begin at `base`.
    fn write(&self, bytes: &mut Vec<u8>, base: usize) -> Result<()> {
        let sizes = [(HWCAPS, 4 * self.hwcaps.len()), (GENERATOR, self.generator.len())];
        let sections: Vec<_> = sizes.into_iter().filter(|(_, size)| *size > 0).collect();
        let mut at = bytes.len() + 8 + sections.len() * SECTION;
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(number(sections.len())?);
        for (tag, size) in sections {
            bytes.extend(tag.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(number(at)?);
            bytes.extend(number(size)?);
            at += size;
        }
        for name in &self.hwcaps {
            bytes.extend(number(base + name)?);
        }
        bytes.extend(self.generator);
        Ok(())
    }
}

/// The offsets of the names in a section of `glibc-hwcaps`. The linker does not check them.
fn names(table: &Table<'_>, section: &[u8]) -> Result<Vec<usize>> {
    let name = |bytes: &[u8]| {
        let at = table.string_at(bytes, 0)?;
        table.text(at).map(|_| at)
    };
    section.chunks_exact(4).map(|bytes| name(bytes).ok_or_else(damaged)).collect()
}

/// Encodes a 32-bit number, as all in the cache are.
fn number(number: usize) -> Result<[u8; 4]> {
    u32::try_from(number)
        .map(u32::to_le_bytes)
        .map_err(|_| Error::new("ld.so.cache would be too large"))
}

#[cfg(test)]
mod tests;
