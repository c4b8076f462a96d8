//! Compressors, the pool, contents with holes, duplicates, hard links. The kernel reads the
//! images in `tests/image/import.rs` and `tests/image/squashfs.rs`.

use std::io::Read;
use std::sync::Arc;

use super::content::ContentReader;
use super::*;
use crate::import::layer::{EntryKind, LayerEntry};
use crate::import::tar::{Extent, Sparse};
use crate::import::tree::Content;
use crate::squashfs::compressor::BlockCompressor;
use crate::squashfs::writer::reading::{self, FoundContent};
use crate::squashfs::writer::{BLOCK, Run};

const ALL: [Compression; 4] =
    [Compression::Zstd(3), Compression::Gzip(6), Compression::Lz4, Compression::None];

/// Bytes that no compressor makes smaller.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_block_comes_out_smaller_or_not_at_all() {
    let (noise, text) = (noise(1, BLOCK), b"compress me, ".repeat(BLOCK / 13));
    let mut to = vec![0; BlockCompressor::bound(BLOCK)];
    for compression in ALL {
        let mut compressor = BlockCompressor::new(compression).unwrap();
        for (raw, shrinks) in [(&noise[..], false), (&text, true), (b"", false), (b"a", false)] {
            let size = compressor.compress(raw, &mut to);
            let shrinks = shrinks && compression != Compression::None;
            assert_eq!(size.is_some_and(|size| size < raw.len()), shrinks, "{compression}");
            assert_eq!(size.is_some(), shrinks, "{compression} {}", raw.len());
        }
    }
}

#[test]
fn blocks_come_out_in_order_whatever_the_number_of_threads() {
    for workers in [1, 2, 7] {
        let pool = Pool::new(workers);
        let compressors = pool.compressors(Compression::Zstd(1)).unwrap();
        std::thread::scope(|scope| {
            for mut compressor in compressors {
                let pool = &pool;
                scope.spawn(move || pool.work(&mut compressor));
            }
            scope.spawn(|| {
                for number in 0..1000_u32 {
                    let mut block = pool.block();
                    assert_eq!(block.length, 0);
                    block.room(4).copy_from_slice(&number.to_le_bytes());
                    block.length = 4;
                    assert!(pool.push(block));
                }
                pool.end();
            });
            for number in 0..1000_u32 {
                let block = pool.next().unwrap();
                assert_eq!(block.bytes(), number.to_le_bytes());
                pool.give_back(block);
            }
            assert!(pool.next().is_none());
        });
    }
}

#[test]
fn a_closed_pool_lets_everybody_end() {
    let pool = Pool::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| while pool.push(pool.block()) {});
        scope.spawn(|| pool.work(&mut BlockCompressor::new(Compression::None).unwrap()));
        pool.next().unwrap();
        pool.close();
    });
}

#[test]
fn holes_read_as_zeros() {
    let data = [Blob::from_bytes(b"none"), Blob::from_bytes(b"headtail")];
    let extents = vec![
        Extent { at: 2, length: 4, offset: 0 },
        Extent { at: 6, length: 1, offset: 4 },
        Extent { at: 9, length: 3, offset: 5 },
    ];
    let map = Arc::new(Sparse { length: 14, extents });
    let read = |content: Content| {
        let mut bytes = Vec::new();
        let mut reader = ContentReader::new(&content, &data);
        reader.read_to_end(&mut bytes).map(|_| bytes).ok()
    };
    let expected = b"\0\0headt\0\0ail\0\0".to_vec();
    assert_eq!(read(Content::Sparse { layer: 1, map }), Some(expected));
    assert_eq!(read(Content::Whole { layer: 0, offset: 1, length: 2 }), Some(b"on".to_vec()));
    assert_eq!(read(Content::Whole { layer: 0, offset: 1, length: 9 }), None);
    assert_eq!(read(Content::Whole { layer: 2, offset: 0, length: 1 }), None);
    let map = Arc::new(Sparse { length: 9, extents: vec![] });
    assert_eq!(read(Content::Sparse { layer: 0, map }), Some(vec![0; 9]));
}

fn entry(path: &str, kind: EntryKind) -> LayerEntry {
    LayerEntry { path: path.as_bytes().into(), kind, mode: 0o644, mtime: 9, xattrs: None }
}

