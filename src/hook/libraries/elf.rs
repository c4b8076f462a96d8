//! Reads the dynamic section of a shared library: soname, needed libraries, symbol versions.
//!
//! The files come from images: every offset and count is checked, every size bounded, and no more than
//! the needed parts of a file are read. Only 64-bit little-endian files, as the machines that
//! containers run on. See elf(5).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{Context, Error, Result};

/// Maximum number of program headers. Libraries have about ten.
const MAX_SEGMENTS: u16 = 256;

/// Maximum size of the dynamic section in bytes. Linkers write some thirty entries of 16 bytes.
const MAX_DYNAMIC: u64 = 1 << 16;

/// Maximum length of a name in bytes.
const MAX_NAME: u64 = 512;

/// Maximum number of records about versions. The C library has under a hundred.
const MAX_VERSIONS: u32 = 4096;

/// Maximum memory in bytes for all names of a library, [`NAME`] for each included.
const MAX_NAMES: usize = 64 << 10;

/// Memory in bytes that a name in a set or a list takes beside its text.
const NAME: usize = 40;

/// Maximum size in bytes of the segment with the text of the C library, which has 2 MB in all.
const MAX_TEXT: u64 = 8 << 20;

/// The dynamic section of a shared library or program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedObject {
    /// `DT_SONAME`, such as `libm.so.6`.
    pub soname: Option<String>,
    /// Needed libraries: `DT_NEEDED`.
    pub needed: Vec<String>,
    /// Needed symbol versions of each library: `DT_VERNEED`.
    pub needed_versions: BTreeMap<String, BTreeSet<String>>,
    /// Defined symbol versions: `DT_VERDEF`.
    pub defined_versions: BTreeSet<String>,
    /// The dynamic linker, `PT_INTERP`, which only dynamically linked programs name.
    pub interpreter: Option<String>,
}

/// A file that is read by offset.
pub trait ReadAt {
    /// Reads exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// If the file is shorter, or cannot be read.
    fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        range
            .and_then(|(start, length)| self.get(start..start.checked_add(length)?))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Error::new("file too short"))
    }
}

impl ReadAt for OwnedFd {
    fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_READ);
        let mut bytes =
            vec![0; length.ok_or_else(|| Error::new("a part of the file is too large"))?];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(self.as_fd(), rest, offset.saturating_add(filled as u64)) {
                Ok(0) => return Err(Error::new("file too short")),
                Ok(count) => filled = filled.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context(|| "cannot read".into()),
            }
        }
        Ok(bytes)
    }
}

/// Maximum size of one read in bytes.
const MAX_READ: usize = MAX_TEXT as usize;

/// The machine that this program was built for: `e_machine`.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A program header, `Elf64_Phdr`.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

/// True if the file has the magic number of ELF; a linker script has not.
pub fn is_elf<S: ReadAt + ?Sized>(file: &S) -> bool {
    file.read_at(0, 4).is_ok_and(|magic| magic == b"\x7fELF")
}

/// Reads the dynamic section.
///
/// # Errors
/// If the file is not an ELF file for this machine, or is damaged.
pub fn read<S: ReadAt + ?Sized>(file: &S) -> Result<SharedObject> {
    let segments = segments(file)?;
    let mut library =
        SharedObject { interpreter: interpreter(file, &segments)?, ..SharedObject::default() };
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == DYNAMIC) else {
        return Ok(library);
    };
    if dynamic.size > MAX_DYNAMIC {
        return Err(Error::new("the dynamic section is too large"));
    }
    let entries: Vec<(u64, u64)> = file
        .read_at(dynamic.offset, dynamic.size & !15)?
        .chunks_exact(16)
        .map_while(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let value = |tag: u64| entries.iter().find(|(other, _)| *other == tag).map(|(_, value)| *value);
    let Some(strings) = value(tag::STRTAB) else { return Ok(library) };
    let strings = Strings {
        file,
        offset: file_offset(&segments, strings)?,
        size: value(tag::STRSZ).unwrap_or(0),
        left: Cell::new(MAX_NAMES),
    };
    library.soname = value(tag::SONAME).map(|at| strings.at(at)).transpose()?;
    for (_, at) in entries.iter().filter(|(tag, _)| *tag == tag::NEEDED) {
        library.needed.push(strings.at(*at)?);
    }
    if let Some(address) = value(tag::VERNEED) {
        let at = file_offset(&segments, address)?;
        library.needed_versions =
            needed_versions(&strings, at, value(tag::VERNEEDNUM).unwrap_or(0))?;
    }
    if let Some(address) = value(tag::VERDEF) {
        let at = file_offset(&segments, address)?;
        library.defined_versions =
            defined_versions(&strings, at, value(tag::VERDEFNUM).unwrap_or(0))?;
    }
    Ok(library)
}

