//! A blob that is on its way: what has arrived can be read while the rest is still coming.
//!
//! One thread brings the bytes ([`StreamingBlob::attach`], [`StreamingBlob::advance`], [`StreamingBlob::complete`]),
//! others read them as a [`Blob`](super::Blob) and wait where they are ahead. The last bytes are
//! given out only when the whole has proved to be what its digest says, so whoever has read to the
//! end has read the right bytes.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A file that others fill, of a length that is known.
#[derive(Debug)]
pub struct StreamingBlob {
    length: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Set once everything is there: no lock is needed from then on.
    complete: OnceLock<Arc<File>>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    available: u64,
    failure: Option<String>,
}

impl StreamingBlob {
    /// Nothing has arrived yet of `length` bytes.
    #[must_use]
    pub fn new(length: u64) -> Arc<Self> {
        let (state, changed, complete) = Default::default();
        Arc::new(Self { length, state, changed, complete })
    }

    /// In bytes, when all has arrived.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether everything has arrived and is what it should be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.get().is_some()
    }

    /// The bytes will be in `file`, from its beginning.
    pub fn attach(&self, file: &Arc<File>) {
        self.lock().file = Some(Arc::clone(file));
    }

    /// The first `available` bytes are there. All but the last can be read from now on.
    pub fn advance(&self, available: u64) {
        self.lock().available = available.min(self.length.saturating_sub(1));
        self.changed.notify_all();
    }

    /// All bytes are in `file`, and are what they should be.
    pub fn complete(&self, file: &Arc<File>) {
        let state = self.lock();
        // Only ever set here, and by one thread.
        self.complete.get_or_init(|| Arc::clone(file));
        drop(state);
        self.changed.notify_all();
    }

    /// No more bytes will arrive. Without effect on what is complete.
    pub fn fail(&self, why: &str) {
        self.lock().failure.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.lock();
        loop {
            if let Some(file) = self.complete.get() {
                drop(state);
                return self.read(file, buffer, position);
            }
            if let Some(why) = &state.failure {
                return Err(io::Error::other(why.clone()));
            }
            if let Some(file) = &state.file
                && let Some(there) = state.available.checked_sub(position).filter(|n| *n > 0)
            {
                let file = Arc::clone(file);
                drop(state);
                let count = usize::try_from(there).unwrap_or(usize::MAX).min(buffer.len());
                let buffer = buffer.get_mut(..count).unwrap_or_default();
                return self.read(&file, buffer, position);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A file that is emptied meanwhile, as one that proved wrong, must not look like a short blob.
    fn read(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match super::read_at(file, buffer, position)? {
            0 if !buffer.is_empty() && position < self.length => {
                Err(io::Error::other("it was taken away"))
            }
            count => Ok(count),
        }
    }

    /// Waits until everything has arrived, or will not.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        while !self.is_complete() && state.failure.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
    fn a_reader_waits_for_what_is_on_its_way() {
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
    fn what_is_taken_away_is_no_end() {
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
    fn the_last_byte_is_kept_back_until_all_is_proved() {
        let stream = StreamingBlob::new(4);
        let blob = Blob::streaming(&stream);
        stream.attach(&file(b"evil"));
        stream.advance(4);
        let mut reader = blob.reader();
        let mut buffer = [0; 3];
        reader.read_exact(&mut buffer).unwrap();
        stream.fail("it is not what it should be");
        let error = reader.read(&mut buffer).unwrap_err();
        assert_eq!(error.to_string(), "it is not what it should be");
    }
}
