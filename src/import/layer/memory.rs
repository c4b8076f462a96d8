//! A limit for the memory of all zstd decoders together.
//!
//! A zstd frame has a window size: its decoder keeps that many bytes, up to 128 MiB (`zstd --long`).
//! Layers with large windows take turns, so that an image of many such layers takes no more memory
//! than one.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::error::Result;
use crate::import::blob::Blob;
use crate::sync::ignore_poison;

/// Memory in bytes for all windows: one of the largest size, or many of the usual size.
const MAX_TOTAL: u64 = 160 << 20;

/// Memory of all decoders at work.
#[derive(Debug, Default)]
pub struct MemoryLimiter {
    /// Bytes in use.
    used: Mutex<u64>,
    released: Condvar,
}

/// Window size in bytes that every frame may have: the largest of `zstd` up to level 19.
const USUAL: u64 = 8 << 20;

/// The right to use some memory, until dropped.
#[derive(Debug)]
pub struct MemoryPermit<'a> {
    limiter: &'a MemoryLimiter,
    size: u64,
}

impl MemoryLimiter {
    /// Waits until the window of `blob` fits the limit, or no other decoder is at work. Later frames
    /// of the blob must not have larger windows than the first one, or than [`USUAL`].
    pub fn acquire(&self, blob: &Blob) -> Result<MemoryPermit<'_>> {
        let mut header = [0; 14];
        crate::bytes::fill(&mut blob.reader(), &mut header)?;
        let size = window_size(&header);
        let full = |used: &mut u64| *used > 0 && used.saturating_add(size) > MAX_TOTAL;
        let used = self.released.wait_while(self.lock(), full);
        *ignore_poison(used) += size;
        Ok(MemoryPermit { limiter: self, size })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        ignore_poison(self.used.lock())
    }
}

impl MemoryPermit<'_> {
    /// Base-2 logarithm of the largest window size in bytes.
    pub fn window_log(&self) -> u32 {
        self.size.next_power_of_two().trailing_zeros()
    }
}

impl Drop for MemoryPermit<'_> {
    fn drop(&mut self) {
        *self.limiter.lock() -= self.size;
        self.limiter.released.notify_all();
    }
}

/// Returns the window size to reserve for a blob: of its first zstd frame (RFC 8878, section
/// 3.1.1.1), the maximum if that is a skippable frame, 0 if the blob is not zstd.
fn window_size(header: &[u8; 14]) -> u64 {
    const MAX: u64 = 1 << super::decoder::MAX_WINDOW_LOG;
    let (descriptor, rest) = match header {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] => (descriptor, rest),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return MAX,
        _ => return 0,
    };
    let size = if descriptor & 0x20 == 0 {
        let [window, ..] = rest;
        let base = 1u64 << (10 + (window >> 3));
        base + base / 8 * u64::from(window & 7)
    } else {
        // Single segment: the window size is the content size, which follows the dictionary id.
        let skip = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or(0);
        let width = 1 << (descriptor >> 6);
        let digits = rest.iter().skip(skip).take(width).rev();
        digits.fold(0, |size, digit| size << 8 | u64::from(*digit))
    };
    size.clamp(USUAL, MAX)
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
    fn the_window_size_is_read_from_the_frame_header() {
        const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        for (rest, expected) in [
            (&[0x00, 0x00][..], USUAL),
            (&[0x04, 0x58], USUAL),     // zstd -3, with a checksum
            (&[0x00, 0x80], 64 << 20),  // --long=26
            (&[0x00, 0xff], 128 << 20), // far too large
            (&[0x20, 0x07], USUAL),     // single segment of 7 bytes
            (&[0xa2, 1, 2, 0, 0, 0, 4], 64 << 20),
        ] {
            assert_eq!(window_size(&header(&[&MAGIC, rest].concat())), expected, "{rest:x?}");
        }
        assert_eq!(window_size(&header(b"\x1f\x8b")), 0);
        assert_eq!(window_size(&header(&[0x50, 0x2a, 0x4d, 0x18])), 128 << 20);
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