/// Tags of dynamic entries, as in `elf.h`.
mod tag {
    pub const NEEDED: u64 = 1;
    pub const STRTAB: u64 = 5;
    pub const STRSZ: u64 = 10;
    pub const SONAME: u64 = 14;
    pub const VERDEF: u64 = 0x6fff_fffc;
    pub const VERDEFNUM: u64 = 0x6fff_fffd;
    pub const VERNEED: u64 = 0x6fff_fffe;
    pub const VERNEEDNUM: u64 = 0x6fff_ffff;
}

fn segments<S: ReadAt + ?Sized>(file: &S) -> Result<Vec<Segment>> {
    let header = file.read_at(0, 64)?;
    if !header.starts_with(b"\x7fELF") {
        return Err(Error::new("not an ELF file"));
    }
    // Class 2 is 64-bit, data 1 little-endian, type 3 a shared object, type 2 a program.
    let kind = (header.get(4), header.get(5), u16_at(&header, 16), u16_at(&header, 18));
    if !matches!(kind, (Some(2), Some(1), Some(2 | 3), Some(MACHINE))) {
        return Err(Error::new("not for this kind of machine"));
    }
    let damaged = || Error::new("damaged ELF header");
    let offset = u64_at(&header, 32).ok_or_else(damaged)?;
    let (size, count) = (u16_at(&header, 54), u16_at(&header, 56));
    let (Some(56), Some(count)) = (size, count.filter(|count| *count <= MAX_SEGMENTS)) else {
        return Err(damaged());
    };
    let table = file.read_at(offset, u64::from(count) * 56)?;
    let segment = |bytes: &[u8]| {
        Some(Segment {
            kind: u32_at(bytes, 0)?,
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            size: u64_at(bytes, 32)?,
        })
    };
    Ok(table.chunks_exact(56).filter_map(segment).collect())
}

fn interpreter<S: ReadAt + ?Sized>(file: &S, segments: &[Segment]) -> Result<Option<String>> {
    let Some(segment) = segments.iter().find(|segment| segment.kind == INTERPRETER) else {
        return Ok(None);
    };
    let bytes = file.read_at(segment.offset, segment.size.min(MAX_NAME))?;
    Ok(Some(until_nul(&bytes)?))
}

/// The offset in the file of the bytes that are mapped at `address`.
fn file_offset(segments: &[Segment], address: u64) -> Result<u64> {
    let inside = |segment: &Segment| {
        let offset = address.checked_sub(segment.address)?;
        (segment.kind == LOAD && offset < segment.size)
            .then(|| segment.offset.checked_add(offset))?
    };
    let found = segments.iter().find_map(inside);
    found.ok_or_else(|| Error::new("damaged dynamic section"))
}

/// The string table.
struct Strings<'a, S: ?Sized> {
    file: &'a S,
    offset: u64,
    size: u64,
    /// The memory that is left for names.
    left: Cell<usize>,
}

impl<S: ReadAt + ?Sized> Strings<'_, S> {
    fn at(&self, index: u64) -> Result<String> {
        let left = self.size.checked_sub(index).filter(|left| *left > 0);
        let offset = self.offset.checked_add(index);
        let (Some(left), Some(offset)) = (left, offset) else {
            return Err(Error::new("a name outside of the string table"));
        };
        let name = until_nul(&self.file.read_at(offset, left.min(MAX_NAME))?)?;
        let left = self.left.get().checked_sub(name.len() + NAME);
        self.left.set(left.ok_or_else(|| Error::new("too many names"))?);
        Ok(name)
    }
}

fn until_nul(bytes: &[u8]) -> Result<String> {
    let name = bytes.split(|byte| *byte == 0).next().filter(|name| name.len() < bytes.len());
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    name.map(str::to_owned).ok_or_else(|| Error::new("a damaged name"))
}

