//! The compressors that squashfs images are written with, and what the superblock says of them.

use backhand::compression::{CompressionOptions, Compressor, Lz4};
use backhand::{BackhandError, FilesystemCompressor};
use libdeflater::CompressionLvl;
use zstd_safe::CCtx;

use crate::error::{Error, Result};
use crate::squashfs::compression::Compression;

/// Describes `compression` to `backhand`, for the superblock.
pub fn superblock(compression: Compression) -> Result<FilesystemCompressor, BackhandError> {
    match compression {
        Compression::Zstd(_) => FilesystemCompressor::new(Compressor::Zstd, None),
        // Blocks that are stored as they are need no compressor, but the kernel requires one.
        Compression::Gzip(_) | Compression::None => {
            FilesystemCompressor::new(Compressor::Gzip, None)
        }
        Compression::Lz4 => {
            let options = CompressionOptions::Lz4(Lz4 { version: 1, flags: 0 });
            FilesystemCompressor::new(Compressor::Lz4, Some(options))
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
