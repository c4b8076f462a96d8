//! One layer: a blob becomes a list of entries and the place where their data lies.
//!
//! A plain tar is read in place; a compressed one is inflated once, to a temporary file without a
//! name, and hashed and parsed in the same pass. Start at [`expand_all`].

mod entry;
mod inflate;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use entry::{Entry, What};

use crate::cli::progress::Meter;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::{Digest, Hasher, HashingReader};
use crate::import::blob::Blob;
use crate::import::tar::{self, Members, Tape};
use crate::import::temp::{Space, Spool};
use crate::sync::ignore_poison;
use entry::Budget;
use inflate::{Compression, Inflate};
use window::Windows;

/// Most layers of an image: overlay file systems, and so Docker, stop at 128.
pub const MAX_LAYERS: usize = 1024;

/// What is read and written at a time.
const CHUNK: usize = 256 << 10;

/// Longest inflated layer: stops a bomb before it fills a large file system.
const MAX_INFLATED: u64 = 1 << 40;

/// A layer as its source gives it: open, not yet read.
#[derive(Debug, Clone)]
pub struct Source {
    /// How messages name it.
    pub name: String,
    /// As stored, maybe compressed.
    pub blob: Blob,
    /// What its bytes must be.
    pub expected: Expected,
}

/// Which bytes of a layer the image vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The blob as stored, by its descriptor.
    Stored(Digest),
    /// The tar in it, by the image configuration's `diff_ids`.
    Inflated(Digest),
    /// Those that an [`Arrival`](crate::import::blob::Arrival) lets be read to the end: checked there.
    Arriving,
}

impl Expected {
    /// What must be hashed here.
    fn digest(self) -> Option<Digest> {
        match self {
            Self::Stored(digest) | Self::Inflated(digest) => Some(digest),
            Self::Arriving => None,
        }
    }
}

/// A layer that can be merged.
#[derive(Debug)]
pub struct Layer {
    /// How messages name it.
    pub name: String,
    /// In the order of the tar.
    pub entries: Vec<Entry>,
    /// Where the data of files lies.
    pub data: Blob,
    /// What must still come true of `data` before anything made of it may be used.
    pub pending: Option<Pending>,
}

/// A check that is left for later, when other work leaves a core idle.
#[derive(Debug, Clone)]
pub struct Pending {
    name: String,
    blob: Blob,
    expected: Digest,
}

impl Pending {
    /// Reads all of the layer and compares its digest.
    ///
    /// # Errors
    /// When they differ, or the layer cannot be read.
    pub fn check(&self) -> Result<()> {
        let about = || format!("cannot verify layer {}", self.name);
        let mut hasher = Hasher::default();
        let mut reader = self.blob.reader();
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        loop {
            match tar::read_all(&mut reader, &mut buffer).context(about)? {
                0 => break,
                count => {
                    total += count as u64;
                    hasher.update(buffer.get(..count).unwrap_or_default());
                }
            }
        }
        if total != self.blob.length() {
            return Err(Error::new("the file ends early")).context(about);
        }
        hasher.check(self.expected).context(about)
    }
}

/// Expands all layers of an image, `workers` of them at a time. `failed` is called as soon as one
/// fails, while others are still read.
///
/// # Errors
/// Of the layer that failed first.
pub fn expand_all(
    sources: &[Source],
    space: &Space,
    workers: usize,
    meter: &Meter,
    failed: &(dyn Fn() + Sync),
) -> Result<Vec<Layer>> {
    if sources.len() > MAX_LAYERS {
        let count = sources.len();
        return Err(Error::new(format!("the image has {count} layers, more than {MAX_LAYERS}")));
    }
    // What is still on its way tells nothing, and would have to be waited for.
    let here = sources.iter().filter(|source| source.blob.is_here());
    let needed = here.map(|source| {
        let blob = &source.blob;
        Compression::of(blob)
            .and_then(|compression| inflate::least(blob, compression))
            .context(|| format!("cannot read layer {}", source.name))
    });
    let needed = needed.sum::<Result<u64>>()?;
    space.check(needed)?;
    let (budget, windows) = (Budget::default(), Windows::default());
    in_parallel(sources, workers, failed, |source| {
        let expanded = expand(source, space, &budget, &windows, meter)
            .map_err(|error| error.or_kind(ErrorKind::Corrupt));
        // A wrong digest, known when all bytes are here, explains more than a malformed tar.
        if expanded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            source.blob.wait();
        }
        expanded.context(|| format!("cannot read layer {}", source.name))
    })
}

