//! Reads of a shared library what the dynamic linker would: its name, what it needs and offers.
//!
//! The files come from images, so nothing in them is believed: every offset and count is checked,
//! every size bounded, and only what is needed is read, whatever the size of the file. 64-bit
//! little-endian only, as the machines that containers run on. See elf(5).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{Context, Error, Result};

/// As many program headers as any library has, many times over.
const MAX_SEGMENTS: u16 = 256;

/// Linkers write some thirty entries of 16 bytes.
const MAX_DYNAMIC: u64 = 1 << 16;

/// Symbols and file names are shorter.
const MAX_NAME: u64 = 512;

/// Versions and libraries: the C library of a machine has under a hundred.
const MAX_VERSIONS: u32 = 4096;

/// Maximum size in bytes of all names of a library, with what it takes to keep each.
const MAX_NAMES: usize = 64 << 10;

/// Memory in bytes that a name takes beside its text, in a set or a list.
const NAME: usize = 40;

/// Where the C library keeps its text: it has 2 MB in all.
const MAX_TEXT: u64 = 8 << 20;

/// A library, as far as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Library {
    /// What programs call it, `libm.so.6`.
    pub soname: Option<String>,
    /// The libraries that it needs.
    pub needed: Vec<String>,
    /// The versions that it needs of each of them.
    pub wants: BTreeMap<String, BTreeSet<String>>,
    /// The versions that it offers.
    pub offers: BTreeSet<String>,
    /// The program that starts it, if it is one: only programs that are linked dynamically have it.
    pub interpreter: Option<String>,
}

/// Where bytes of a file come from.
pub trait Source {
    /// Exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// When the file is shorter.
    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>>;
}

impl Source for [u8] {
    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        range
            .and_then(|(start, length)| self.get(start..start.checked_add(length)?))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Error::new("it ends too early"))
    }
}

impl Source for OwnedFd {
    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_READ);
        let mut bytes = vec![0; length.ok_or_else(|| Error::new("a part of it is too large"))?];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(self.as_fd(), rest, offset.saturating_add(filled as u64)) {
                Ok(0) => return Err(Error::new("it ends too early")),
                Ok(count) => filled = filled.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context(|| "cannot read it".into()),
            }
        }
        Ok(bytes)
    }
}

/// Nothing that is read at once is larger.
const MAX_READ: usize = MAX_TEXT as usize;

/// The machine that this program was built for, as ELF headers call it.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A part of the file that is mapped to memory.
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

/// Whether the file is an ELF file at all; a linker script or a text is none.
pub fn is_elf<S: Source + ?Sized>(file: &S) -> bool {
    file.bytes(0, 4).is_ok_and(|magic| magic == b"\x7fELF")
}

/// Reads what the dynamic section tells.
///
/// # Errors
/// When it is no shared library for this machine, or a damaged one.
pub fn read<S: Source + ?Sized>(file: &S) -> Result<Library> {
    let segments = segments(file)?;
    let mut library = Library { interpreter: interpreter(file, &segments)?, ..Library::default() };
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == DYNAMIC) else {
        return Ok(library);
    };
    if dynamic.size > MAX_DYNAMIC {
        return Err(Error::new("its dynamic section is too large"));
    }
    let entries: Vec<(u64, u64)> = file
        .bytes(dynamic.offset, dynamic.size & !15)?
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
        library.wants = wants(&strings, at, value(tag::VERNEEDNUM).unwrap_or(0))?;
    }
    if let Some(address) = value(tag::VERDEF) {
        let at = file_offset(&segments, address)?;
        library.offers = offers(&strings, at, value(tag::VERDEFNUM).unwrap_or(0))?;
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

fn segments<S: Source + ?Sized>(file: &S) -> Result<Vec<Segment>> {
    let header = file.bytes(0, 64)?;
    if !header.starts_with(b"\x7fELF") {
        return Err(Error::new("it is no ELF file"));
    }
    // Class 2 is 64-bit, data 1 little-endian, type 3 a shared object, type 2 a program.
    let kind = (header.get(4), header.get(5), u16_at(&header, 16), u16_at(&header, 18));
    if !matches!(kind, (Some(2), Some(1), Some(2 | 3), Some(MACHINE))) {
        return Err(Error::new("it is not for this kind of machine"));
    }
    let damaged = || Error::new("its header is damaged");
    let offset = u64_at(&header, 32).ok_or_else(damaged)?;
    let (size, count) = (u16_at(&header, 54), u16_at(&header, 56));
    let (Some(56), Some(count)) = (size, count.filter(|count| *count <= MAX_SEGMENTS)) else {
        return Err(damaged());
    };
    let table = file.bytes(offset, u64::from(count) * 56)?;
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

fn interpreter<S: Source + ?Sized>(file: &S, segments: &[Segment]) -> Result<Option<String>> {
    let Some(segment) = segments.iter().find(|segment| segment.kind == INTERPRETER) else {
        return Ok(None);
    };
    let bytes = file.bytes(segment.offset, segment.size.min(MAX_NAME))?;
    Ok(Some(until_nul(&bytes)?))
}

/// Where in the file the bytes lie that will be at `address`.
fn file_offset(segments: &[Segment], address: u64) -> Result<u64> {
    let inside = |segment: &Segment| {
        let offset = address.checked_sub(segment.address)?;
        (segment.kind == LOAD && offset < segment.size)
            .then(|| segment.offset.checked_add(offset))?
    };
    let found = segments.iter().find_map(inside);
    found.ok_or_else(|| Error::new("its dynamic section is damaged"))
}

/// The string table.
struct Strings<'a, S: ?Sized> {
    file: &'a S,
    offset: u64,
    size: u64,
    /// The memory that is left for names.
    left: Cell<usize>,
}

impl<S: Source + ?Sized> Strings<'_, S> {
    fn at(&self, index: u64) -> Result<String> {
        let left = self.size.checked_sub(index).filter(|left| *left > 0);
        let offset = self.offset.checked_add(index);
        let (Some(left), Some(offset)) = (left, offset) else {
            return Err(Error::new("a name lies outside of its string table"));
        };
        let name = until_nul(&self.file.bytes(offset, left.min(MAX_NAME))?)?;
        let left = self.left.get().checked_sub(name.len() + NAME);
        self.left.set(left.ok_or_else(|| Error::new("it has too many names"))?);
        Ok(name)
    }
}

