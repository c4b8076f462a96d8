//! The compressors that squashfs images are written with, and what the superblock says of them.

use std::fmt;

use backhand::compression::{CompressionOptions, Compressor, Lz4};
use backhand::{BackhandError, FilesystemCompressor};
use libdeflater::CompressionLvl;
use zstd_safe::CCtx;

use crate::error::{Error, Result};

/// How the blocks of an image are compressed, within what `Compression::new` lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Needs Linux 4.14; small and fast to read. Level 1 to 22.
    Zstd(u32),
    /// Read by every kernel. Level 1 to 12.
    Gzip(u32),
    /// Needs Linux 3.19; fastest to read, a third larger.
    Lz4,
    /// As large as the files.
    None,
}

impl Default for Compression {
    /// Within 3 % of the size of `mksquashfs`'s gzip, and some 25 times cheaper to write.
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl Compression {
    /// By the names `zstd`, `gzip`, `lz4` and `none`, and a level where the compressor has them.
    ///
    /// # Errors
    /// Tells the names or levels that there are.
    pub fn new(name: &str, level: Option<u32>) -> Result<Self> {
        let within = |default, highest| match level.unwrap_or(default) {
            level if (1..=highest).contains(&level) => Ok(level),
            level => Err(Error::new(format!(
                "no {name} compression level {level}: choose 1 to {highest}"
            ))),
        };
        let without = |compression| match level {
            None => Ok(compression),
            Some(_) => Err(Error::new(format!("{name} compression has no levels"))),
        };
        match name {
            "zstd" => within(3, 22).map(Self::Zstd),
            "gzip" => within(6, 12).map(Self::Gzip),
            "lz4" => without(Self::Lz4),
            "none" => without(Self::None),
            _ => Err(Error::new(format!(
                "no compression named {name:?}: choose zstd, gzip, lz4 or none"
            ))),
        }
    }

    /// As it is written into the superblock.
    pub(super) fn superblock(self) -> Result<FilesystemCompressor, BackhandError> {
        match self {
            Self::Zstd(_) => FilesystemCompressor::new(Compressor::Zstd, None),
            // Blocks that are stored as they are need no compressor, but the kernel wants one.
            Self::Gzip(_) | Self::None => FilesystemCompressor::new(Compressor::Gzip, None),
            Self::Lz4 => {
                let options = CompressionOptions::Lz4(Lz4 { version: 1, flags: 0 });
                FilesystemCompressor::new(Compressor::Lz4, Some(options))
            }
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(level) => write!(f, "zstd level {level}"),
            Self::Gzip(level) => write!(f, "gzip level {level}"),
            Self::Lz4 => f.write_str("lz4"),
            Self::None => f.write_str("none"),
        }
    }
}

/// What follows the superblock of an lz4 image, which the kernel insists on: version 1, no flags, in
/// an uncompressed metadata block (`struct lz4_comp_opts` in the kernel's `lz4_wrapper.c`).
pub(super) const LZ4_OPTIONS: [u8; 10] = [8, 0x80, 1, 0, 0, 0, 0, 0, 0, 0];

/// A compressor with its working memory, for one thread.
pub struct Engine {
    method: Method,
    /// Large enough for any block's result.
    scratch: Box<[u8]>,
}

enum Method {
    Zstd(CCtx<'static>, i32),
    Gzip(libdeflater::Compressor),
    Lz4,
    None,
}

impl Engine {
    pub fn new(compression: Compression) -> Result<Self> {
        let method = match compression {
            Compression::Zstd(level) => {
                let context = CCtx::try_create().ok_or_else(|| Error::new("not enough memory"))?;
                Method::Zstd(context, level.cast_signed())
            }
            Compression::Gzip(level) => {
                let level = CompressionLvl::new(level.cast_signed())
                    .map_err(|_| Error::new(format!("no gzip compression level {level}")))?;
                Method::Gzip(libdeflater::Compressor::new(level))
            }
            Compression::Lz4 => Method::Lz4,
            Compression::None => Method::None,
        };
        let room = lz4_flex::block::get_maximum_output_size(super::BLOCK);
        Ok(Self { method, scratch: vec![0; room].into() })
    }

    /// The block compressed; or, if that does not make it smaller, something longer, which makes
    /// `backhand` store the block as it is.
    pub fn compress(&mut self, raw: &[u8]) -> Vec<u8> {
        let to = &mut *self.scratch;
        let size = match &mut self.method {
            Method::Zstd(context, level) => context.compress(to, raw, *level).ok(),
            Method::Gzip(compressor) => compressor.zlib_compress(raw, to).ok(),
            Method::Lz4 => lz4_flex::block::compress_into(raw, to).ok(),
            Method::None => None,
        };
        let smaller = size.filter(|size| *size < raw.len());
        match smaller.and_then(|size| self.scratch.get(..size)) {
            Some(compressed) => compressed.to_vec(),
            None => vec![0; raw.len() + 1],
        }
    }
}