/// A chain of records, each with the offset of the next one.
struct Chain<'a, S: ?Sized> {
    strings: &'a Strings<'a, S>,
    /// Records that may still be read, in all chains: chains may cross each other.
    left: u32,
}

impl<S: ReadAt + ?Sized> Chain<'_, S> {
    /// Reads the record of `size` bytes at offset `at`.
    fn record(&mut self, at: u64, size: u64) -> Result<Vec<u8>> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| Error::new("too many versions"))?;
        self.strings.file.read_at(at, size)
    }
}

fn step(at: u64, by: Option<u32>) -> Result<u64> {
    by.and_then(|by| at.checked_add(by.into())).ok_or_else(|| Error::new("damaged versions"))
}

/// `Elf64_Verneed`: version, count, file, first, next; `Elf64_Vernaux`: hash, flags, index, name, next.
fn needed_versions<S: ReadAt + ?Sized>(
    strings: &Strings<'_, S>,
    mut at: u64,
    count: u64,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut chain = Chain { strings, left: MAX_VERSIONS };
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..count {
        let need = chain.record(at, 16)?;
        let file = strings.at(u32_at(&need, 4).unwrap_or(u32::MAX).into())?;
        let versions = all.entry(file).or_default();
        let mut inner = step(at, u32_at(&need, 8))?;
        for _ in 0..u16_at(&need, 2).unwrap_or(0) {
            let version = chain.record(inner, 16)?;
            versions.insert(strings.at(u32_at(&version, 8).unwrap_or(u32::MAX).into())?);
            inner = step(inner, u32_at(&version, 12))?;
        }
        match u32_at(&need, 12) {
            Some(0) => break,
            next => at = step(at, next)?,
        }
    }
    Ok(all)
}

/// `Elf64_Verdef`: version, flags, index, count, hash, first, next; `Elf64_Verdaux`: name, next.
fn defined_versions<S: ReadAt + ?Sized>(
    strings: &Strings<'_, S>,
    mut at: u64,
    count: u64,
) -> Result<BTreeSet<String>> {
    let mut chain = Chain { strings, left: MAX_VERSIONS };
    let mut all = BTreeSet::new();
    for _ in 0..count {
        let definition = chain.record(at, 20)?;
        // The first name is the version's own, the others are versions that it extends.
        let name = chain.record(step(at, u32_at(&definition, 12))?, 8)?;
        all.insert(strings.at(u32_at(&name, 0).unwrap_or(u32::MAX).into())?);
        match u32_at(&definition, 16) {
            Some(0) => break,
            next => at = step(at, next)?,
        }
    }
    Ok(all)
}

/// The version of the GNU C Library in `file`, such as `(2, 36)`: from the line that the library prints
/// when it is executed, else the highest version that it defines.
///
/// # Errors
/// If the file is not such a library.
pub fn glibc_version<S: ReadAt + ?Sized>(file: &S, library: &SharedObject) -> Result<(u32, u32)> {
    for segment in segments(file)? {
        if segment.kind == LOAD
            && let Ok(text) = file.read_at(segment.offset, segment.size.min(MAX_TEXT))
            && let Some(version) = banner(&text)
        {
            return Ok(version);
        }
    }
    let highest =
        library.defined_versions.iter().filter_map(|name| number(name.strip_prefix("GLIBC_")?));
    highest.max().ok_or_else(|| Error::new("not the GNU C Library"))
}

/// The version behind `GNU C Library ... version `.
fn banner(text: &[u8]) -> Option<(u32, u32)> {
    const BEGIN: &[u8] = b"GNU C Library ";
    /// Maximum length of the line in bytes. The name of the packager stands in between.
    const LONGEST: usize = 256;
    let mut line = text;
    // From one G to the next, which is faster than comparing at each of two million bytes.
    while !line.starts_with(BEGIN) {
        let next = line.get(1..)?;
        line = next.get(next.iter().position(|byte| *byte == b'G')?..)?;
    }
    let line = line.get(..line.len().min(LONGEST))?;
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n' || *byte == 0).next()?);
    number(line.split_once("version ")?.1)
}

/// Reads a version such as `2.36`, up to the first letter that is not a digit.
fn number(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..end)?.parse().ok()?))
}

#[cfg(test)]
mod tests;
