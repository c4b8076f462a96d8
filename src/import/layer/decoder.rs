//! Decompression of layers, told by magic number: gzip (RFC 1952) and zstd (RFC 8878), streaming.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::error::{Context, Error, Result};
use crate::image::digest::{Hasher, HashingReader};
use crate::import::blob::{Blob, BlobReader};

/// Largest zstd window, as log2 of its bytes: what `zstd -d` takes without `--long`.
pub(super) const MAX_WINDOW_LOG: u32 = 27;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Zstd,
}

impl Codec {
    /// Looks at the first bytes of `blob`.
    pub fn detect(blob: &Blob) -> Result<Self> {
        let mut magic = [0; 6];
        crate::bytes::fill(&mut blob.reader(), &mut magic)?;
        match magic {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            // A skippable frame, as zstd:chunked and pzstd may begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(unknown("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(unknown("xz")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(unknown("lz4")),
            _ => Ok(Self::None),
        }
    }
}

#[cold]
fn unknown(name: &str) -> Error {
    Error::new(format!("compressed by {name}; only gzip and zstd are known"))
}

type Input = BufReader<HashingReader<BlobReader>>;

/// What comes out of a compressed blob. Reading to the end also reads all of the blob.
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
    /// zstd frames may refer back as far as 2 to the power of `window_log`.
    pub fn new(reader: HashingReader<BlobReader>, codec: Codec, window_log: u32) -> Result<Self> {
        let input = BufReader::with_capacity(crate::import::blob::CHUNK, reader);
        let input = match codec {
            Codec::None => Format::Plain(input),
            Codec::Gzip => Format::Gzip(Gzip::Member(Box::new(GzDecoder::new(input)))),
            Codec::Zstd => Format::Zstd(Zstd::new(input, window_log)?),
        };
        Ok(Self { input, length: 0 })
    }

    /// How many bytes of the blob have been taken.
    pub fn consumed(&mut self) -> u64 {
        match self.source() {
            Some(input) => input.get_mut().get_mut().position(),
            None => self.length,
        }
    }

    /// The hash of the blob, when it was asked for.
    pub fn take_hasher(&mut self) -> Option<Hasher> {
        self.source()?.get_mut().take_hasher()
    }

    fn source(&mut self) -> Option<&mut Input> {
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

/// Members one after the other, then maybe zeros: `tar` pads what it writes to tapes.
enum Gzip {
    Member(Box<GzDecoder<Input>>),
    End(Input),
    /// Only while one member's decoder is exchanged for the next.
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
            return Err(io::Error::other("garbage follows the gzip data"));
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
    /// Not at the end of a frame.
    within: bool,
}

impl Zstd {
    fn new(input: Input, window_log: u32) -> Result<Self> {
        let mut context = DCtx::try_create().ok_or_else(|| Error::new("not enough memory"))?;
        context
            .set_parameter(DParameter::WindowLogMax(window_log))
            .map_err(|code| Error::new(zstd_safe::get_error_name(code)))?;
        Ok(Self { input, context, within: false })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let bytes = self.input.fill_buf()?;
            let ended = bytes.is_empty();
            if ended && !self.within {
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
            self.within = left != 0;
            if written > 0 {
                return Ok(written);
            }
            if ended && self.within {
                return Err(damaged("zstd", "it ends early"));
            }
        }
    }
}

fn damaged(format: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("damaged {format} data: {error}"))
}

/// At least how much temporary space `blob` takes when inflated; the formats tell little, so it is
/// little more than a first look at a directory that is nearly full.
pub fn min_decompressed_size(blob: &Blob, codec: Codec) -> Result<u64> {
    let length = blob.length();
    match codec {
        Codec::None => Ok(0),
        Codec::Zstd => Ok(length),
        Codec::Gzip => {
            // The last four bytes: the inflated length of the last member, modulo 4 GiB.
            let mut size = [0; 4];
            let end = length.saturating_sub(4);
            let count = blob.read_at(&mut size, end).context(|| "cannot read it".into())?;
            let size = if count == size.len() { u32::from_le_bytes(size).into() } else { 0 };
            // Deflate reaches 1032 to 1; more is no length, but padding.
            Ok(if size / 1032 <= length { length.max(size) } else { length })
        }
    }
}
