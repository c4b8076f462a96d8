//! Small helpers for bytes: a full buffer from a reader, little-endian integers from a slice.

use std::io::{ErrorKind, Read};

use crate::error::{Cause, Result};

/// Reads until `buffer` is full or `reader` is at its end. Returns the number of bytes read.
///
/// # Errors
/// Errors of `reader`.
pub fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into_error()),
        }
    }
    Ok(filled)
}

/// The `N` bytes at `offset`, if `bytes` is long enough.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// The little-endian 16-bit integer at `offset`, if `bytes` is long enough.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// The little-endian 32-bit integer at `offset`, if `bytes` is long enough.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// The little-endian 64-bit integer at `offset`, if `bytes` is long enough.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_little_endian_and_never_read_beyond_the_end() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(u16_at(&bytes, 0), Some(0x0201));
        assert_eq!(u32_at(&bytes, 1), Some(0x0504_0302));
        assert_eq!(u64_at(&bytes, 1), Some(0x0908_0706_0504_0302));
        assert_eq!((u16_at(&bytes, 8), u32_at(&bytes, 6), u64_at(&bytes, 2)), (None, None, None));
        assert_eq!(u16_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn a_buffer_is_filled_by_several_reads() {
        let mut buffer = [0; 6];
        let mut reader = b"ab".chain(&b"cde"[..]);
        assert_eq!(fill(&mut reader, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer, b"abcde\0");
    }
}
