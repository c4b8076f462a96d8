//! Downloads of blobs from the registry into the cache: several at a time, resumed after broken
//! connections, and each by one process only.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::cli::progress::Row;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::{Digest, Hasher};
use crate::import::blob::{Blob, CHUNK, StreamingBlob};
use crate::import::source::remote::BlobDescriptor;
use crate::registry::{Backoff, Registry, Transfer};
use crate::store::{BlobCache, CacheEntry, PartialBlob};
use crate::sync::ignore_poison;

/// Bytes of a transfer after which the number of retries is reset.
const HEADWAY: u64 = 64 << 10;

/// A blob to be downloaded, its bytes for readers, and its row on the terminal.
#[derive(Debug)]
pub struct Download {
    pub blob: BlobDescriptor,
    pub stream: Arc<StreamingBlob>,
    pub row: Row,
}

impl Download {
    /// A download that has not started.
    pub fn new(blob: BlobDescriptor) -> Self {
        let short_digest: String = blob.digest.hex().chars().take(12).collect();
        let row = Row::new(format!("  {short_digest}"), blob.size);
        Self { blob, stream: StreamingBlob::new(blob.size), row }
    }
}

/// A step of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Another process downloads the blob.
    Waiting,
    /// The transfer starts.
    Pulling,
    /// The transfer starts again after a failure.
    Retry,
    /// The blob was in the cache.
    FoundInCache,
    /// The blob was transferred.
    Completed,
}

/// Receives the steps of downloads, from any thread.
pub trait Observer: Sync {
    /// A download made a step.
    fn on_event(&self, event: Event, digest: &Digest);
    /// All downloads are complete.
    fn on_all_complete(&self);
}

/// An observer that does nothing.
pub struct Unobserved;

impl Observer for Unobserved {
    fn on_event(&self, _: Event, _: &Digest) {}
    fn on_all_complete(&self) {}
}

/// The downloads of an image, shared by the threads that make them.
pub struct Downloader<'a> {
    registry: &'a Registry,
    cache: &'a BlobCache,
    downloads: &'a [Download],
    observer: &'a dyn Observer,
    /// Index of the next download to start.
    next: AtomicUsize,
    stopped: AtomicBool,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default)]
struct Outcome {
    /// Number of complete downloads.
    complete: usize,
    /// The first failure, which caused the others.
    failure: Option<Error>,
}

impl<'a> Downloader<'a> {
    pub fn new(
        registry: &'a Registry,
        cache: &'a BlobCache,
        downloads: &'a [Download],
        observer: &'a dyn Observer,
    ) -> Self {
        let (next, stopped, outcome) = Default::default();
        Self { registry, cache, downloads, observer, next, stopped, outcome }
    }

