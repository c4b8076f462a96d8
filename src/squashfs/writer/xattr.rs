//! Extended attributes: equal sets are stored once, and inodes refer to them by index.

use std::collections::HashMap;

use super::Xattrs;
use super::metadata::{Chain, Finished};
use crate::error::{Error, Result};
use crate::squashfs::compression::Compression;

/// Namespace of an attribute (`SQUASHFS_XATTR_USER`).
const USER: u16 = 0;

/// Bytes of the prefix `user.` and of the zero byte behind a name, as listxattr(2) returns it.
const AROUND_NAME: usize = 6;

/// The attributes that the inodes written so far have.
pub struct Attributes<'a> {
    /// Names and values.
    pairs: Chain,
    /// Place, number and size of each set.
    ids: Chain,
    indexes: HashMap<&'a Xattrs, u32>,
}

/// The finished tables.
pub struct Tables {
    pub pairs: Finished,
    pub ids: Finished,
    /// Number of sets.
    pub count: u32,
}

impl<'a> Attributes<'a> {
    pub fn new(compression: Compression) -> Result<Self> {
        let (pairs, ids) = (Chain::new(compression)?, Chain::new(compression)?);
        Ok(Self { pairs, ids, indexes: HashMap::new() })
    }

    /// Index of this set, which is written when it is first asked for.
    pub fn index(&mut self, xattrs: &'a Xattrs) -> Result<u32> {
        if let Some(index) = self.indexes.get(xattrs) {
            return Ok(*index);
        }
        let place = self.pairs.place()?.reference();
        let mut size = 0;
        for (name, value) in xattrs {
            self.append(name, value)?;
            size += name.len() + AROUND_NAME + value.len();
        }
        let number = |number: usize| u32::try_from(number).map_err(|_| too_large());
        self.ids.append(&place.to_le_bytes())?;
        self.ids.append(&number(xattrs.len())?.to_le_bytes())?;
        self.ids.append(&number(size)?.to_le_bytes())?;
        let index = number(self.indexes.len())?;
        self.indexes.insert(xattrs, index);
        Ok(index)
    }

    fn append(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let name_length = u16::try_from(name.len()).map_err(|_| too_large())?;
        let value_length = u32::try_from(value.len()).map_err(|_| too_large())?;
        self.pairs.append(&USER.to_le_bytes())?;
        self.pairs.append(&name_length.to_le_bytes())?;
        self.pairs.append(name)?;
        self.pairs.append(&value_length.to_le_bytes())?;
        self.pairs.append(value)
    }

    pub fn finish(self) -> Result<Option<Tables>> {
        let count = u32::try_from(self.indexes.len()).map_err(|_| too_large())?;
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Tables { pairs: self.pairs.finish()?, ids: self.ids.finish()?, count }))
    }
}

#[cold]
fn too_large() -> Error {
    Error::new("the extended attributes are too large for squashfs")
}
