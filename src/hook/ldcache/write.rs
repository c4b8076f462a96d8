//! Writes `/etc/ld.so.cache` anew with libraries that were not in it: a pure function from bytes to
//! bytes. The result has the new format alone, which every linker since glibc 2.2 reads.
//!
//! Strings of the old cache are copied as they lie there, once, however many entries share them; so
//! the result is never much larger than what it was made from. The linker finds a name by binary
//! search, so entries stand in the order of `compare` in glibc's `elf/cache.c`: by name in descending
//! order, then by flags, with special ones for some processors first.

use std::cmp::Ordering;
use std::ffi::c_char;

use super::{FLAGS, HEADER, Line, NEW, Table, WIDTH, damaged};
use crate::bytes::u32_at;
use crate::error::{Error, Result};

/// A name of a library that the cache shall list, of this machine's kind and for all processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The name that programs load the library by.
    pub soname: String,
    /// The absolute path of the library.
    pub path: String,
}

/// The root directory that a cache is for, as far as the order of its entries depends on it.
#[derive(Clone, Copy)]
pub struct Root<'a> {
    /// `/lib` leads to `/usr/lib`.
    pub is_merged: bool,
    /// Tells whether there is a file of this path.
    pub exists: &'a dyn Fn(&[u8]) -> bool,
}

impl std::fmt::Debug for Root<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("is_merged", &self.is_merged).finish_non_exhaustive()
    }
}

impl Root<'_> {
    /// Tells whether `path` is in a directory that ldconfig searches behind `/usr/lib`. It takes first
    /// what `ld.so.conf` lists, then `/lib`, `/lib64`, `/usr/lib`, `/usr/lib64`, and each but once.
    fn is_late(&self, path: &[u8]) -> bool {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        match path.get(..end) {
            Some(b"/usr/lib64") => true,
            Some(b"/lib64") => self.is_merged,
            _ => false,
        }
    }
}

/// Writes the cache `file` with `libraries` added, which lie in `/usr/lib`. Each stands where ldconfig
/// would put it: behind the entries of the same name, but before those of directories that are searched
/// later. Entries of the same name whose file is gone are left out; all others are kept. A cache that
/// lists all of them already stays as it is.
///
/// # Errors
/// If `file` is not a cache, or is damaged or too large, or a name cannot stand in a cache.
pub fn add(file: &[u8], libraries: &[Listing], root: Root<'_>) -> Result<Vec<u8>> {
    let table = Table::parse(file)?;
    let mut lines = table.lines().collect::<Result<Vec<_>>>()?;
    let is_added = |line: &Line<'_>| {
        line.flags == FLAGS && libraries.iter().any(|one| one.soname.as_bytes() == line.soname)
    };
    lines.retain(|line| !is_added(line) || (root.exists)(line.path));
    let mut strings = table.data.get(table.strings..).ok_or_else(damaged)?.to_vec();
    let old = (table.lines().count(), strings.len());
    for library in libraries {
        insert(&mut lines, &mut strings, library, root)?;
    }
    if (lines.len(), strings.len()) == old && file.starts_with(NEW) {
        return Ok(file.to_vec());
    }
    let extension = Extension::of(&table)?;
    let base = HEADER + lines.len() * WIDTH;
    let mut bytes = NEW.to_vec();
    bytes.reserve_exact(base + strings.len() + extension.size());
    bytes.extend(number(lines.len())?);
    bytes.extend(number(strings.len())?);
    bytes.extend([extension.byte_order, 0, 0, 0]);
    let end = (base + strings.len()).next_multiple_of(4);
    bytes.extend(number(if extension.is_empty() { 0 } else { end })?);
    bytes.resize(HEADER, 0);
    for line in &lines {
        bytes.extend(line.flags.to_le_bytes());
        bytes.extend(number(base + line.key)?);
        bytes.extend(number(base + line.value)?);
        bytes.extend(line.osversion.to_le_bytes());
        bytes.extend(line.hwcap.to_le_bytes());
    }
    bytes.extend(strings);
    if !extension.is_empty() {
        bytes.resize(end, 0);
        extension.write(&mut bytes, base)?;
    }
    Ok(bytes)
}

