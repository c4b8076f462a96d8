//! Small helpers for bytes: a full buffer from a reader, little-endian integers from a slice, and
//! sizes as users write and read them.

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

/// Units of sizes for users, each with its power of two.
const UNITS: [(&str, u32); 5] = [("B", 0), ("KB", 10), ("MB", 20), ("GB", 30), ("TB", 40)];

/// Formats `bytes` with two decimals, as `2.61MB`.
#[must_use]
#[allow(clippy::cast_precision_loss)] // two decimals are shown
pub fn format_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = UNITS.iter().map(|(name, _)| name).peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        if size <= 1024.0 || units.peek().is_none() {
            break;
        }
        size /= 1024.0;
    }
    format!("{size:.2}{unit}")
}

/// Parses a whole number of up to nine digits and a unit, as `20GB`. Saturates at the largest `u64`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    let number = Some(number).filter(|digits| digits.len() <= 9)?.parse::<u64>().ok()?;
    Some(number.saturating_mul(1 << shift))
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

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        for (bytes, shown) in [
            (0, "0.00B"),
            (1024, "1024.00B"),
            (1025, "1.00KB"),
            (2_736_784, "2.61MB"),
            (5_000_000_000, "4.66GB"),
            (u64::MAX, "16777216.00TB"),
        ] {
            assert_eq!(format_size(bytes), shown);
        }
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, bytes) in [
            ("0B", Some(0)),
            ("20GB", Some(20 << 30)),
            ("20 GB", Some(20 << 30)),
            ("999999999TB", Some(u64::MAX)),
            ("9999999999B", None),
            ("20", None),
            ("GB", None),
            ("-1GB", None),
            ("2.5GB", None),
            ("20gb", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