/// A layer of files with their bytes, laid out as in a tar, where no data is at the beginning.
#[derive(Default)]
struct Layer {
    data: Vec<u8>,
    entries: Vec<LayerEntry>,
}

impl Layer {
    fn file(&mut self, path: &str, bytes: &[u8]) {
        self.data.resize(self.data.len() + 512, 0xff);
        let (offset, length) = (self.data.len() as u64, bytes.len() as u64);
        self.data.extend_from_slice(bytes);
        self.entries.push(entry(path, EntryKind::File { offset, length }));
    }

    fn add(&mut self, path: &str, kind: EntryKind) {
        self.entries.push(entry(path, kind));
    }

    /// Inodes and data of the image, and all bytes of its file.
    fn store(self, compression: Compression, workers: usize) -> (Image, Vec<u8>) {
        let mut tree = Tree::new();
        tree.apply(0, self.entries).unwrap();
        let data = [Blob::from_bytes(&self.data)];
        let is_plain = |path: &[u8]| path.starts_with(b"/plain");
        let Flat { inodes, sources, .. } = flatten::flatten(tree, &is_plain).unwrap();
        let mut image = Image { inodes, compression, ..Image::default() };
        let path = std::env::temp_dir().join(format!("sarus-{:?}", std::thread::current().id()));
        let mut new = File::options();
        let out = new.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let mut output = Output::new(&out);
        store(&sources, &data, &Meter::default(), &mut image, &mut output, workers).unwrap();
        let position = output.position();
        let head = writer::write(&image, &mut output, position).unwrap();
        out.write_all_at(&head.bytes, 0).unwrap();
        let size = head.bytes_used.next_multiple_of(PADDING);
        out.set_len(size).unwrap();
        let mut bytes = vec![0; size as usize];
        out.read_exact_at(&mut bytes, 0).unwrap();
        (image, bytes)
    }
}

/// Files of all sizes, equal and unequal ones, holes, links.
fn sample() -> (Layer, Vec<(String, Vec<u8>)>) {
    let mut layer = Layer::default();
    let mut expected = Vec::new();
    for (number, size) in [0, 1, 9, 5_000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7]
        .into_iter()
        .enumerate()
    {
        let text = format!("text {number} ").into_bytes().into_iter().cycle().take(size);
        let files = [
            ("text", text.collect()),
            ("noise", noise(number as u32, size)),
            ("copy-of-noise", noise(number as u32, size)),
            ("zeros", vec![0; size]),
            ("holes", [vec![0; 2 * BLOCK], noise(7, size)].concat()),
            ("plain", vec![b'x'; size]),
        ];
        for (name, bytes) in files {
            let path = format!("{name}-{size}");
            layer.file(&path, &bytes);
            expected.push((path, bytes));
        }
    }
    for number in 0..3_000 {
        let (path, bytes) = (format!("d/{number}"), format!("content {}", number / 3).into_bytes());
        layer.file(&path, &bytes);
        expected.push((path, bytes));
    }
    (layer, expected)
}

#[test]
fn all_files_are_read_back() {
    for compression in ALL {
        let (layer, expected) = sample();
        let (_, bytes) = layer.store(compression, 3);
        let found = reading::read(&bytes);
        assert_eq!(found.len(), expected.len() + 3, "root, d and dev");
        for (path, content) in expected {
            let found = &found[format!("/{path}").as_bytes()];
            assert!(found.content == FoundContent::File(content), "{path} in {compression}");
        }
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let first = sample().0.store(Compression::default(), 1).1;
    for workers in [1, 2, 5] {
        assert!(first == sample().0.store(Compression::default(), workers).1, "{workers}");
    }
}

/// The inode of this file in the root directory.
fn inode_of<'i>(image: &'i Image, name: &str) -> &'i writer::Inode {
    let InodeKind::Directory(names) = &image.inodes[0].kind else { panic!() };
    let (_, index) = names.iter().find(|(found, _)| **found == *name.as_bytes()).unwrap();
    &image.inodes[*index as usize]
}