/// Does `work` on every item, by `workers` threads; the results are in the items' order. After a
/// failure nothing more is begun, and `failed` is called, while others may still work.
///
/// # Errors
/// Of the item that failed first: others may only fail because that one did.
pub fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    workers: usize,
    failed: &(dyn Fn() + Sync),
    work: impl Fn(&I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            let result = work(item);
            let is_failure = result.is_err();
            // Before others are made to fail for it.
            ignore_poison(done.lock()).push((at, result));
            if is_failure {
                next.store(items.len(), Ordering::Relaxed);
                failed();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let done = ignore_poison(done.into_inner());
    let done = done.into_iter().map(|(at, result)| result.map(|result| (at, result)));
    let mut done = done.collect::<Result<Vec<_>>>()?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// How many threads make sense: the cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn expand(
    source: &Source,
    space: &Space,
    budget: &Budget,
    windows: &Windows,
    meter: &Meter,
) -> Result<Layer> {
    let name = source.name.clone();
    let compression = Compression::of(&source.blob)?;
    if compression == Compression::None {
        let mut members = Members::of(&source.blob);
        let entries = entry::read(&mut members, budget)?;
        meter.add(source.blob.length());
        let pending = source.expected.digest().map(|expected| {
            let (name, blob) = (name.clone(), source.blob.clone());
            Pending { name, blob, expected }
        });
        return Ok(Layer { name, entries, data: source.blob.clone(), pending });
    }
    let (blob, expected) = (&source.blob, source.expected);
    let window = windows.take(blob)?;
    let inflating = Inflating::new(blob, Some(expected), compression, window.log(), space, meter)?;
    let mut members = Members::new(inflating);
    let entries = entry::read(&mut members, budget)?;
    let data = members.into_tape().finish(expected)?;
    Ok(Layer { name, entries, data, pending: None })
}

/// `blob` itself if it is plain, or what is compressed in it, in a temporary file.
///
/// # Errors
/// When it is damaged or the temporary space is full.
pub fn inflated(blob: &Blob, space: &Space, meter: &Meter) -> Result<Blob> {
    let compression = Compression::of(blob)?;
    if compression == Compression::None {
        return Ok(blob.clone());
    }
    space.check(inflate::least(blob, compression)?)?;
    let most = inflate::MAX_WINDOW_LOG;
    let mut inflating = Inflating::new(blob, None, compression, most, space, meter)?;
    while inflating.refill()? {}
    inflating.spool.into_blob()
}

/// A tar that comes out of a decompressor: what passes is hashed and kept.
struct Inflating<'a> {
    reader: Inflate,
    hasher: Option<Hasher>,
    spool: Spool<'a>,
    meter: &'a Meter,
    /// How much of the blob the meter has been told of.
    told: u64,
    chunk: Box<[u8]>,
    /// The part of `chunk` that was inflated and not yet taken.
    ready: std::ops::Range<usize>,
}

impl<'a> Inflating<'a> {
    fn new(
        blob: &Blob,
        expected: Option<Expected>,
        compression: Compression,
        window_log: u32,
        space: &'a Space,
        meter: &'a Meter,
    ) -> Result<Self> {
        let (reader, hasher) = match expected {
            Some(Expected::Stored(_)) => (HashingReader::new(blob.reader()), None),
            Some(Expected::Inflated(_)) => {
                (HashingReader::idle(blob.reader()), Some(Hasher::default()))
            }
            Some(Expected::Arriving) | None => (HashingReader::idle(blob.reader()), None),
        };
        Ok(Self {
            reader: Inflate::new(reader, compression, window_log)?,
            hasher,
            spool: space.file()?,
            meter,
            told: 0,
            chunk: vec![0; CHUNK].into(),
            ready: 0..0,
        })
    }

    /// Inflates the next chunk; false at the end.
    fn refill(&mut self) -> Result<bool> {
        let count = tar::read_all(&mut self.reader, &mut self.chunk)?;
        self.ready = 0..count;
        let bytes = self.chunk.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.spool.append(bytes)?;
        if self.spool.length() > MAX_INFLATED {
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
    fn finish(mut self, expected: Expected) -> Result<Blob> {
        let hasher = match expected {
            Expected::Inflated(_) => self.hasher.take(),
            Expected::Stored(_) | Expected::Arriving => self.reader.take_hasher(),
        };
        if let Some(digest) = expected.digest() {
            hasher.ok_or_else(|| Error::new("it was not hashed"))?.check(digest)?;
        }
        self.spool.into_blob()
    }
}

impl Tape for Inflating<'_> {
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
pub(crate) fn entries<T: Tape>(members: &mut Members<T>) -> Result<Vec<Entry>> {
    entry::read(members, &Budget::default())
}
