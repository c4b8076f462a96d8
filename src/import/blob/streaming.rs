//! A blob being downloaded: readers may consume the prefix that has arrived.
//!
//! One thread writes the file and reports its progress ([`StreamingBlob::attach`],
//! [`StreamingBlob::advance`], [`StreamingBlob::complete`]); others read it as a
//! [`Blob`](super::Blob), and wait for bytes that have not arrived. The last byte is withheld until
//! the digest of the whole is verified, so a reader that reached the end has read the right bytes.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::sync::ignore_poison;

/// A file of known length that another thread fills.
#[derive(Debug)]
pub struct StreamingBlob {
    length: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Set once all bytes are there: from then on, reads need no lock.
    complete: OnceLock<Arc<File>>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Number of bytes that may be read.
    available: u64,
    failure: Option<String>,
}

impl StreamingBlob {
    /// A blob of `length` bytes, none of which has arrived.
    #[must_use]
    pub fn new(length: u64) -> Arc<Self> {
        let (state, changed, complete) = Default::default();
        Arc::new(Self { length, state, changed, complete })
    }

    /// Length of the complete blob in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether all bytes have arrived and are verified.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.get().is_some()
    }

    /// Sets the file that the bytes are written to, from its start.
    pub fn attach(&self, file: &Arc<File>) {
        self.lock().file = Some(Arc::clone(file));
    }

    /// Reports that the first `available` bytes have arrived. All but the last byte of the blob may
    /// be read from now on.
    pub fn advance(&self, available: u64) {
        self.lock().available = available.min(self.length.saturating_sub(1));
        self.changed.notify_all();
    }

    /// Reports that all bytes are in `file`, and that their digest is verified.
    pub fn complete(&self, file: &Arc<File>) {
        let state = self.lock();
        // Set only here, by one thread.
        self.complete.get_or_init(|| Arc::clone(file));
        drop(state);
        self.changed.notify_all();
    }

    /// Reports that no more bytes will arrive: readers fail with `reason`. Has no effect on a blob
    /// that is complete.
    pub fn fail(&self, reason: &str) {
        self.lock().failure.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }

    /// Reads at `position`, and waits until at least one byte is available there.
    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.lock();
        loop {
            if let Some(file) = self.complete.get() {
                drop(state);
                return self.read(file, buffer, position);
            }
            if let Some(reason) = &state.failure {
                return Err(io::Error::other(reason.clone()));
            }
            if let Some(file) = &state.file
                && let Some(available) = state.available.checked_sub(position).filter(|n| *n > 0)
            {
                let file = Arc::clone(file);
                drop(state);
                let count = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
                let buffer = buffer.get_mut(..count).unwrap_or_default();
                return self.read(&file, buffer, position);
            }
            state = ignore_poison(self.changed.wait(state));
        }
    }

    /// Reads from `file`. A file that was truncated meanwhile, because its digest was wrong, must not
    /// look like the end of a shorter blob.
    fn read(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match super::read_at(file, buffer, position)? {
            0 if !buffer.is_empty() && position < self.length => {
                Err(io::Error::other("the file was truncated while it was read"))
            }
            count => Ok(count),
        }
    }

    /// Waits until all bytes have arrived, or the download has failed.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        while !self.is_complete() && state.failure.is_none() {
            state = ignore_poison(self.changed.wait(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Blob;
    use super::*;
    use std::io::{Read, Write};

    fn file(bytes: &[u8]) -> Arc<File> {
        let name = format!("sarus-stream-{}-{}", std::process::id(), bytes.len());
        let path = std::env::temp_dir().join(name);
        let mut how = std::fs::OpenOptions::new();
        let mut file = how.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        std::fs::remove_file(path).unwrap();
        Arc::new(file)
    }

    #[test]
    fn a_reader_waits_for_bytes_that_have_not_arrived() {
        let stream = StreamingBlob::new(9);
        let blob = Blob::streaming(&stream);
        let file = file(b"something");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| blob.bytes(9).unwrap());
            stream.attach(&file);
            for count in 1..=9 {
                stream.advance(count);
            }
            assert!(!blob.is_complete());
            stream.complete(&file);
            assert_eq!(reader.join().unwrap(), b"something");
        });
        assert!(blob.is_complete());
        assert_eq!(blob.slice(4, 5).unwrap().bytes(9).unwrap(), b"thing");
    }

    #[test]
    fn a_truncated_file_does_not_look_like_the_end() {
        let stream = StreamingBlob::new(9);
        let blob = Blob::streaming(&stream);
        let file = file(b"some");
        stream.attach(&file);
        stream.advance(4);
        file.set_len(0).unwrap();
        let mut buffer = [0; 3];
        assert!(blob.read_at(&mut buffer, 0).is_err());
        stream.fail("wrong");
        blob.wait();
    }

    #[test]
    fn the_last_byte_is_withheld_until_the_digest_is_verified() {
        let stream = StreamingBlob::new(4);
        let blob = Blob::streaming(&stream);
        stream.attach(&file(b"evil"));
        stream.advance(4);
        let mut reader = blob.reader();
        let mut buffer = [0; 3];
        reader.read_exact(&mut buffer).unwrap();
        stream.fail("wrong digest");
        let error = reader.read(&mut buffer).unwrap_err();
        assert_eq!(error.to_string(), "wrong digest");
    }
}
