//! Reads images back with `backhand`, for tests.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use backhand::compression::{CompressionAction, Compressor};
use backhand::kind::Kind;
use backhand::{
    BackhandError, FilesystemCompressor, FilesystemReader, InnerNode, NodeHeader, SuperBlock,
};
use std::os::unix::ffi::OsStrExt;

use crate::squashfs::validate;

/// Decompressors of a test's own: `backhand` is built without any.
struct Decompressors;

impl CompressionAction for Decompressors {
    type Error = BackhandError;
    type Compressor = Compressor;
    type FilesystemCompressor = FilesystemCompressor;
    type SuperBlock = SuperBlock;

    fn decompress(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        compressor: Compressor,
    ) -> Result<(), BackhandError> {
        let mut to = vec![0; 128 << 10];
        let size = match compressor {
            Compressor::Zstd => zstd_safe::decompress(to.as_mut_slice(), bytes).unwrap(),
            Compressor::Lz4 => lz4_flex::block::decompress_into(bytes, &mut to).unwrap(),
            Compressor::Gzip => {
                libdeflater::Decompressor::new().zlib_decompress(bytes, &mut to).unwrap()
            }
            other => panic!("{other:?}"),
        };
        out.extend_from_slice(&to[..size]);
        Ok(())
    }

    fn compress(
        &self,
        _: &[u8],
        _: FilesystemCompressor,
        _: u32,
    ) -> Result<Vec<u8>, BackhandError> {
        unreachable!()
    }
}

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub mode: u16,
    pub owner: (u32, u32),
    pub mtime: u32,
    pub content: FoundContent,
}

#[derive(Debug, PartialEq, Eq)]
pub enum FoundContent {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
}

/// All files of an image by path, which must be valid.
pub fn read(image: &[u8]) -> BTreeMap<Vec<u8>, Found> {
    let read = |buffer: &mut [u8], at: u64| {
        let at = usize::try_from(at).unwrap();
        buffer.copy_from_slice(image.get(at..at + buffer.len()).unwrap());
        Ok(())
    };
    validate::check(&read, image.len() as u64).unwrap();
    let kind = Kind::new_v4(&Decompressors);
    let image = Cursor::new(image);
    let reader = FilesystemReader::from_reader_with_offset_and_kind(image, 0, kind).unwrap();
    let files = reader.files().map(|node| {
        let NodeHeader { permissions: mode, uid, gid, mtime } = node.header;
        let content = match &node.inner {
            InnerNode::Dir(_) => FoundContent::Directory,
            InnerNode::NamedPipe => FoundContent::Fifo,
            InnerNode::Symlink(link) => {
                FoundContent::Symlink(link.link.as_os_str().as_bytes().into())
            }
            InnerNode::File(file) => {
                let mut bytes = Vec::new();
                reader.file(file).reader().read_to_end(&mut bytes).unwrap();
                FoundContent::File(bytes)
            }
            other => panic!("{other:?}"),
        };
        let path = node.fullpath.as_os_str().as_bytes().to_vec();
        (path, Found { mode, owner: (uid, gid), mtime, content })
    });
    files.collect()
}
