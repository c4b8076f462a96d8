//! How much memory the decoders of zstd may take together.
//!
//! A zstd frame says how far back it refers; its decoder keeps so many bytes, up to 128 MiB
//! (`zstd --long`). Layers that ask for much take turns, so that an image of many such layers takes
//! no more memory than one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::import::blob::Blob;

/// In bytes: one decoder with the largest window that is taken, or many usual ones.
const ALL: u64 = 160 << 20;

/// The windows of all decoders that are at work.
#[derive(Debug, Default)]
pub struct MemoryLimiter {
    taken: Mutex<u64>,
    freed: Condvar,
}

/// What any frame may ask for: the most that `zstd` itself does up to level 19.
const USUAL: u64 = 8 << 20;

/// The right to so much memory, until dropped.
#[derive(Debug)]
pub struct MemoryPermit<'a> {
    limiter: &'a MemoryLimiter,
    size: u64,
}

impl MemoryLimiter {
    /// Waits until there is room for the decoder of `blob`, or nobody else has any. Later frames
    /// may not ask for more than the first, or than all usually do.
    pub fn acquire(&self, blob: &Blob) -> Result<MemoryPermit<'_>> {
        let mut header = [0; 14];
        crate::bytes::fill(&mut blob.reader(), &mut header)?;
        let size = size(&header);
        let full = |taken: &mut u64| *taken > 0 && taken.saturating_add(size) > ALL;
        let taken = self.freed.wait_while(self.lock(), full);
        *taken.unwrap_or_else(PoisonError::into_inner) += size;
        Ok(MemoryPermit { limiter: self, size })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryPermit<'_> {
    /// How far back a frame may refer, as a power of two.
    pub fn window_log(&self) -> u32 {
        self.size.next_power_of_two().trailing_zeros()
    }
}

impl Drop for MemoryPermit<'_> {
    fn drop(&mut self) {
        *self.limiter.lock() -= self.size;
        self.limiter.freed.notify_all();
    }
}

/// What is granted to a zstd frame: its window (RFC 8878, section 3.1.1.1), the most there is where
/// the first frame tells nothing, and nothing for anything else.
fn size(header: &[u8; 14]) -> u64 {
    const MOST: u64 = 1 << super::decoder::MAX_WINDOW_LOG;
    let (descriptor, rest) = match header {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] => (descriptor, rest),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return MOST,
        _ => return 0,
    };
    let size = if descriptor & 0x20 == 0 {
        let [window, ..] = rest;
        let base = 1u64 << (10 + (window >> 3));
        base + base / 8 * u64::from(window & 7)
    } else {
        // A frame in one piece: its window is its content, whose size follows the dictionary's
        // number.
        let skip = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or(0);
        let width = 1 << (descriptor >> 6);
        let digits = rest.iter().skip(skip).take(width).rev();
        digits.fold(0, |size, digit| size << 8 | u64::from(*digit))
    };
    size.clamp(USUAL, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> [u8; 14] {
        let mut header = [0; 14];
        header[..bytes.len()].copy_from_slice(bytes);
        header
    }

    #[test]
    fn a_frame_tells_its_window() {
        const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        for (rest, expected) in [
            (&[0x00, 0x00][..], USUAL),
            (&[0x04, 0x58], USUAL),     // zstd -3, with a checksum
            (&[0x00, 0x80], 64 << 20),  // --long=26
            (&[0x00, 0xff], 128 << 20), // far too much
            (&[0x20, 0x07], USUAL),     // in one piece, 7 bytes long
            (&[0xa2, 1, 2, 0, 0, 0, 4], 64 << 20),
        ] {
            assert_eq!(size(&header(&[&MAGIC, rest].concat())), expected, "{rest:x?}");
        }
        assert_eq!(size(&header(b"\x1f\x8b")), 0);
        assert_eq!(size(&header(&[0x50, 0x2a, 0x4d, 0x18])), 128 << 20);
        let limiter = MemoryLimiter::default();
        for (size, log) in [(USUAL, 23), (64 << 20, 26), ((64 << 20) + 1, 27), (0, 0)] {
            let permit = MemoryPermit { limiter: &limiter, size };
            assert_eq!(permit.window_log(), log);
            std::mem::forget(permit);
        }
    }

    #[test]
    fn large_windows_take_turns() {
        let large = Blob::from_bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x88, 0, 0]);
        let small = Blob::from_bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0, 0]);
        let limiter = MemoryLimiter::default();
        let first = limiter.acquire(&large).unwrap();
        let _beside = limiter.acquire(&small).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(limiter.acquire(&large).unwrap()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!second.is_finished());
            drop(first);
        });
    }
}