    /// Starts at most `threads` threads that download all blobs.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        threads: usize,
    ) {
        if self.downloads.is_empty() {
            self.observer.on_all_complete();
        }
        for _ in 0..threads.min(self.downloads.len()) {
            scope.spawn(|| self.run());
        }
    }

    /// Downloads one blob after the other, until there are no more or one fails.
    pub fn run(&self) {
        while let Some(download) = self.downloads.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.is_stopped() {
                return;
            }
            download.row.begin();
            let result = self.download(download);
            download.row.end();
            let digest = &download.blob.digest;
            match result {
                Ok(event) => self.succeed(event, digest),
                Err(error) => {
                    self.fail(Error::caused_by(format!("cannot get blob {digest}"), error));
                }
            }
        }
    }

    fn succeed(&self, event: Event, digest: &Digest) {
        self.observer.on_event(event, digest);
        let mut outcome = self.lock();
        outcome.complete += 1;
        let complete = outcome.complete;
        drop(outcome);
        if complete == self.downloads.len() {
            self.observer.on_all_complete();
        }
    }

    /// Keeps the first failure, and stops all downloads: their failures follow from it.
    fn fail(&self, error: Error) {
        let mut outcome = self.lock();
        if !self.is_stopped() {
            outcome.failure.get_or_insert(error);
        }
        drop(outcome);
        self.stop();
    }

    /// Stops all downloads, and makes the readers of incomplete blobs fail.
    pub fn stop(&self) {
        let outcome = self.lock();
        self.stopped.store(true, Ordering::Relaxed);
        drop(outcome);
        self.registry.stop();
        for download in self.downloads {
            download.stream.fail("the download was stopped");
        }
    }

    /// Returns the failure of a download, if that is why not all are complete.
    pub fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        ignore_poison(self.outcome.lock())
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn check_stopped(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::new("stopped")) } else { Ok(()) }
    }

    /// Takes a blob from the cache, or transfers it there.
    fn download(&self, download: &Download) -> Result<Event> {
        let Download { blob: BlobDescriptor { digest, .. }, stream, row } = download;
        loop {
            let mut is_waiting = false;
            let slot = self.cache.entry(digest, |_| {
                if !std::mem::replace(&mut is_waiting, true) {
                    self.observer.on_event(Event::Waiting, digest);
                }
                self.check_stopped()
            })?;
            match slot {
                CacheEntry::Complete(file) => {
                    if let Some(file) = self.verify(file, download)? {
                        stream.complete(&file);
                        return Ok(Event::FoundInCache);
                    }
                    self.cache.discard(digest)?;
                    row.meter.reset();
                }
                CacheEntry::Partial(partial) => {
                    self.observer.on_event(Event::Pulling, digest);
                    let file = Arc::new(duplicate(partial.file())?);
                    self.complete(download, &partial, &file)?;
                    partial.publish()?;
                    stream.complete(&file);
                    return Ok(Event::Completed);
                }
            }
        }
    }

    /// Returns a file of the cache if it still has the size and the digest of the blob.
    fn verify(&self, file: File, download: &Download) -> Result<Option<Arc<File>>> {
        let BlobDescriptor { digest, size, .. } = download.blob;
        let context = || format!("cannot read {}", self.cache.path(&digest).display());
        if file.metadata().context(context)?.len() != size {
            return Ok(None);
        }
        let file = Arc::new(file);
        let hasher = self.hash(&file, size, &download.row).context(context)?;
        Ok((hasher.finish() == digest).then_some(file))
    }

    /// Hashes the first `length` bytes of `file`.
    fn hash(&self, file: &Arc<File>, length: u64, row: &Row) -> Result<Hasher> {
        let mut hasher = Hasher::default();
        Blob::prefix(file, length).hash(&mut hasher, |count| {
            row.meter.add(count);
            self.check_stopped()
        })?;
        Ok(hasher)
    }

    /// Transfers the missing bytes of a blob, and verifies the digest of the whole. Bytes that an
    /// earlier process left are hashed first; if the digest then is wrong, they are transferred too.
    fn complete(&self, download: &Download, partial: &PartialBlob, file: &Arc<File>) -> Result<()> {
        let Download { blob: BlobDescriptor { digest, size, .. }, stream, row } = download;
        let context = || "cannot examine the partial blob in the cache".into();
        let mut left_over = file.metadata().context(context)?.len();
        if left_over > *size {
            partial.truncate(0)?;
            left_over = 0;
        }
        loop {
            row.meter.reset();
            let hasher = self.hash(file, left_over, row)?;
            // Readers cannot start again, so they get no byte before the digest is verified if
            // there are bytes of another process.
            let stream = (left_over == 0).then_some(&**stream);
            if let Some(stream) = stream {
                stream.attach(file);
            }
            let mut target = Target { partial, hasher, position: left_over, stream };
            self.transfer(download, &mut target)?;
            match target.hasher.check(*digest) {
                Ok(()) => return Ok(()),
                Err(_) if left_over > 0 => left_over = 0,
                Err(error) => {
                    partial.truncate(0)?;
                    let hint = "the registry, or a proxy on the way to it, sends wrong bytes";
                    return Err(error.with_hint(hint));
                }
            }
            partial.truncate(0)?;
        }
    }

    /// Appends to a blob until it has its size. After a failure that may pass, tries again where the
    /// transfer stopped.
    fn transfer(&self, download: &Download, target: &mut Target<'_>) -> Result<()> {
        let BlobDescriptor { digest, size, .. } = &download.blob;
        let mut backoff = Backoff::default();
        let mut buffer = vec![0; CHUNK];
        while target.position < *size {
            self.check_stopped()?;
            let start = target.position;
            let Err(failure) = self.try_transfer(download, target, &mut buffer) else { break };
            if target.position - start >= HEADWAY {
                backoff.reset();
            }
            let may_pass = failure.kind() == ErrorKind::Transient && !self.is_stopped();
            if !may_pass || !self.registry.may_retry(&mut backoff) {
                return Err(failure);
            }
            self.observer.on_event(Event::Retry, digest);
        }
        Ok(())
    }

    /// Makes one request, and appends its bytes.
    fn try_transfer(
        &self,
        download: &Download,
        target: &mut Target<'_>,
        buffer: &mut [u8],
    ) -> Result<()> {
        let BlobDescriptor { digest, size, .. } = &download.blob;
        let mut transfer = self.registry.blob(digest, *size, target.position)?;
        skip(&mut transfer, target.position, buffer)?;
        // Bytes after the end of the blob are not read, so a server cannot send without end.
        while target.position < *size {
            let left = usize::try_from(*size - target.position).unwrap_or(usize::MAX);
            let room = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
            let count = transfer.receive(room)?;
            if count == 0 {
                return Err(transfer.ended_early(target.position, *size));
            }
            self.check_stopped()?;
            target.append(room.get(..count).unwrap_or_default(), self.cache)?;
            download.row.meter.add(count as u64);
        }
        Ok(())
    }
}

/// A partial blob of the cache that is being filled.
struct Target<'a> {
    partial: &'a PartialBlob,
    hasher: Hasher,
    /// Number of bytes that are there.
    position: u64,
    /// Readers that may have the bytes before the blob is verified.
    stream: Option<&'a StreamingBlob>,
}

impl Target<'_> {
    fn append(&mut self, bytes: &[u8], cache: &BlobCache) -> Result<()> {
        self.hasher.update(bytes);
        cache.write(self.partial, bytes, self.position)?;
        self.position += bytes.len() as u64;
        if let Some(stream) = self.stream {
            stream.advance(self.position);
        }
        Ok(())
    }
}

/// Reads up to `position`, for servers that ignore `Range` and send the blob from its start.
fn skip(transfer: &mut Transfer, position: u64, buffer: &mut [u8]) -> Result<()> {
    let mut left = position - transfer.start;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = transfer.receive(buffer.get_mut(..count).unwrap_or_default())?;
        if count == 0 {
            return Err(transfer.ended_early(position - left, position));
        }
        left -= count as u64;
    }
    Ok(())
}

fn duplicate(file: &File) -> Result<File> {
    let copy = file.as_fd().try_clone_to_owned();
    copy.map(File::from).context(|| "cannot duplicate a file descriptor".into())
}