fn file_of<'i>(image: &'i Image, name: &str) -> &'i writer::File {
    match &inode_of(image, name).kind {
        InodeKind::File(file) => file,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn equal_files_are_stored_once() {
    let mut layer = Layer::default();
    let large = noise(1, 2 * BLOCK + 5);
    let mut other = large.clone();
    other[2 * BLOCK] ^= 1;
    for (name, bytes) in [("a", &large), ("b", &other), ("c", &large), ("plain", &large)] {
        layer.file(name, bytes);
    }
    for (name, bytes) in [("s1", b"same"), ("s2", b"soso"), ("s3", b"same")] {
        layer.file(name, bytes);
    }
    let (image, _) = layer.store(Compression::default(), 2);
    assert_eq!(file_of(&image, "a"), file_of(&image, "c"));
    assert_eq!(file_of(&image, "s1"), file_of(&image, "s3"));
    let distinct = ["a", "b", "plain", "s1", "s2"].map(|name| file_of(&image, name));
    assert!(distinct.iter().enumerate().all(|(at, file)| !distinct[..at].contains(file)));
    assert_eq!(image.blocks.len(), 3 * 3 + 1);
    assert_eq!(file_of(&image, "plain").runs[..], [Run::Stored { first: 6, count: 3 }]);
}

#[test]
fn all_names_of_a_file_have_one_inode() {
    let mut layer = Layer::default();
    layer.file("a", b"content");
    layer.file("equal", b"content");
    layer.file("empty", b"");
    layer.add("link", EntryKind::Symlink(b"a"[..].into()));
    layer.add("holes", EntryKind::Sparse(Arc::new(Sparse { length: 5, extents: vec![] })));
    for (name, target) in
        [("a2", "a"), ("a3", "a2"), ("e2", "empty"), ("l2", "link"), ("h2", "holes")]
    {
        layer.add(name, EntryKind::Link(target.as_bytes().into()));
    }
    // A device becomes an empty file; two are not one.
    layer.add("n1", EntryKind::Device);
    layer.add("n2", EntryKind::Device);
    let (image, _) = layer.store(Compression::None, 1);
    let links = |name: &str| inode_of(&image, name).links;
    let expected = [("a", 3), ("equal", 1), ("empty", 2), ("link", 2), ("holes", 2), ("n1", 1)];
    for (name, count) in expected {
        assert_eq!(links(name), count, "{name}");
    }
    for (name, other) in [("a", "a3"), ("empty", "e2"), ("link", "l2"), ("holes", "h2")] {
        assert!(std::ptr::eq(inode_of(&image, name), inode_of(&image, other)), "{name}");
    }
    assert!(!std::ptr::eq(inode_of(&image, "a"), inode_of(&image, "equal")));
}

#[test]
fn a_link_to_a_file_that_a_later_layer_replaces_keeps_the_old_one() {
    let mut tree = Tree::new();
    let file = |path: &str, offset| entry(path, EntryKind::File { offset, length: 1 });
    let link = |path: &str, target: &[u8]| entry(path, EntryKind::Link(target.into()));
    tree.apply(0, vec![file("a", 512), link("b", b"a"), link("c", b"a")]).unwrap();
    tree.apply(1, vec![file("a", 512), link("d", b"b")]).unwrap();
    let flat = flatten::flatten(tree, &|_| false).unwrap();
    let links = flat.sources.iter().map(|one| flat.inodes[one.inode as usize].links);
    assert_eq!(links.collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn what_squashfs_cannot_hold_is_told() {
    let huge = Arc::new(Sparse { length: flatten::MAX_TOTAL + 1, extents: vec![] });
    let mut tree = Tree::new();
    tree.apply(0, vec![entry("a/b", EntryKind::Sparse(huge))]).unwrap();
    let owner = Owner { uid: 0, gid: 0 };
    let file = File::open("/dev/null").unwrap();
    let (data, meter) = ([Blob::from_bytes(b"")], Meter::default());
    let error = write(tree, &data, owner, Compression::None, &file, &meter).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("cannot store /a/b: "), "{error}");
    assert!(error.contains("more than 1 TiB"), "{error}");
}

#[test]
fn a_full_disk_and_a_short_layer_are_told() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    for (length, expected) in [(9, "No space left"), (900, "unexpected end of file")] {
        let mut tree = Tree::new();
        tree.apply(0, vec![entry("a", EntryKind::File { offset: 512, length })]).unwrap();
        let (data, meter) = ([Blob::from_bytes(&[1; 600])], Meter::default());
        let owner = Owner { uid: 0, gid: 0 };
        let error = write(tree, &data, owner, Compression::None, &full, &meter).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
