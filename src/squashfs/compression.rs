//! Compressors of squashfs images: names, levels, ids in the superblock, and options of the kernel.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A compressor that Linux can read, if it was built so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compressor {
    /// zlib, the default of the format.
    #[default]
    Gzip,
    /// LZO, which images of this engine never use.
    Lzo,
    /// LZMA2, which images of this engine never use.
    Xz,
    /// LZ4, since Linux 3.19.
    Lz4,
    /// Zstandard, since Linux 4.14.
    Zstd,
}

impl Compressor {
    /// All compressors with their names.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("zstd", Self::Zstd),
        ("gzip", Self::Gzip),
        ("lz4", Self::Lz4),
        ("xz", Self::Xz),
        ("lzo", Self::Lzo),
    ];

    /// Compressors that this engine writes.
    pub const WRITTEN: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Lz4];

    /// Name, as in `mksquashfs -comp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, other)| *other == self).map_or("", |(name, _)| name)
    }

    /// Id in the superblock (`squashfs_fs.h` of the kernel).
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Gzip => 1,
            Self::Lzo => 3,
            Self::Xz => 4,
            Self::Lz4 => 5,
            Self::Zstd => 6,
        }
    }

    /// Compressor with the id `id` in the superblock.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::NAMED.into_iter().map(|(_, compressor)| compressor).find(|known| known.id() == id)
    }

    /// Options that this engine writes behind the superblock, as a metadata block. Only lz4 must have
    /// them: version 1, no flags (`struct lz4_comp_opts` in the kernel's `lz4_wrapper.c`).
    #[must_use]
    pub fn options(self) -> &'static [u8] {
        match self {
            Self::Lz4 => &[8, 0x80, 1, 0, 0, 0, 0, 0, 0, 0],
            _ => &[],
        }
    }

    /// Size of its options behind the superblock, in bytes.
    #[must_use]
    pub fn options_size(self) -> u64 {
        if self == Self::Zstd { 4 } else { 8 }
    }

    /// Option of the kernel configuration without which images cannot be mounted.
    #[must_use]
    pub fn kernel_option(self) -> &'static str {
        match self {
            Self::Gzip => "CONFIG_SQUASHFS_ZLIB",
            Self::Lzo => "CONFIG_SQUASHFS_LZO",
            Self::Xz => "CONFIG_SQUASHFS_XZ",
            Self::Lz4 => "CONFIG_SQUASHFS_LZ4",
            Self::Zstd => "CONFIG_SQUASHFS_ZSTD",
        }
    }
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Compression of the blocks of an image that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Small and fast to read. Level 1 to 22.
    Zstd(u32),
    /// Read by every kernel. Level 1 to 12.
    Gzip(u32),
    /// Fastest to read, a third larger.
    Lz4,
    /// No compression: as large as the files.
    None,
}

impl Default for Compression {
    /// Within 3 % of the size of `mksquashfs`'s gzip, and some 25 times cheaper to write.
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl Compression {
    /// Names on the command line and in `sarus.json`, each at its default level.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("zstd", Self::Zstd(3)),
        ("gzip", Self::Gzip(6)),
        ("lz4", Self::Lz4),
        ("none", Self::None),
    ];

    /// Levels to choose from, if there are any.
    #[must_use]
    pub fn levels(self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::Zstd(_) => Some(1..=22),
            Self::Gzip(_) => Some(1..=12),
            Self::Lz4 | Self::None => None,
        }
    }

    /// Sets the level, one of [`Compression::levels`].
    #[must_use]
    pub fn with_level(self, level: u32) -> Self {
        match self {
            Self::Zstd(_) => Self::Zstd(level),
            Self::Gzip(_) => Self::Gzip(level),
            other => other,
        }
    }

    /// Compressor in the superblock. An image that is not compressed needs one too.
    #[must_use]
    pub fn compressor(self) -> Compressor {
        match self {
            Self::Zstd(_) => Compressor::Zstd,
            Self::Lz4 => Compressor::Lz4,
            Self::Gzip(_) | Self::None => Compressor::Gzip,
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Parses `NAME[:LEVEL]`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let named = Self::NAMED.iter().find(|(known, _)| *known == name);
        let Some((_, compression)) = named else {
            let text = format!("unknown compression {name:?}: expected zstd, gzip, lz4 or none");
            return Err(Error::new(text));
        };
        match (level, compression.levels()) {
            (None, _) => Ok(*compression),
            (Some(_), None) => Err(Error::new(format!("{name} compression has no levels"))),
            (Some(level), Some(levels)) => {
                let number = level.parse().ok().filter(|number| levels.contains(number));
                let number = number.ok_or_else(|| {
                    let (from, to) = levels.into_inner();
                    Error::new(format!(
                        "invalid {name} compression level '{level}': expected {from} to {to}"
                    ))
                })?;
                Ok(compression.with_level(number))
            }
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(level) => write!(f, "zstd level {level}"),
            Self::Gzip(level) => write!(f, "gzip level {level}"),
            Self::Lz4 => f.write_str("lz4"),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_a_name_and_a_level_where_there_are_levels() {
        for (text, expected) in [
            ("zstd", Ok(Compression::default())),
            ("zstd:22", Ok(Compression::Zstd(22))),
            ("gzip", Ok(Compression::Gzip(6))),
            ("gzip:1", Ok(Compression::Gzip(1))),
            ("lz4", Ok(Compression::Lz4)),
            ("none", Ok(Compression::None)),
            ("xz", Err("unknown compression \"xz\": expected zstd, gzip, lz4 or none")),
            ("", Err("unknown compression \"\": expected zstd, gzip, lz4 or none")),
            ("lz4:1", Err("lz4 compression has no levels")),
            ("zstd:23", Err("invalid zstd compression level '23': expected 1 to 22")),
            ("gzip:0", Err("invalid gzip compression level '0': expected 1 to 12")),
            ("gzip:-1", Err("invalid gzip compression level '-1': expected 1 to 12")),
            ("gzip:", Err("invalid gzip compression level '': expected 1 to 12")),
        ] {
            let found = text.parse::<Compression>().map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn every_compressor_has_a_name_and_an_id() {
        for (name, compressor) in Compressor::NAMED {
            assert_eq!(compressor.name(), name);
            assert_eq!(Compressor::from_id(compressor.id()), Some(compressor), "{name}");
        }
        // lzma, which Linux never read.
        assert_eq!(Compressor::from_id(2), None);
    }
}
