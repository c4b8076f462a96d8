//! One layer: a blob becomes a list of entries and the place where their data lies.
//!
//! A plain tar is read in place; a compressed one is inflated once, to a temporary file without a
//! name, and hashed and parsed in the same pass. Start at [`expand_all`].

mod decoder;
mod entry;
mod memory;
#[cfg(test)]
mod tests;

pub use entry::{EntryKind, LayerEntry};

use crate::bytes;
use crate::cli::progress::Meter;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::{Digest, Hasher, HashingReader};
use crate::import::blob::{Blob, CHUNK};
use crate::import::tar::{TarEntries, TarInput};
use crate::import::temp::{TempDir, TempFile};
use crate::import::workers::in_parallel;
use decoder::{Codec, Decoder};
use entry::Budget;
use memory::MemoryLimiter;

/// Most layers of an image: overlay file systems, and so Docker, stop at 128.
pub const MAX_LAYERS: usize = 1024;

/// Longest inflated layer: stops a bomb before it fills a large file system.
const MAX_DECOMPRESSED: u64 = 1 << 40;

/// A layer as its source gives it: open, not yet read.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// How messages name it.
    pub name: String,
    /// As stored, maybe compressed.
    pub blob: Blob,
    /// What its bytes must be.
    pub expected: LayerDigest,
}

/// Which bytes of a layer the image vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerDigest {
    /// The blob as stored, by its descriptor.
    Blob(Digest),
    /// The tar in it, by the image configuration's `diff_ids`.
    DiffId(Digest),
    /// Those that an [`StreamingBlob`](crate::import::blob::StreamingBlob) lets be read to the end: checked there.
    CheckedByStream,
}

impl LayerDigest {
    /// What must be hashed here.
    fn digest(self) -> Option<Digest> {
        match self {
            Self::Blob(digest) | Self::DiffId(digest) => Some(digest),
            Self::CheckedByStream => None,
        }
    }
}

/// A layer that can be merged.
#[derive(Debug)]
pub struct Layer {
    /// How messages name it.
    pub name: String,
    /// In the order of the tar.
    pub entries: Vec<LayerEntry>,
    /// Where the data of files lies.
    pub data: Blob,
    /// What must still come true of `data` before anything made of it may be used.
    pub deferred: Option<DeferredDigest>,
}

/// A check that is left for later, when other work leaves a core idle.
#[derive(Debug, Clone)]
pub struct DeferredDigest {
    name: String,
    blob: Blob,
    expected: Digest,
}

impl DeferredDigest {
    /// Reads all of the layer and compares its digest.
    ///
    /// # Errors
    /// When they differ, or the layer cannot be read.
    pub fn check(&self) -> Result<()> {
        let context = || format!("cannot verify layer {}", self.name);
        let mut hasher = Hasher::default();
        self.blob.hash(&mut hasher, |_| Ok(())).context(context)?;
        hasher.check(self.expected).context(context)
    }
}

/// Expands all layers of an image, `workers` of them at a time. `failed` is called as soon as one
/// fails, while others are still read.
///
/// # Errors
/// Of the layer that failed first.
pub fn expand_all(
    sources: &[LayerBlob],
    temp_dir: &TempDir,
    workers: usize,
    meter: &Meter,
    failed: &(dyn Fn() + Sync),
) -> Result<Vec<Layer>> {
    if sources.len() > MAX_LAYERS {
        let count = sources.len();
        return Err(Error::new(format!("the image has {count} layers, more than {MAX_LAYERS}")));
    }
    // What is still on its way tells nothing, and would have to be waited for.
    let here = sources.iter().filter(|source| source.blob.is_complete());
    let needed = here.map(|source| {
        let blob = &source.blob;
        Codec::detect(blob)
            .and_then(|codec| decoder::min_decompressed_size(blob, codec))
            .context(|| format!("cannot read layer {}", source.name))
    });
    let needed = needed.sum::<Result<u64>>()?;
    temp_dir.check_free_space(needed)?;
    let (budget, limiter) = (Budget::default(), MemoryLimiter::default());
    in_parallel(sources, workers, failed, |source| {
        let expanded = expand(source, temp_dir, &budget, &limiter, meter)
            .map_err(|error| error.or_kind(ErrorKind::Corrupt));
        // A wrong digest, known when all bytes are here, explains more than a malformed tar.
        if expanded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            source.blob.wait();
        }
        expanded.context(|| format!("cannot read layer {}", source.name))
    })
}