/// Puts `library` at its place among `lines`, and what it is called behind `strings`.
fn insert<'a>(
    lines: &mut Vec<Line<'a>>,
    strings: &mut Vec<u8>,
    library: &'a Listing,
    root: Root<'_>,
) -> Result<()> {
    let (soname, path) = (library.soname.as_bytes(), library.path.as_bytes());
    if soname.is_empty() || !path.starts_with(b"/") || soname.contains(&0) || path.contains(&0) {
        return Err(Error::new(format!("cannot list {:?} in ld.so.cache", library.soname)));
    }
    let line = Line {
        flags: FLAGS,
        soname,
        path,
        key: strings.len(),
        value: strings.len() + soname.len() + 1,
        osversion: 0,
        hwcap: 0,
    };
    let is_same = |other: &Line<'_>| {
        (other.flags, other.soname, other.path, other.hwcap) == (FLAGS, soname, path, 0)
    };
    if lines.iter().any(is_same) {
        return Ok(());
    }
    let is_late = |other: &Line<'_>| {
        (other.flags, other.soname, other.hwcap) == (FLAGS, soname, 0) && root.is_late(other.path)
    };
    let is_behind = |other: &Line<'_>| is_behind(other, &line) || is_late(other);
    let at = lines.iter().position(is_behind).unwrap_or(lines.len());
    lines.insert(at, line);
    strings.extend([soname, &[0], path, &[0]].concat());
    Ok(())
}

/// Tells whether `other` belongs behind a new `line`. As in ldconfig, flags are signed.
fn is_behind(other: &Line<'_>, line: &Line<'_>) -> bool {
    let flags = other.flags.cast_signed().cmp(&line.flags.cast_signed());
    compare(other.soname, line.soname).then(flags) == Ordering::Less
}

/// Compares names as `_dl_cache_libcmp` of glibc's `elf/dl-cache.c` does: digits as the numbers that
/// they make up, in an `int` that overflows, and behind everything else; other bytes as `char`, which
/// has a sign on some machines. Not a total order, where numbers overflow.
fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let digits = (take_number(&mut left), take_number(&mut right));
        let (a, b) = match digits {
            (Some(a), Some(b)) => (a.wrapping_sub(b), 0),
            (Some(_), None) => return Ordering::Greater,
            // The end of a name is before everything, digits included.
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

/// Takes the digits off that `text` begins with.
fn take_number(text: &mut &[u8]) -> Option<i32> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).filter(|_| end > 0)?;
    *text = rest;
    let shift =
        |value: i32, digit: &u8| value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
    Some(digits.iter().fold(0, shift))
}

/// The sections behind the strings, `struct cache_extension`, that glibc knows of; what a later one
/// adds may hold offsets, which would be wrong in a new file, and is left out.
#[derive(Debug, Default)]
struct Extension<'a> {
    byte_order: u8,
    /// What wrote the cache, as text.
    generator: &'a [u8],
    /// The names of directories in `glibc-hwcaps`, which entries refer to by their index: offsets
    /// behind the beginning of the strings.
    hwcaps: Vec<usize>,
}

const MAGIC: u32 = 0xeaa4_2174;
const SECTION: usize = 16;
const GENERATOR: u32 = 0;
const HWCAPS: u32 = 1;

impl<'a> Extension<'a> {
    fn of(table: &Table<'a>) -> Result<Self> {
        let mut this = Self::default();
        if table.width != WIDTH {
            return Ok(this);
        }
        this.byte_order = table.data.get(28).copied().unwrap_or(0);
        let at = u32_at(table.data, 32).unwrap_or(0) as usize;
        // As the linker: what has not this magic is not an extension.
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

/// The offsets of the names in a section of `glibc-hwcaps`. The linker believes them.
fn names(table: &Table<'_>, section: &[u8]) -> Result<Vec<usize>> {
    let name = |bytes: &[u8]| {
        let at = table.string_at(bytes, 0)?;
        table.text(at).map(|_| at)
    };
    section.chunks_exact(4).map(|bytes| name(bytes).ok_or_else(damaged)).collect()
}

/// A number of 32 bits, as all of the cache are.
fn number(number: usize) -> Result<[u8; 4]> {
    u32::try_from(number)
        .map(u32::to_le_bytes)
        .map_err(|_| Error::new("ld.so.cache would be too large"))
}

#[cfg(test)]
mod tests;
