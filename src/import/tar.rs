//! Tar reader: the entries of an archive, and the positions of their data. Start at
//! [`TarEntries::next`].
//!
//! Understands v7, ustar, GNU and PAX headers (`tar(5)`, `pax(1)`): long names and links, sizes
//! beyond 8 GiB, sparse files, names that are not UTF-8. All bytes are taken as hostile. File data
//! is skipped, not read.

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

/// Block size in bytes: a header is one block, data is padded to whole blocks.
const BLOCK: u64 = 512;

/// Maximum size in bytes of an extension header, as in the reader of Go, and so of Docker. A name has
/// at most 4 KiB, an extended attribute 64 KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// A forward-only byte source of a tar archive.
pub trait TarInput {
    /// Reads until `buffer` is full or the archive is at its end. Returns the number of bytes read.
    ///
    /// # Errors
    /// The source cannot be read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Skips `count` bytes.
    ///
    /// # Errors
    /// The archive is shorter, or cannot be read.
    fn skip(&mut self, count: u64) -> Result<()>;
}

/// An uncompressed archive in a file.
impl TarInput for BlobReader {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        bytes::fill(self, buffer)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        self.skip(count).map_err(|_| truncated())
    }
}

/// A file, directory or link of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Path as stored, not normalised.
    pub path: Vec<u8>,
    /// File type.
    pub kind: TarEntryKind,
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u16,
    /// Modification time in whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes of the namespace `user.`, if any.
    pub xattrs: Option<Box<Xattrs>>,
}

/// File type of a [`TarEntry`].
#[derive(Debug, PartialEq, Eq)]
pub enum TarEntryKind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A hard link, with the path of an earlier entry.
    Link(Vec<u8>),
    /// A character or block device.
    Device,
    /// A named pipe.
    Fifo,
}

/// Position of the content of a file in the archive.
#[derive(Debug, PartialEq, Eq)]
pub enum FileData {
    /// Content in one piece.
    Plain {
        /// Position in bytes from the start of the archive.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Content with holes.
    Sparse(Box<Sparse>),
}

/// Reads the entries of an archive one by one.
#[derive(Debug)]
pub struct TarEntries<T> {
    input: T,
    /// Position in the archive of the next byte of `input`.
    position: u64,
    /// Position of the next header.
    next: u64,
}

impl TarEntries<BlobReader> {
    /// Reads an uncompressed archive.
    #[must_use]
    pub fn from_blob(blob: &Blob) -> Self {
        Self::new(blob.reader())
    }
}

impl<T: TarInput> TarEntries<T> {
    /// Reads an archive from its start.
    pub fn new(input: T) -> Self {
        Self { input, position: 0, next: 0 }
    }

