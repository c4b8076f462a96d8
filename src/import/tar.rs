//! What a tar says: its members, and where in it their data lies. Start at [`TarEntries::next`].
//!
//! Understands old, ustar, GNU and PAX headers (`tar(5)`, `pax(1)`): long names and links, sizes
//! beyond 8 GiB, sparse files, names that are not UTF-8. All bytes are taken as hostile; file
//! data is passed over, never read.

mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use tar::{EntryType, Header};

use crate::bytes;
use crate::error::{Error, Result};
use crate::import::blob::{Blob, BlobReader};
use crate::squashfs::writer::Xattrs;
use pax::Pax;
pub use sparse::{Extent, Sparse};

/// A tar's unit: headers take one, data is padded to whole ones.
const BLOCK: u64 = 512;

/// Longest extension header: a name is at most 4 KiB, extended attributes 64 KiB each. Go's and so
/// Docker's reader has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;

/// How a tar is read: forwards, from wherever its bytes come.
pub trait TarInput {
    /// Reads into all of `buffer`, less only at the end of the tar.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Passes over `count` bytes.
    ///
    /// # Errors
    /// When the tar ends before, or cannot be read.
    fn skip(&mut self, count: u64) -> Result<()>;
}

/// A tar that lies plain in a file.
impl TarInput for BlobReader {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        bytes::fill(self, buffer)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        self.skip(count).map_err(|_| truncated())
    }
}

/// One file, directory or link of a tar.
#[derive(Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// As written, not normalised.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarEntryKind,
    /// Permissions, with set-id and sticky bits.
    pub mode: u16,
    /// Seconds since 1970, fractions cut off.
    pub mtime: i64,
    /// Extended attributes of the namespace `user.`, if any.
    pub xattrs: Option<Box<Xattrs>>,
}

/// What a [`TarEntry`] is.
#[derive(Debug, PartialEq, Eq)]
pub enum TarEntryKind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of this earlier member.
    Link(Vec<u8>),
    /// A character or block device.
    Device,
    /// A named pipe.
    Fifo,
}

/// Where the bytes of a file lie, as offsets in the tar.
#[derive(Debug, PartialEq, Eq)]
pub enum FileData {
    /// `length` bytes from `offset`.
    Plain {
        /// In bytes from the tar's beginning.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// Pieces between holes.
    Sparse(Box<Sparse>),
}

/// Reads the members of a tar one by one.
#[derive(Debug)]
pub struct TarEntries<T> {
    input: T,
    /// Where the next byte of `input` lies in the tar.
    position: u64,
    /// Where the next header lies.
    next: u64,
}

impl TarEntries<BlobReader> {
    /// The members of a plain tar.
    #[must_use]
    pub fn from_blob(blob: &Blob) -> Self {
        Self::new(blob.reader())
    }
}

impl<T: TarInput> TarEntries<T> {
    /// Reads a tar from its beginning.
    pub fn new(input: T) -> Self {
        Self { input, position: 0, next: 0 }
    }

    /// The next member, or nothing after the last: then all of the tar has been read, and what
    /// follows its end mark was zeros.
    ///
    /// # Errors
    /// When the tar is truncated, damaged, goes on after its end, or holds what no layer may hold.
    #[expect(clippy::should_implement_trait, reason = "fails, and borrows")]
    pub fn next(&mut self) -> Result<Option<TarEntry>> {
        let mut pax = Pax::default();
        let mut extended = false;
        loop {
            let Some(header) = self.header()? else {
                if extended {
                    return Err(truncated());
                }
                return Ok(None);
            };
            extended = true;
            match header.entry_type() {
                EntryType::GNULongName => pax.path = Some(self.long_name(&header)?),
                EntryType::GNULongLink => pax.linkpath = Some(self.long_name(&header)?),
                EntryType::XHeader => pax.read(&self.extension(&header)?)?,
                EntryType::XGlobalHeader => {
                    // Of no consequence in layers: `git archive` leaves a comment in it.
                    self.extension(&header)?;
                    extended = false;
                }
                _ => return self.entry(&header, pax).map(Some),
            }
        }
    }

    /// What the tar was read from.
    pub fn into_input(self) -> T {
        self.input
    }

    /// The next header that is not all zeros, checked.
    fn header(&mut self) -> Result<Option<Header>> {
        self.input.skip(self.next.saturating_sub(self.position))?;
        self.position = self.next;
        let mut header = Header::new_old();
        match self.fill(header.as_mut_bytes())? {
            0 => return Ok(None),
            BLOCK => {}
            _ if self.next == 0 => return Err(no_archive()),
            _ => return Err(truncated()),
        }
        if is_zero(header.as_bytes()) {
            self.end()?;
            return Ok(None);
        }
        let expected = number(&header.as_old().cksum);
        if !checksums(header.as_bytes()).map(Some).contains(&expected) {
            let at = self.next;
            if at == 0 {
                return Err(no_archive());
            }
            return Err(Error::new(format!("bad checksum of the tar header at byte {at}")));
        }
        self.next = self.position;
        Ok(Some(header))
    }

