//! Compressors that squashfs images are written with, and their ids and options in the superblock.

use std::fmt;

use libdeflater::CompressionLvl;
use zstd_safe::CCtx;

use crate::error::{Error, Result};

/// Compressor of the blocks of an image, with a level that [`Compression::new`] has checked.
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

    /// Id of the compressor in the superblock.
    pub(super) fn id(self) -> u16 {
        match self {
            // Blocks that are stored as they are need no compressor, but the kernel wants one.
            Self::Gzip(_) | Self::None => 1,
            Self::Lz4 => 5,
            Self::Zstd(_) => 6,
        }
    }

    /// Compressor options that follow the superblock, as a metadata block. lz4 alone must have them:
    /// version 1, no flags (`struct lz4_comp_opts` in the kernel's `lz4_wrapper.c`).
    pub(super) fn options(self) -> &'static [u8] {
        match self {
            Self::Lz4 => &[8, 0x80, 1, 0, 0, 0, 0, 0, 0, 0],
            _ => &[],
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

/// Compressor with its working memory, for one thread.
pub struct Compressor {
    method: Method,
}

enum Method {
    Zstd(CCtx<'static>, i32),
    Gzip(libdeflater::Compressor),
    Lz4,
    None,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// Allocates the working memory.
    ///
    /// # Errors
    /// When there is not enough memory.
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
        Ok(Self { method })
    }

    /// Size in bytes that a buffer for the result needs: no compressor of these exceeds the bound of
    /// lz4.
    #[must_use]
    pub fn bound(size: usize) -> usize {
        lz4_flex::block::get_maximum_output_size(size)
    }

    /// Compresses `raw` to the start of `to`, which has the [`bound`](Self::bound) of its size, and
    /// returns the size of the result; none if it is not smaller than `raw`.
    pub fn compress(&mut self, raw: &[u8], to: &mut [u8]) -> Option<usize> {
        let size = match &mut self.method {
            Method::Zstd(context, level) => context.compress(to, raw, *level).ok(),
            Method::Gzip(compressor) => compressor.zlib_compress(raw, to).ok(),
            Method::Lz4 => lz4_flex::block::compress_into(raw, to).ok(),
            Method::None => None,
        };
        size.filter(|size| *size < raw.len())
    }
}
