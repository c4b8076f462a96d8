//! Metadata blocks: all tables are chains of them. Each has a header of two bytes, whose lower 15
//! bits are the size of what follows, and whose highest bit says that it is uncompressed.

use crate::error::{Error, Result};
use crate::squashfs::compression::Compression;
use crate::squashfs::compressor::BlockCompressor;

/// Size in bytes of what a block holds when it is uncompressed; only the last one holds less.
pub const BLOCK: usize = 8192;

/// Bit of a header: the block is uncompressed.
const PLAIN: u16 = 0x8000;

/// A chain that grows.
pub struct Chain {
    compressor: BlockCompressor,
    /// Finished blocks with their headers.
    bytes: Vec<u8>,
    /// Position in `bytes` of each.
    starts: Vec<u32>,
    /// The block that is filled.
    block: Vec<u8>,
    scratch: Box<[u8]>,
}

/// A chain that is complete.
pub struct Finished {
    /// All blocks with their headers.
    pub bytes: Vec<u8>,
    /// Position in `bytes` of each.
    pub starts: Vec<u32>,
}

/// Position in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start of the chain to the header of the block.
    pub block: u32,
    /// Bytes in the uncompressed block.
    pub offset: u16,
}

impl Place {
    /// As inodes and attributes are referred to.
    pub fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

impl From<u64> for Place {
    fn from(reference: u64) -> Self {
        Self { block: (reference >> 16) as u32, offset: reference as u16 }
    }
}

impl Chain {
    pub fn new(compression: Compression) -> Result<Self> {
        Ok(Self {
            compressor: BlockCompressor::new(compression)?,
            bytes: Vec::new(),
            starts: Vec::new(),
            block: Vec::with_capacity(BLOCK),
            scratch: vec![0; BlockCompressor::bound(BLOCK)].into(),
        })
    }

    /// Position of the next byte.
    pub fn place(&self) -> Result<Place> {
        let block = u32::try_from(self.bytes.len()).map_err(|_| too_large())?;
        let offset = u16::try_from(self.block.len()).map_err(|_| too_large())?;
        Ok(Place { block, offset })
    }

    /// Appends `bytes`, which may span blocks.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = BLOCK - self.block.len();
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.starts.push(u32::try_from(self.bytes.len()).map_err(|_| too_large())?);
        let compressed = self.compressor.compress(&self.block, &mut self.scratch);
        let compressed = compressed.and_then(|size| self.scratch.get(..size));
        let (bytes, plain) = compressed.map_or((&*self.block, PLAIN), |bytes| (bytes, 0));
        let size = u16::try_from(bytes.len()).map_err(|_| too_large())?;
        self.bytes.extend_from_slice(&(size | plain).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
        self.block.clear();
        Ok(())
    }

    pub fn finish(mut self) -> Result<Finished> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        Ok(Finished { bytes: self.bytes, starts: self.starts })
    }
}

#[cold]
fn too_large() -> Error {
    Error::new("a table has more than 4 GiB")
}