fn until_nul(bytes: &[u8]) -> Result<String> {
    let name = bytes.split(|byte| *byte == 0).next().filter(|name| name.len() < bytes.len());
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    name.map(str::to_owned).ok_or_else(|| Error::new("a name in it is damaged"))
}

/// A chain of records, each telling where the next one is.
struct Chain<'a, S: ?Sized> {
    strings: &'a Strings<'a, S>,
    /// Over all chains of a file: they may cross each other.
    left: u32,
}

impl<S: Source + ?Sized> Chain<'_, S> {
    /// The record of `size` bytes at `at`.
    fn record(&mut self, at: u64, size: u64) -> Result<Vec<u8>> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| Error::new("it has too many versions"))?;
        self.strings.file.bytes(at, size)
    }
}

fn step(at: u64, by: Option<u32>) -> Result<u64> {
    by.and_then(|by| at.checked_add(by.into()))
        .ok_or_else(|| Error::new("its versions are damaged"))
}

/// `Elf64_Verneed`: version, count, file, first, next; `Elf64_Vernaux`: hash, flags, index, name, next.
fn wants<S: Source + ?Sized>(
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
fn offers<S: Source + ?Sized>(
    strings: &Strings<'_, S>,
    mut at: u64,
    count: u64,
) -> Result<BTreeSet<String>> {
    let mut chain = Chain { strings, left: MAX_VERSIONS };
    let mut all = BTreeSet::new();
    for _ in 0..count {
        let definition = chain.record(at, 20)?;
        // The first name is the version's own, the others are those that it goes on from.
        let name = chain.record(step(at, u32_at(&definition, 12))?, 8)?;
        all.insert(strings.at(u32_at(&name, 0).unwrap_or(u32::MAX).into())?);
        match u32_at(&definition, 16) {
            Some(0) => break,
            next => at = step(at, next)?,
        }
    }
    Ok(all)
}

/// The version of the GNU C Library that `file` says to be: `(2, 36)`. From the line that it prints
/// when it is executed, else the highest version that it offers.
///
/// # Errors
/// When it is no such library.
pub fn glibc_version<S: Source + ?Sized>(file: &S, library: &Library) -> Result<(u32, u32)> {
    for segment in segments(file)? {
        if segment.kind == LOAD
            && let Ok(text) = file.bytes(segment.offset, segment.size.min(MAX_TEXT))
            && let Some(version) = banner(&text)
        {
            return Ok(version);
        }
    }
    let highest = library.offers.iter().filter_map(|name| number(name.strip_prefix("GLIBC_")?));
    highest.max().ok_or_else(|| Error::new("it is no GNU C Library"))
}

/// The number behind `GNU C Library ... version `.
fn banner(text: &[u8]) -> Option<(u32, u32)> {
    const BEGIN: &[u8] = b"GNU C Library ";
    /// The name of the packager stands between.
    const LONGEST: usize = 256;
    let mut line = text;
    // A letter at a time, not a window: the library has two million bytes.
    while !line.starts_with(BEGIN) {
        let next = line.get(1..)?;
        line = next.get(next.iter().position(|byte| *byte == b'G')?..)?;
    }
    let line = line.get(..line.len().min(LONGEST))?;
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n' || *byte == 0).next()?);
    number(line.split_once("version ")?.1)
}

/// `2.36` and whatever follows that is no digit.
fn number(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..end)?.parse().ok()?))
}

#[cfg(test)]
mod tests;
