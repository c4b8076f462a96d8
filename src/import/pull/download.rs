//! Blobs on their way from the registry into the cache: by several threads, resumed where they
//! broke off, and each by one process only.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::cli::progress::Row;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::Hasher;
use crate::import::blob::{Arrival, Blob};
use crate::import::source::remote::Part;
use crate::registry::{Backoff, Registry, Transfer};
use crate::store::{BlobCache, CacheEntry, PartialBlob};

/// What is read and written at a time.
const CHUNK: usize = 256 << 10;

/// A transfer that got so far has got on: it may fail as often as a new one.
const HEADWAY: u64 = 64 << 10;

/// A blob to be brought here.
#[derive(Debug)]
pub struct Download<'a> {
    /// Which one.
    pub part: Part,
    /// Who waits for it.
    pub arrival: &'a Arc<Arrival>,
    /// Where it is shown.
    pub row: &'a Row,
}

/// Prints a line; the flag says that a live one makes it superfluous.
type Tell<'a> = dyn Fn(&str, bool) + Sync + 'a;

/// All blobs of an image, and the threads that bring them.
pub struct Downloads<'a> {
    registry: &'a Registry,
    cache: &'a BlobCache,
    all: Vec<Download<'a>>,
    tell: &'a Tell<'a>,
    next: AtomicUsize,
    stopped: AtomicBool,
    /// How many are here, and the first failure.
    outcome: Mutex<(usize, Option<Error>)>,
    changed: Condvar,
}

impl<'a> Downloads<'a> {
    pub fn new(
        registry: &'a Registry,
        cache: &'a BlobCache,
        all: Vec<Download<'a>>,
        tell: &'a Tell<'a>,
    ) -> Self {
        let (next, stopped, outcome, changed) = Default::default();
        Self { registry, cache, all, tell, next, stopped, outcome, changed }
    }

