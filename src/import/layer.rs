//! A layer: a blob becomes a list of entries and a blob with the data of its files.
//!
//! A plain tar is read in place. A compressed one is decompressed once, into a temporary file without
//! a name, and hashed and parsed in the same pass. Start at [`expand_all`].

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

/// Maximum number of layers: Docker, bound by overlay file systems, has 128.
pub const MAX_LAYERS: usize = 1024;

/// Maximum size in bytes of a decompressed layer: stops a decompression bomb before it fills a large
/// file system.
const MAX_DECOMPRESSED: u64 = 1 << 40;

/// A layer that is open, but not yet read.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// Name of the layer in messages.
    pub name: String,
    /// Bytes of the layer, which may be compressed.
    pub blob: Blob,
    /// Digest to verify.
    pub expected: LayerDigest,
}

/// Digest of a layer, as its image gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerDigest {
    /// Digest of the blob as stored, from its descriptor.
    Blob(Digest),
    /// Digest of the uncompressed tar, from `diff_ids` of the image configuration.
    DiffId(Digest),
    /// Verified by [`StreamingBlob`](crate::import::blob::StreamingBlob), which cannot be read to the
    /// end otherwise.
    CheckedByStream,
}

impl LayerDigest {
    /// Digest that has to be verified here.
    fn digest(self) -> Option<Digest> {
        match self {
            Self::Blob(digest) | Self::DiffId(digest) => Some(digest),
            Self::CheckedByStream => None,
        }
    }
}

/// A layer that was read.
#[derive(Debug)]
pub struct Layer {
    /// Name of the layer in messages.
    pub name: String,
    /// Entries in the order of the tar.
    pub entries: Vec<LayerEntry>,
    /// Uncompressed tar, with the data of files.
    pub data: Blob,
    /// Digest of `data` that has to be verified before anything made from it may be used.
    pub deferred: Option<DeferredDigest>,
}

/// A digest check that is left for later, to run in parallel with compression.
#[derive(Debug, Clone)]
pub struct DeferredDigest {
    name: String,
    blob: Blob,
    expected: Digest,
}

impl DeferredDigest {
    /// Hashes the whole layer and compares the digest.
    ///
    /// # Errors
    /// The digests differ, or the layer cannot be read.
    pub fn check(&self) -> Result<()> {
        let context = || format!("cannot verify layer {}", self.name);
        let mut hasher = Hasher::default();
        self.blob.hash(&mut hasher, |_| Ok(())).context(context)?;
        hasher.check(self.expected).context(context)
    }
}

/// Decompresses and parses all layers of an image, `workers` at a time. `on_failure` is called as soon
/// as one fails, while others are still read.
///
/// # Errors
/// The failure that came first.
pub fn expand_all(
    layers: &[LayerBlob],
    temp_dir: &TempDir,
    workers: usize,
    meter: &Meter,
    on_failure: &(dyn Fn() + Sync),
) -> Result<Vec<Layer>> {
    if layers.len() > MAX_LAYERS {
        let count = layers.len();
        return Err(Error::new(format!("the image has {count} layers, more than {MAX_LAYERS}")));
    }
    // Layers that are being downloaded are skipped, since reading them would wait.
    let complete = layers.iter().filter(|layer| layer.blob.is_complete());
    let needed = complete.map(|layer| {
        let blob = &layer.blob;
        Codec::detect(blob)
            .and_then(|codec| decoder::min_decompressed_size(blob, codec))
            .context(|| format!("cannot read layer {}", layer.name))
    });
    let needed = needed.sum::<Result<u64>>()?;
    temp_dir.check_free_space(needed)?;
    let (budget, limiter) = (Budget::default(), MemoryLimiter::default());
    in_parallel(layers, workers, on_failure, |layer| {
        let expanded = expand(layer, temp_dir, &budget, &limiter, meter)
            .map_err(|error| error.or_kind(ErrorKind::Corrupt));
        // Waits for the digest, whose failure explains more than a malformed tar.
        if expanded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            layer.blob.wait();
        }
        expanded.context(|| format!("cannot read layer {}", layer.name))
    })
}

