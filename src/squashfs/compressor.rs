//! Compression of the blocks of an image.

use std::fmt;

use libdeflater::CompressionLvl;
use zstd_safe::CCtx;

use crate::error::{Error, Result};
use crate::squashfs::compression::Compression;

/// Compressor with its working memory, for one thread.
pub struct BlockCompressor {
    method: Method,
}

enum Method {
    Zstd(CCtx<'static>, i32),
    Gzip(libdeflater::Compressor),
    Lz4,
    None,
}

impl fmt::Debug for BlockCompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockCompressor")
    }
}

impl BlockCompressor {
    /// Allocates the working memory.
    ///
    /// # Errors
    /// There is not enough memory.
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