    /// Brings one blob after the other, until there are no more or one fails; for several threads.
    pub fn work(&self) {
        while let Some(download) = self.all.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let Download { part, row, .. } = download;
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            row.begin();
            let brought = self.bring(download);
            row.end();
            match brought {
                Ok(line) => {
                    (self.tell)(&format!("> {line}: {}", part.digest), false);
                    self.lock().0 += 1;
                    self.changed.notify_all();
                }
                Err(error) => {
                    let about = format!("cannot get blob {}", part.digest);
                    self.fail(Error::caused_by(about, error));
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, Option<Error>)> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all; false if some will not come.
    pub fn wait(&self) -> bool {
        let going = |outcome: &mut (usize, Option<Error>)| {
            outcome.0 < self.all.len() && !self.stopped.load(Ordering::Relaxed)
        };
        let outcome = self.changed.wait_while(self.lock(), going);
        outcome.unwrap_or_else(PoisonError::into_inner).0 == self.all.len()
    }

    /// Why not all came, if it was for that.
    pub fn take_failure(&self) -> Option<Error> {
        self.lock().1.take()
    }

    /// The first failure counts: those of the others come of being stopped.
    fn fail(&self, error: Error) {
        let mut outcome = self.lock();
        if !self.stopped.load(Ordering::Relaxed) {
            outcome.1.get_or_insert(error);
        }
        drop(outcome);
        self.stop();
    }

    /// Nobody needs the rest.
    pub fn stop(&self) {
        let outcome = self.lock();
        self.stopped.store(true, Ordering::Relaxed);
        drop(outcome);
        self.changed.notify_all();
        self.registry.stop();
        for download in &self.all {
            download.arrival.fail("the transfer was stopped");
        }
    }

    /// Brings one blob, and says how, in the manual's words.
    fn bring(&self, download: &Download<'_>) -> Result<&'static str> {
        let Download { part: Part { digest, size, .. }, arrival, row } = download;
        loop {
            let mut waits = false;
            let slot = self.cache.entry(digest, |_| {
                if !std::mem::replace(&mut waits, true) {
                    (self.tell)(&format!("> waiting        : {digest}"), false);
                }
                self.check_stopped()
            })?;
            match slot {
                CacheEntry::Complete(file) => {
                    if let Some(file) = self.verified(file, download)? {
                        arrival.complete(&file);
                        return Ok("found in cache ");
                    }
                    self.cache.discard(digest)?;
                    row.meter.reset();
                }
                CacheEntry::Partial(partial) => {
                    (self.tell)(&format!("> pulling        : {digest}"), true);
                    let file = Arc::new(clone(partial.file())?);
                    self.receive(download, &partial, &file, *size)?;
                    partial.publish()?;
                    arrival.complete(&file);
                    return Ok("completed      ");
                }
            }
        }
    }

    /// A blob of the cache, if it is still what its name says.
    fn verified(&self, file: File, download: &Download<'_>) -> Result<Option<Arc<File>>> {
        let Download { part: Part { digest, size, .. }, row, .. } = download;
        let about = || format!("cannot read {}", self.cache.path(digest).display());
        if file.metadata().context(about)?.len() != *size {
            return Ok(None);
        }
        let mut hasher = Hasher::default();
        self.hash(&file, *size, &mut hasher, row).context(about)?;
        Ok((hasher.finish() == *digest).then(|| Arc::new(file)))
    }

    /// Takes the first `length` bytes of `file`.
    fn hash(&self, file: &File, length: u64, hasher: &mut Hasher, row: &Row) -> Result<()> {
        let blob = Blob::whole(clone(file)?).context(|| "cannot examine it".into())?;
        let mut buffer = vec![0; CHUNK];
        let mut position = 0;
        while position < length {
            let count = blob.read_at(&mut buffer, position).context(|| "cannot read it".into())?;
            let left = usize::try_from(length - position).unwrap_or(usize::MAX);
            let bytes = buffer.get(..count.min(left)).unwrap_or_default();
            if bytes.is_empty() {
                return Err(Error::new("the file ends early"));
            }
            hasher.update(bytes);
            position += bytes.len() as u64;
            row.meter.add(bytes.len() as u64);
            self.check_stopped()?;
        }
        Ok(())
    }

    fn check_stopped(&self) -> Result<()> {
        match self.stopped.load(Ordering::Relaxed) {
            true => Err(Error::new("stopped")),
            false => Ok(()),
        }
    }

    /// Receives what is missing of a blob, and verifies the whole. What an earlier process left is
    /// read once, for the digest; if the whole then is wrong, it is received anew.
    fn receive(
        &self,
        download: &Download<'_>,
        partial: &PartialBlob,
        file: &Arc<File>,
        size: u64,
    ) -> Result<()> {
        let Download { part: Part { digest, .. }, arrival, row } = download;
        let mut left = file.metadata().context(|| "cannot examine it".into())?.len();
        if left > size {
            partial.truncate(0)?;
            left = 0;
        }
        loop {
            let mut hasher = Hasher::default();
            row.meter.reset();
            self.hash(file, left, &mut hasher, row)?;
            // Readers cannot be told to begin anew, so they wait until it is sure that they need
            // not.
            let reader = (left == 0).then_some(*arrival);
            if let Some(reader) = reader {
                reader.opened(file);
            }
            self.transfer(download, partial, left, size, &mut hasher, reader)?;
            match hasher.check(*digest) {
                Ok(()) => return Ok(()),
                Err(_) if left > 0 => left = 0,
                Err(error) => {
                    partial.truncate(0)?;
                    let text = "the registry, or something on the way to it, sends wrong bytes";
                    return Err(error.with_hint(text));
                }
            }
            partial.truncate(0)?;
        }
    }

    /// Appends to a blob until it is complete, resuming as often as there is headway.
    fn transfer(
        &self,
        download: &Download<'_>,
        partial: &PartialBlob,
        mut position: u64,
        size: u64,
        hasher: &mut Hasher,
        reader: Option<&Arc<Arrival>>,
    ) -> Result<()> {
        let Download { part: Part { digest, .. }, row, .. } = download;
        let mut backoff = Backoff::default();
        let mut buffer = vec![0; CHUNK];
        while position < size {
            self.check_stopped()?;
            let from = position;
            let tried = self.registry.blob(digest, size, position).and_then(|mut transfer| {
                skip(&mut transfer, position, &mut buffer)?;
                // What a server sends beyond, or whether it ends at all, is of no interest.
                while position < size {
                    let left = usize::try_from(size - position).unwrap_or(usize::MAX);
                    let room = buffer.get_mut(..left.min(CHUNK)).unwrap_or_default();
                    let count = transfer.receive(room)?;
                    if count == 0 {
                        return Err(transfer.ended_early(position, size));
                    }
                    let bytes = room.get(..count).unwrap_or_default();
                    self.check_stopped()?;
                    hasher.update(bytes);
                    self.cache.write(partial, bytes, position)?;
                    position += count as u64;
                    row.meter.add(count as u64);
                    if let Some(reader) = reader {
                        reader.grown(position);
                    }
                }
                Ok(())
            });
            let Err(failure) = tried else { break };
            if position - from >= HEADWAY {
                backoff.reset();
            }
            let may_help =
                failure.kind() == ErrorKind::Transient && !self.stopped.load(Ordering::Relaxed);
            if !may_help || !self.registry.may_retry(&mut backoff) {
                return Err(failure);
            }
            (self.tell)(&format!("> retry          : {digest}"), true);
        }
        Ok(())
    }
}

/// Passes over what is here already, where the server sends all.
fn skip(transfer: &mut Transfer, position: u64, buffer: &mut [u8]) -> Result<()> {
    let mut ahead = position - transfer.start;
    while ahead > 0 {
        let count = usize::try_from(ahead).unwrap_or(usize::MAX).min(buffer.len());
        let count = transfer.receive(buffer.get_mut(..count).unwrap_or_default())?;
        if count == 0 {
            return Err(transfer.ended_early(position - ahead, position));
        }
        ahead -= count as u64;
    }
    Ok(())
}

fn clone(file: &File) -> Result<File> {
    let copy = file.as_fd().try_clone_to_owned();
    copy.map(File::from).context(|| "cannot copy a descriptor".into())
}