    /// Reads to the end: only zeros may follow the end mark.
    fn end(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let at = self.position;
            let count = self.fill(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if !buffer.get(..usize::try_from(count).unwrap_or(0)).is_some_and(is_zero) {
                return Err(Error::new(format!("the tar goes on after its end, at byte {at}")));
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let count = self.input.fill(buffer)? as u64;
        self.position += count;
        Ok(count)
    }

    /// Puts the next header behind `size` bytes of data.
    fn reserve(&mut self, size: u64) -> Result<()> {
        let end = size.checked_next_multiple_of(BLOCK).and_then(|size| self.next.checked_add(size));
        self.next = end.ok_or_else(|| Error::new("a size in the tar is out of range"))?;
        Ok(())
    }

    /// The content of a header that describes the member after it.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = size_of(header)?;
        if size > MAX_EXTENSION {
            return Err(Error::new(format!("an extension header of the tar has {size} bytes")));
        }
        self.reserve(size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if self.fill(&mut bytes)? < size {
            return Err(truncated());
        }
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn entry(&mut self, header: &Header, mut pax: Pax) -> Result<TarEntry> {
        let old = header.as_old();
        let path = pax.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let mode = number(&old.mode).unwrap_or(0) & 0o7777;
        let mtime = pax.mtime.unwrap_or_else(|| {
            // Ten or eleven octal digits, or 64 bits in two's complement before 1970.
            number(&old.mtime).unwrap_or(0).cast_signed()
        });
        let link = pax.linkpath.take();
        let link = || {
            link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .ok_or_else(|| Error::new("a link in the tar without a target"))
        };
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => match self.data(header, &mut pax)? {
                // Before POSIX a directory was a file whose name ends in a slash.
                _ if path.ends_with(b"/") => TarEntryKind::Directory,
                data => TarEntryKind::File(data),
            },
            EntryType::GNUSparse => TarEntryKind::File(self.gnu_sparse(header, &pax)?),
            // What has no data has none whatever its header claims, as in Go's reader.
            EntryType::Directory => TarEntryKind::Directory,
            EntryType::Symlink => TarEntryKind::Symlink(link()?),
            EntryType::Link => TarEntryKind::Link(link()?),
            EntryType::Char | EntryType::Block => TarEntryKind::Device,
            EntryType::Fifo => TarEntryKind::Fifo,
            other => {
                let (other, path) = (other.as_byte(), path.escape_ascii());
                return Err(Error::new(format!("{path}: unknown type {other} in the tar")));
            }
        };
        let path = pax.sparse_name.take().unwrap_or(path);
        let mode = u16::try_from(mode).unwrap_or(0);
        Ok(TarEntry { path, kind, mode, mtime, xattrs: pax.xattrs() })
    }

    fn data(&mut self, header: &Header, pax: &mut Pax) -> Result<FileData> {
        let length = pax.size.map_or_else(|| size_of(header), Ok)?;
        let offset = self.next;
        self.reserve(length)?;
        match pax.sparse_map(length)? {
            pax::Map::None => Ok(FileData::Plain { offset, length }),
            pax::Map::Given(map, real) => Ok(Sparse::new(&map, offset, length, real)?.into()),
            pax::Map::InData(real) => {
                let (map, used) = sparse::read_map(|block| Ok(self.fill(block)? == BLOCK))?;
                let stored = length.checked_sub(used).ok_or_else(truncated)?;
                Ok(Sparse::new(&map, offset + used, stored, real)?.into())
            }
        }
    }

    fn gnu_sparse(&mut self, header: &Header, pax: &Pax) -> Result<FileData> {
        let length = pax.size.map_or_else(|| size_of(header), Ok)?;
        let gnu = header.as_gnu().ok_or_else(|| Error::new("a sparse file without GNU header"))?;
        let more = gnu.is_extended();
        let map = sparse::old_map(&gnu.sparse, more, |block| {
            self.next += BLOCK;
            Ok(self.fill(block)? == BLOCK)
        })?;
        let real = number(&gnu.realsize).ok_or_else(sparse::bad)?;
        let offset = self.next;
        self.reserve(length)?;
        Ok(Sparse::new(&map, offset, length, real)?.into())
    }
}

/// Its very beginning says so: a text perhaps, or a file in a form that nobody here knows.
#[cold]
fn no_archive() -> Error {
    Error::new("it is no tar archive")
}

#[cold]
fn truncated() -> Error {
    Error::new("the tar is truncated")
}

fn size_of(header: &Header) -> Result<u64> {
    number(&header.as_old().size).ok_or_else(|| Error::new("a size in the tar is not a number"))
}

/// A number field: octal digits between blanks and zero bytes, none meaning 0; or, when the first
/// bit is set, two's complement with the highest byte first (GNU tar, star).
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let (high, low) = rest.split_last_chunk::<8>()?;
        let value = u64::from_be_bytes(*low);
        let fill = if first & 0x40 != 0 { 0xff } else { 0 };
        return high.iter().all(|byte| *byte == fill).then_some(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| blank(byte));
    let mut value: u64 = 0;
    for byte in digits.take_while(|byte| !blank(byte)) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value = value.checked_mul(8)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// The header's checksum, by unsigned bytes as POSIX says and by signed ones as old tars did it.
fn checksums(header: &[u8; 512]) -> [u64; 2] {
    let field = 148..156;
    let byte = |(at, byte): (usize, &u8)| if field.contains(&at) { b' ' } else { *byte };
    let unsigned = header.iter().enumerate().map(byte).map(u64::from).sum();
    let signed: i64 = header.iter().enumerate().map(byte).map(|b| i64::from(b.cast_signed())).sum();
    [unsigned, u64::try_from(signed).unwrap_or(unsigned)]
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
