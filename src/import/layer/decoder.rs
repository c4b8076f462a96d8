//! Streaming decompression of layers: gzip (RFC 1952) and zstd (RFC 8878), by magic number.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::error::{Cause, Error, Result};
use crate::image::digest::{Hasher, HashingReader};
use crate::import::blob::{Blob, BlobReader};

/// Base-2 logarithm of the largest zstd window in bytes: the limit of `zstd -d` without `--long`.
pub(super) const MAX_WINDOW_LOG: u32 = 27;

/// Compression format of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Zstd,
}

impl Codec {
    /// Detects the format by the first bytes of `blob`.
    pub fn detect(blob: &Blob) -> Result<Self> {
        let mut magic = [0; 6];
        crate::bytes::fill(&mut blob.reader(), &mut magic)?;
        match magic {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            // A skippable frame: zstd:chunked and pzstd can start with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(unsupported("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(unsupported("xz")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(unsupported("lz4")),
            _ => Ok(Self::None),
        }
    }
}

#[cold]
fn unsupported(name: &str) -> Error {
    Error::new(format!("compressed with {name}: only gzip and zstd are supported"))
}

type Input = BufReader<HashingReader<BlobReader>>;

/// Decompressing reader. Reading to the end consumes the whole blob, which its digest needs.
pub struct Decoder {
    input: Format,
    length: u64,
}

enum Format {
    Gzip(Gzip),
    Zstd(Zstd),
    Plain(Input),
}

impl Decoder {
    /// Decompresses `reader`. `window_log` is the base-2 logarithm of the largest zstd window in bytes.
    pub fn new(reader: HashingReader<BlobReader>, codec: Codec, window_log: u32) -> Result<Self> {
        let input = BufReader::with_capacity(crate::import::blob::CHUNK, reader);
        let input = match codec {
            Codec::None => Format::Plain(input),
            Codec::Gzip => Format::Gzip(Gzip::Member(Box::new(GzDecoder::new(input)))),
            Codec::Zstd => Format::Zstd(Zstd::new(input, window_log)?),
        };
        Ok(Self { input, length: 0 })
    }

    /// Number of compressed bytes consumed.
    pub fn consumed(&mut self) -> u64 {
        match self.input() {
            Some(input) => input.get_mut().get_mut().position(),
            None => self.length,
        }
    }

    /// Returns the hasher of the compressed bytes, if they are hashed.
    pub fn take_hasher(&mut self) -> Option<Hasher> {
        self.input()?.get_mut().take_hasher()
    }

    fn input(&mut self) -> Option<&mut Input> {
        match &mut self.input {
            Format::Gzip(Gzip::Member(decoder)) => Some(decoder.get_mut()),
            Format::Gzip(Gzip::End(input)) | Format::Plain(input) => Some(input),
            Format::Gzip(Gzip::Between) => None,
            Format::Zstd(zstd) => Some(&mut zstd.input),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Format::Gzip(gzip) => gzip.read(buffer),
            Format::Zstd(zstd) => zstd.read(buffer),
            Format::Plain(input) => input.read(buffer),
        }
    }
}

/// Concatenated gzip members, maybe followed by zeros, as `tar` pads its output.
enum Gzip {
    Member(Box<GzDecoder<Input>>),
    End(Input),
    /// Placeholder while the decoder is replaced by that of the next member.
    Between,
}

impl Gzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Self::Member(decoder) = self {
            match decoder.read(buffer) {
                Ok(0) if !buffer.is_empty() => self.next_member()?,
                Err(error) => return Err(damaged("gzip", &error)),
                done => return done,
            }
        }
        Ok(0)
    }

    fn next_member(&mut self) -> io::Result<()> {
        let Self::Member(decoder) = std::mem::replace(self, Self::Between) else { return Ok(()) };
        let mut input = decoder.into_inner();
        *self = match input.fill_buf()? {
            [0x1f, ..] => Self::Member(Box::new(GzDecoder::new(input))),
            _ => {
                skip_zeros(&mut input)?;
                Self::End(input)
            }
        };
        Ok(())
    }
}

fn skip_zeros(input: &mut Input) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        let count = bytes.len();
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(io::Error::other("trailing garbage after the gzip data"));
        }
        if count == 0 {
            return Ok(());
        }
        input.consume(count);
    }
}

struct Zstd {
    input: Input,
    context: DCtx<'static>,
    /// A frame was started and not finished.
    in_frame: bool,
}

impl Zstd {
    fn new(input: Input, window_log: u32) -> Result<Self> {
        let mut context = DCtx::try_create().ok_or_else(|| Error::new("not enough memory"))?;
        context
            .set_parameter(DParameter::WindowLogMax(window_log))
            .map_err(|code| Error::new(zstd_safe::get_error_name(code)))?;
        Ok(Self { input, context, in_frame: false })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let bytes = self.input.fill_buf()?;
            let ended = bytes.is_empty();
            if ended && !self.in_frame {
                return Ok(0);
            }
            let mut from = InBuffer::around(bytes);
            let mut to = OutBuffer::around(&mut *buffer);
            let left = self
                .context
                .decompress_stream(&mut to, &mut from)
                .map_err(|code| damaged("zstd", zstd_safe::get_error_name(code)))?;
            let (read, written) = (from.pos(), to.pos());
            self.input.consume(read);
            self.in_frame = left != 0;
            if written > 0 {
                return Ok(written);
            }
            if ended && self.in_frame {
                return Err(damaged("zstd", "unexpected end of data"));
            }
        }
    }
}

fn damaged(format: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("damaged {format} data: {error}"))
}

/// Returns a lower bound for the decompressed size of `blob` in bytes: enough to find a temporary
/// directory that is nearly full, as the formats say little more.
pub fn min_decompressed_size(blob: &Blob, codec: Codec) -> Result<u64> {
    let length = blob.length();
    match codec {
        Codec::None => Ok(0),
        Codec::Zstd => Ok(length),
        Codec::Gzip => {
            // The last four bytes (ISIZE): decompressed size of the last member, modulo 4 GiB.
            let mut size = [0; 4];
            let end = length.saturating_sub(4);
            let count = blob.read_at(&mut size, end).map_err(Cause::into_error)?;
            let size = if count == size.len() { u32::from_le_bytes(size).into() } else { 0 };
            // Deflate compresses 1032 to 1 at most: a larger number is padding, not a size.
            Ok(if size / 1032 <= length { length.max(size) } else { length })
        }
    }
}
