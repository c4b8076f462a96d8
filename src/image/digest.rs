//! SHA-256 digests (`sha256:` and 64 hexadecimal digits), and readers that verify them.
//!
//! Content that an image names by digest passes through [`Hasher`] before it is used. Other algorithms
//! of the image specification are refused: no registry or tool uses them.

use std::fmt;
use std::io::{self, Read};

use sha2::Digest as _;

use crate::error::{Error, Result};

/// SHA-256 digest, printed as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Parses `sha256:` and 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// `text` is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        text.strip_prefix("sha256:")
            .and_then(Self::from_hex)
            .ok_or_else(|| Error::new(format!("not a sha256 digest: {text:.100}")))
    }

    /// Parses exactly 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// Computes the digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
            }
            hex
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes a [`Digest`] incrementally.
#[derive(Debug, Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all bytes added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    /// Verifies that the digest is `expected`.
    ///
    /// # Errors
    /// The digests differ.
    pub fn check(self, expected: Digest) -> Result<()> {
        let found = self.finish();
        if found == expected {
            return Ok(());
        }
        Err(Error::new(format!("the digest is {found}, but {expected} was expected"))
            .with_hint("the image is damaged or was tampered with: save or copy it again"))
    }
}

/// A reader that hashes the bytes read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
}

impl<R: Read> HashingReader<R> {
    /// Hashes the bytes read from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Some(Hasher::default()) }
    }

    /// Reads `inner` without hashing: for bytes that are verified elsewhere.
    pub fn idle(inner: R) -> Self {
        Self { inner, hasher: None }
    }

    /// Takes the hash of the bytes read so far, unless idle. The reader is idle afterwards.
    pub fn take_hasher(&mut self) -> Option<Hasher> {
        self.hasher.take()
    }

    /// Returns the inner reader.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let (Some(hasher), Some(bytes)) = (&mut self.hasher, buffer.get(..count)) {
            hasher.update(bytes);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_the_exact_form_is_a_digest() {
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::sha256(b""));
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        let long = format!("{EMPTY}0");
        let upper = EMPTY.to_uppercase();
        let bad =
            ["", "sha256:", "sha256:00", "sha512:00", &EMPTY[7..], &EMPTY[..70], &long, &upper];
        for text in bad {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
        assert!(Digest::from_hex(&"é".repeat(32)).is_none());
    }

    #[test]
    fn a_reader_hashes_what_passes() {
        let mut reader = HashingReader::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        let hasher = reader.take_hasher().unwrap();
        assert!(hasher.clone().check(Digest::sha256(b"abc")).is_ok());
        assert!(hasher.check(Digest::sha256(b"abd")).is_err());
    }
}