    /// Returns the next entry. `None` means that the archive was read to its end, with nothing but
    /// zeros after the end-of-archive marker.
    ///
    /// # Errors
    /// The archive is truncated or damaged, has data after its end, or entries of an unknown type.
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
                    // Ignored: layers have none but the comment of `git archive`.
                    self.extension(&header)?;
                    extended = false;
                }
                _ => return self.entry(&header, pax).map(Some),
            }
        }
    }

    /// Returns the source of the archive.
    pub fn into_input(self) -> T {
        self.input
    }

    /// Returns the next header, with a valid checksum; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        self.input.skip(self.next.saturating_sub(self.position))?;
        self.position = self.next;
        let mut header = Header::new_old();
        match self.fill(header.as_mut_bytes())? {
            0 => return Ok(None),
            BLOCK => {}
            _ if self.next == 0 => return Err(not_a_tar()),
            _ => return Err(truncated()),
        }
        if is_zero(header.as_bytes()) {
            self.read_padding()?;
            return Ok(None);
        }
        let expected = number(&header.as_old().cksum);
        if !checksums(header.as_bytes()).map(Some).contains(&expected) {
            let at = self.next;
            if at == 0 {
                return Err(not_a_tar());
            }
            return Err(Error::new(format!("bad checksum in the tar header at byte {at}")));
        }
        self.next = self.position;
        Ok(Some(header))
    }

    /// Reads to the end: only zeros may follow the end-of-archive marker.
    fn read_padding(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let at = self.position;
            let count = self.fill(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if !buffer.get(..usize::try_from(count).unwrap_or(0)).is_some_and(is_zero) {
                return Err(Error::new(format!(
                    "data after the end-of-archive marker at byte {at}"
                )));
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let count = self.input.fill(buffer)? as u64;
        self.position += count;
        Ok(count)
    }

    /// Sets the position of the next header: after `size` bytes of data and their padding.
    fn expect_data(&mut self, size: u64) -> Result<()> {
        let end = size.checked_next_multiple_of(BLOCK).and_then(|size| self.next.checked_add(size));
        self.next = end.ok_or_else(|| Error::new("size out of range in a tar header"))?;
        Ok(())
    }

    /// Reads an extension header, which describes the entry after it.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = size_of(header)?;
        if size > MAX_EXTENSION {
            return Err(Error::new(format!("tar extension header of {size} bytes")));
        }
        self.expect_data(size)?;
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
            // Octal digits; or, before 1970, 64 bits in two's complement.
            number(&old.mtime).unwrap_or(0).cast_signed()
        });
        let link = pax.linkpath.take();
        let link = || {
            link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .ok_or_else(|| Error::new("link without a target"))
        };
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => match self.data(header, &mut pax)? {
                // Before POSIX, a directory was a file whose name ends with a slash.
                _ if path.ends_with(b"/") => TarEntryKind::Directory,
                data => TarEntryKind::File(data),
            },
            EntryType::GNUSparse => TarEntryKind::File(self.gnu_sparse(header, &pax)?),
            // Entries of these types have no data, whatever size the header says, as in the reader
            // of Go.
            EntryType::Directory => TarEntryKind::Directory,
            EntryType::Symlink => TarEntryKind::Symlink(link()?),
            EntryType::Link => TarEntryKind::Link(link()?),
            EntryType::Char | EntryType::Block => TarEntryKind::Device,
            EntryType::Fifo => TarEntryKind::Fifo,
            other => {
                let (path, kind) = (path.escape_ascii(), other.as_byte().escape_ascii());
                return Err(Error::new(format!("{path}: unknown tar entry type '{kind}'")));
            }
        };
        let path = pax.sparse_name.take().unwrap_or(path);
        let mode = u16::try_from(mode).unwrap_or(0);
        Ok(TarEntry { path, kind, mode, mtime, xattrs: pax.xattrs() })
    }

    fn data(&mut self, header: &Header, pax: &mut Pax) -> Result<FileData> {
        let length = pax.size.map_or_else(|| size_of(header), Ok)?;
        let offset = self.next;
        self.expect_data(length)?;
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
        let gnu =
            header.as_gnu().ok_or_else(|| Error::new("sparse file without a GNU tar header"))?;
        let more = gnu.is_extended();
        let map = sparse::old_map(&gnu.sparse, more, |block| {
            self.next += BLOCK;
            Ok(self.fill(block)? == BLOCK)
        })?;
        let real = number(&gnu.realsize).ok_or_else(sparse::bad)?;
        let offset = self.next;
        self.expect_data(length)?;
        Ok(Sparse::new(&map, offset, length, real)?.into())
    }
}

/// The error for an invalid first header: the file is no archive at all.
#[cold]
fn not_a_tar() -> Error {
    Error::new("not a tar archive")
}

/// The error for an archive that ends within an entry.
#[cold]
pub fn truncated() -> Error {
    Error::new("truncated tar archive")
}

fn size_of(header: &Header) -> Result<u64> {
    number(&header.as_old().size).ok_or_else(|| Error::new("invalid size in a tar header"))
}

/// Parses a number field: octal digits between blanks and zero bytes, where no digit means 0; or, if
/// the first bit is set, a big-endian number in two's complement (GNU tar, star).
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

/// Returns the checksum of a header as the sum of unsigned bytes, which POSIX demands, and as the sum
/// of signed bytes, which old programs wrote.
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
