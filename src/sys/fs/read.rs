//! Bounded reading of whole files: a file that is larger than the caller allows is refused, never cut.

use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Maximum size, in bytes, of a file below `/proc` or `/sys`: a mount table of 100,000 lines
/// (`fs.mount-max`) fits.
pub const MAX_PROC: u64 = 32 << 20;

/// Reads `source` to its end.
///
/// # Errors
/// `FileTooLarge` if it holds more than `max` bytes.
pub fn read_at_most(source: impl Read, max: u64) -> Result<Vec<u8>> {
    // A page: files of /proc tell no size, and each read may build them anew.
    let mut bytes = Vec::with_capacity(4096);
    source.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

/// Reads UTF-8 text from `source` to its end.
///
/// # Errors
/// `FileTooLarge` if it holds more than `max` bytes, `InvalidData` if it is not UTF-8.
pub fn read_text_at_most(source: impl Read, max: u64) -> Result<String> {
    String::from_utf8(read_at_most(source, max)?).map_err(|fault| {
        let position = fault.utf8_error().valid_up_to();
        Error::new(ErrorKind::InvalidData, format!("invalid UTF-8 at byte {position}"))
    })
}

/// Reads a file below `/proc` or `/sys`. Invalid UTF-8, as in names of mount points, is replaced by
/// U+FFFD.
///
/// # Errors
/// If it cannot be read, or is larger than [`MAX_PROC`].
pub fn read_proc(path: impl AsRef<Path>) -> Result<String> {
    let bytes = read_at_most(std::fs::File::open(path)?, MAX_PROC)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_is_refused_and_nothing_is_cut() {
        assert_eq!(read_at_most(&b"1234"[..], 4).unwrap(), b"1234");
        let error = read_at_most(&b"12345"[..], 4).unwrap_err();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::FileTooLarge, "larger than 4 bytes")
        );
        assert_eq!(read_text_at_most("é".as_bytes(), 2).unwrap(), "é");
        let error = read_text_at_most(&b"ab\xff"[..], 4).unwrap_err();
        assert_eq!(error.to_string(), "invalid UTF-8 at byte 2");
        assert!(read_text_at_most(std::io::repeat(b'x'), 1 << 16).is_err());
    }

    #[test]
    fn files_of_proc_are_read_although_their_size_is_0() {
        assert!(read_proc("/proc/self/status").unwrap().starts_with("Name:"));
        assert!(read_proc("/proc/self/missing").is_err());
    }
}