fn expand(
    layer: &LayerBlob,
    temp_dir: &TempDir,
    budget: &Budget,
    limiter: &MemoryLimiter,
    meter: &Meter,
) -> Result<Layer> {
    let name = layer.name.clone();
    let codec = Codec::detect(&layer.blob)?;
    if codec == Codec::None {
        let mut tar = TarEntries::from_blob(&layer.blob);
        let entries = entry::read(&mut tar, budget)?;
        meter.add(layer.blob.length());
        let deferred = layer.expected.digest().map(|expected| {
            let (name, blob) = (name.clone(), layer.blob.clone());
            DeferredDigest { name, blob, expected }
        });
        return Ok(Layer { name, entries, data: layer.blob.clone(), deferred });
    }
    let (blob, expected) = (&layer.blob, layer.expected);
    let permit = limiter.acquire(blob)?;
    let input =
        DecompressingInput::new(blob, Some(expected), codec, permit.window_log(), temp_dir, meter)?;
    let mut tar = TarEntries::new(input);
    let entries = entry::read(&mut tar, budget)?;
    let data = tar.into_input().finish(expected)?;
    Ok(Layer { name, entries, data, deferred: None })
}

/// Returns `blob` itself if it is not compressed, else its decompressed bytes in a temporary file.
///
/// # Errors
/// `blob` is damaged, or the temporary directory is full.
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

/// Decompresses a tar, and keeps it in a temporary file. Hashes what an image gives a digest of.
struct DecompressingInput<'a> {
    reader: Decoder,
    hasher: Option<Hasher>,
    temp_file: TempFile<'a>,
    meter: &'a Meter,
    /// Number of compressed bytes that the meter has counted.
    counted: u64,
    chunk: Box<[u8]>,
    /// Part of `chunk` that was decompressed and not yet taken.
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
            counted: 0,
            chunk: vec![0; CHUNK].into(),
            ready: 0..0,
        })
    }

    /// Decompresses the next chunk. Returns false at the end.
    fn refill(&mut self) -> Result<bool> {
        let count = bytes::fill(&mut self.reader, &mut self.chunk)?;
        self.ready = 0..count;
        let bytes = self.chunk.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.temp_file.append(bytes)?;
        if self.temp_file.length() > MAX_DECOMPRESSED {
            return Err(Error::new("decompresses to more than 1 TiB"));
        }
        let read = self.reader.consumed();
        self.meter.add(read - self.counted);
        self.counted = read;
        Ok(count > 0)
    }

    /// Returns the next bytes, at most `wanted`; none at the end.
    fn take(&mut self, wanted: usize) -> Result<&[u8]> {
        if self.ready.is_empty() && !self.refill()? {
            return Ok(&[]);
        }
        let start = self.ready.start;
        let end = start.saturating_add(wanted).min(self.ready.end);
        self.ready.start = end;
        Ok(self.chunk.get(start..end).unwrap_or_default())
    }

    /// Verifies the digest, after the tar was read to its end.
    fn finish(mut self, expected: LayerDigest) -> Result<Blob> {
        let hasher = match expected {
            LayerDigest::DiffId(_) => self.hasher.take(),
            LayerDigest::Blob(_) | LayerDigest::CheckedByStream => self.reader.take_hasher(),
        };
        if let Some(digest) = expected.digest() {
            hasher.ok_or_else(|| Error::new("the layer was not hashed"))?.check(digest)?;
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
                return Err(crate::import::tar::truncated());
            }
            count -= taken;
        }
        Ok(())
    }
}

/// Returns the entries of a tar, for tests of merging.
#[cfg(test)]
pub(crate) fn entries<T: TarInput>(tar: &mut TarEntries<T>) -> Result<Vec<LayerEntry>> {
    entry::read(tar, &Budget::default())
}
