//! A byte range of an open file: a layer, a manifest, the content of a file.
//!
//! Read by position, so that threads can share one descriptor. The bytes may still be arriving
//! ([`StreamingBlob`]): then a read waits for them. A blob is not trusted: its digest is checked by
//! its reader, or by the thread that downloads it.

mod streaming;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub use streaming::StreamingBlob;

use crate::error::{Cause, Error, Result};
use crate::image::digest::Hasher;

/// Size in bytes of buffers for reading and writing.
pub const CHUNK: usize = 256 << 10;

/// A range of bytes of a file.
#[derive(Debug, Clone)]
pub struct Blob {
    bytes: Bytes,
    offset: u64,
    length: u64,
}

#[derive(Debug, Clone)]
enum Bytes {
    File(Arc<File>),
    Streaming(Arc<StreamingBlob>),
}

impl Blob {
    /// The whole of a regular file.
    ///
    /// # Errors
    /// The error of fstat(2).
    pub fn from_file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self::prefix(&Arc::new(file), length))
    }

    /// The first `length` bytes of a file, which may turn out to be shorter.
    #[must_use]
    pub fn prefix(file: &Arc<File>, length: u64) -> Self {
        Self { bytes: Bytes::File(Arc::clone(file)), offset: 0, length }
    }

    /// The whole of a blob that is being downloaded.
    #[must_use]
    pub fn streaming(stream: &Arc<StreamingBlob>) -> Self {
        let length = stream.length();
        Self { bytes: Bytes::Streaming(Arc::clone(stream)), offset: 0, length }
    }

    /// Returns whether all bytes are available, so that no read waits.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.bytes {
            Bytes::File(_) => true,
            Bytes::Streaming(stream) => stream.is_complete(),
        }
    }

    /// Waits until all bytes are available, or the download has failed.
    pub fn wait(&self) {
        if let Bytes::Streaming(stream) = &self.bytes {
            stream.wait();
        }
    }

    /// The `length` bytes from `offset` on; `None` if this blob is shorter.
    #[must_use]
    pub fn slice(&self, offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| Self {
            bytes: self.bytes.clone(),
            offset: self.offset + offset,
            length,
        })
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads at `position`, and waits for bytes that have not arrived. Returns the number of bytes
    /// read, 0 at the end.
    ///
    /// # Errors
    /// The error of pread(2), or the reason why the bytes did not arrive.
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let position = self.offset + position;
        match &self.bytes {
            Bytes::File(file) => read_at(file, buffer, position),
            // Also called at the end, which is reached only when the digest has been verified.
            Bytes::Streaming(stream) => stream.read_at(buffer, position),
        }
    }

    /// Returns a reader of the whole blob.
    #[must_use]
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0 }
    }

    /// Reads the whole blob into memory, if its length is at most `limit` bytes.
    ///
    /// # Errors
    /// The blob is longer, its file is truncated, or cannot be read.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>> {
        if self.length > limit {
            let length = self.length;
            return Err(Error::new(format!("{length} bytes long, more than {limit}")));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).map_err(Cause::into_error)?;
        if bytes.len() as u64 != self.length {
            return Err(truncated());
        }
        Ok(bytes)
    }

    /// Feeds the whole blob to `hasher`, and calls `on_chunk` with the length of each chunk; its
    /// error stops the work.
    ///
    /// # Errors
    /// The file is truncated, cannot be read, or `on_chunk` failed.
    pub fn hash(
        &self,
        hasher: &mut Hasher,
        mut on_chunk: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        while position < self.length {
            let count = self.read_at(&mut buffer, position).map_err(Cause::into_error)?;
            if count == 0 {
                return Err(truncated());
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
            position += count as u64;
            on_chunk(count as u64)?;
        }
        Ok(())
    }
}

fn truncated() -> Error {
    Error::new("the file is truncated")
}

fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads a [`Blob`] from its start to its end.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    position: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl BlobReader {
    /// Number of bytes read or skipped.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Skips `count` bytes without reading them.
    ///
    /// # Errors
    /// `UnexpectedEof` if the blob is shorter.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        let position = self.position.checked_add(count);
        match position.filter(|position| *position <= self.blob.length) {
            Some(position) => self.position = position,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
impl Blob {
    /// A blob with these bytes, for tests.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let temp_dir = crate::import::temp::TempDir::new(&std::env::temp_dir()).unwrap();
        let mut temp_file = temp_dir.create_file().unwrap();
        temp_file.append(bytes).unwrap();
        temp_file.into_blob().unwrap()
    }
}