fn expand(
    source: &LayerBlob,
    temp_dir: &TempDir,
    budget: &Budget,
    limiter: &MemoryLimiter,
    meter: &Meter,
) -> Result<Layer> {
    let name = source.name.clone();
    let codec = Codec::detect(&source.blob)?;
    if codec == Codec::None {
        let mut tar = TarEntries::from_blob(&source.blob);
        let entries = entry::read(&mut tar, budget)?;
        meter.add(source.blob.length());
        let deferred = source.expected.digest().map(|expected| {
            let (name, blob) = (name.clone(), source.blob.clone());
            DeferredDigest { name, blob, expected }
        });
        return Ok(Layer { name, entries, data: source.blob.clone(), deferred });
    }
    let (blob, expected) = (&source.blob, source.expected);
    let permit = limiter.acquire(blob)?;
    let input =
        DecompressingInput::new(blob, Some(expected), codec, permit.window_log(), temp_dir, meter)?;
    let mut tar = TarEntries::new(input);
    let entries = entry::read(&mut tar, budget)?;
    let data = tar.into_input().finish(expected)?;
    Ok(Layer { name, entries, data, deferred: None })
}

/// `blob` itself if it is plain, or what is compressed in it, in a temporary file.
///
/// # Errors
/// When it is damaged or the temporary space is full.
pub fn decompressed(blob: &Blob, temp_dir: &TempDir, meter: &Meter) -> Result<Blob> {
    let codec = Codec::detect(blob)?;
    if codec == Codec::None {
        return Ok(blob.clone());
    }
    temp_dir.check_free_space(decoder::min_decompressed_size(blob, codec)?)?;
    let most = decoder::MAX_WINDOW_LOG;
    let mut input = DecompressingInput::new(blob, None, codec, most, temp_dir, meter)?;
    while input.refill()? {}
    input.temp_file.into_blob()
}

/// A tar that comes out of a decompressor: what passes is hashed and kept.
struct DecompressingInput<'a> {
    reader: Decoder,
    hasher: Option<Hasher>,
    temp_file: TempFile<'a>,
    meter: &'a Meter,
    /// How much of the blob the meter has been told of.
    told: u64,
    chunk: Box<[u8]>,
    /// The part of `chunk` that was inflated and not yet taken.
    ready: std::ops::Range<usize>,
}

impl<'a> DecompressingInput<'a> {
    fn new(
        blob: &Blob,
        expected: Option<LayerDigest>,
        codec: Codec,
        window_log: u32,
        temp_dir: &'a TempDir,
        meter: &'a Meter,
    ) -> Result<Self> {
        let (reader, hasher) = match expected {
            Some(LayerDigest::Blob(_)) => (HashingReader::new(blob.reader()), None),
            Some(LayerDigest::DiffId(_)) => {
                (HashingReader::idle(blob.reader()), Some(Hasher::default()))
            }
            Some(LayerDigest::CheckedByStream) | None => (HashingReader::idle(blob.reader()), None),
        };
        Ok(Self {
            reader: Decoder::new(reader, codec, window_log)?,
            hasher,
            temp_file: temp_dir.create_file()?,
            meter,
            told: 0,
            chunk: vec![0; CHUNK].into(),
            ready: 0..0,
        })
    }

    /// Inflates the next chunk; false at the end.
    fn refill(&mut self) -> Result<bool> {
        let count = bytes::fill(&mut self.reader, &mut self.chunk)?;
        self.ready = 0..count;
        let bytes = self.chunk.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.temp_file.append(bytes)?;
        if self.temp_file.length() > MAX_DECOMPRESSED {
            return Err(Error::new("more than 1 TiB comes out of it"));
        }
        let read = self.reader.consumed();
        self.meter.add(read - self.told);
        self.told = read;
        Ok(count > 0)
    }

    /// The next bytes, at most `wanted`; none at the end.
    fn take(&mut self, wanted: usize) -> Result<&[u8]> {
        if self.ready.is_empty() && !self.refill()? {
            return Ok(&[]);
        }
        let start = self.ready.start;
        let end = start.saturating_add(wanted).min(self.ready.end);
        self.ready.start = end;
        Ok(self.chunk.get(start..end).unwrap_or_default())
    }

    /// Compares the digest, once the tar has been read to its end.
    fn finish(mut self, expected: LayerDigest) -> Result<Blob> {
        let hasher = match expected {
            LayerDigest::DiffId(_) => self.hasher.take(),
            LayerDigest::Blob(_) | LayerDigest::CheckedByStream => self.reader.take_hasher(),
        };
        if let Some(digest) = expected.digest() {
            hasher.ok_or_else(|| Error::new("it was not hashed"))?.check(digest)?;
        }
        self.temp_file.into_blob()
    }
}

impl TarInput for DecompressingInput<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let bytes = self.take(rest.len())?;
            if bytes.is_empty() {
                break;
            }
            rest.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            filled += bytes.len();
        }
        Ok(filled)
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let taken = self.take(usize::try_from(count).unwrap_or(usize::MAX))?.len() as u64;
            if taken == 0 {
                return Err(Error::new("the tar is truncated"));
            }
            count -= taken;
        }
        Ok(())
    }
}

/// The entries of a tar, for tests of what is made of them.
#[cfg(test)]
pub(crate) fn entries<T: TarInput>(tar: &mut TarEntries<T>) -> Result<Vec<LayerEntry>> {
    entry::read(tar, &Budget::default())
}
