//! A range of bytes in an open file: where a layer, a manifest or a file's content lies.
//!
//! Read by position, so that threads share one descriptor. A blob may still be on its way
//! ([`StreamingBlob`]): then who reads it waits for the bytes. Nothing here is believed: who reads a blob
//! checks its digest, or who brings it does.

mod streaming;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub use streaming::StreamingBlob;

use crate::error::{Context, Error, Result};

/// `length` bytes of a file, from `offset`.
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
    /// All of a regular file.
    ///
    /// # Errors
    /// When the file cannot be examined.
    pub fn from_file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { bytes: Bytes::File(Arc::new(file)), offset: 0, length })
    }

    /// All of what is on its way.
    #[must_use]
    pub fn streaming(stream: &Arc<StreamingBlob>) -> Self {
        let length = stream.length();
        Self { bytes: Bytes::Streaming(Arc::clone(stream)), offset: 0, length }
    }

    /// Whether all of it is here: reading will not wait.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.bytes {
            Bytes::File(_) => true,
            Bytes::Streaming(stream) => stream.is_complete(),
        }
    }

    /// Waits until all of it is here, or will not be.
    pub fn wait(&self) {
        if let Bytes::Streaming(stream) = &self.bytes {
            stream.wait();
        }
    }

    /// The part from `offset`, `length` bytes long, or nothing where this blob is shorter.
    #[must_use]
    pub fn slice(&self, offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| Self {
            bytes: self.bytes.clone(),
            offset: self.offset + offset,
            length,
        })
    }

    /// In bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads at `position`; 0 bytes mean the blob's end. Waits for bytes that are on their way.
    ///
    /// # Errors
    /// What the kernel answers, or why the bytes did not arrive.
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let position = self.offset + position;
        match &self.bytes {
            Bytes::File(file) => read_at(file, buffer, position),
            // At the end too: it is reached only when all has proved right.
            Bytes::Streaming(stream) => stream.read_at(buffer, position),
        }
    }

    /// Reads it all from its beginning.
    #[must_use]
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0 }
    }

    /// All of it in memory, if it is not longer than `limit` bytes.
    ///
    /// # Errors
    /// When it is longer, shorter than it should be, or cannot be read.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>> {
        if self.length > limit {
            let length = self.length;
            return Err(Error::new(format!("{length} bytes long, more than {limit}")));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).context(|| "cannot read it".into())?;
        if bytes.len() as u64 != self.length {
            return Err(Error::new("the file ends early"));
        }
        Ok(bytes)
    }
}

fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads a [`Blob`] from its beginning to its end.
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
    /// How much has been read or passed over.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Passes over `count` bytes without reading them.
    ///
    /// # Errors
    /// When the blob ends before.
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
    /// A blob of these bytes, for tests.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let temp_dir = crate::import::temp::TempDir::new(&std::env::temp_dir()).unwrap();
        let mut temp_file = temp_dir.create_file().unwrap();
        temp_file.append(bytes).unwrap();
        temp_file.into_blob().unwrap()
    }
}
