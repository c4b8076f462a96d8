//! Arbitrary trees, written as an image, which must be valid and read back as the same tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sarus::cli::progress::Meter;
use sarus::import::blob::Blob;
use sarus::import::layer::{EntryKind, LayerEntry};
use sarus::import::squashfs::{Owner, write};
use sarus::import::tar::{Extent, Sparse};
use sarus::import::tree::Tree;
use sarus::squashfs::compression::Compression;

use crate::reading::{self, FoundContent};

const BLOCK: usize = 128 << 10;

/// Bytes of the layer: files are parts of it.
const DATA: usize = 3 * BLOCK;

/// Sizes about which blocks and fragments change.
const SIZES: [usize; 8] = [0, 1, 100, 5_000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 9];

/// A tree as the input describes it.
#[derive(Default)]
struct Sample {
    entries: Vec<LayerEntry>,
    expected: BTreeMap<Vec<u8>, FoundContent>,
    /// Directories, and targets for hard links.
    directories: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    inodes: usize,
}

/// A file in memory.
fn memory_file(name: &str) -> Option<File> {
    let path = format!("/dev/shm/sarus-fuzz-{name}-{}", std::process::id());
    File::options().read(true).write(true).create(true).truncate(true).open(path).ok()
}

/// Noise, text and zeros, one behind the other.
fn layer() -> Vec<u8> {
    let mut state = 1_u32;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(BLOCK)
    .collect();
    bytes.extend(b"some text; ".iter().cycle().take(BLOCK));
    bytes.resize(DATA, 0);
    bytes
}

impl Sample {
    /// Adds the file that five bytes and a name describe; nothing if its path is taken.
    fn add(&mut self, layer: &[u8], choice: [u8; 5], name: &[u8]) {
        let [kind, parent, size, offset, mode] = choice.map(usize::from);
        let parent = self.directories[parent % self.directories.len()].clone();
        let path = [&parent[..], b"/", name].concat();
        if self.expected.contains_key(&path) || path == b"/dev" || parent.starts_with(b"/dev") {
            return;
        }
        let size = SIZES[size % SIZES.len()];
        let offset = (offset * 600 + 512).min(DATA - size);
        let (kind, content) = match kind % 7 {
            0 | 1 => {
                let bytes = layer[offset..offset + size].to_vec();
                let (offset, length) = (offset as u64, size as u64);
                (EntryKind::File { offset, length }, FoundContent::File(bytes))
            }
            2 => (EntryKind::Directory, FoundContent::Directory),
            3 => {
                let target = name.repeat(1 + size % 3);
                let target = target[..target.len().min(255)].to_vec();
                (EntryKind::Symlink(target.clone().into()), FoundContent::Symlink(target))
            }
            4 => (EntryKind::Fifo, FoundContent::Fifo),
            5 => sparse(layer, offset, size),
            _ => return self.link(path, mode),
        };
        match content {
            FoundContent::Directory => self.directories.push(path.clone()),
            FoundContent::Fifo => {}
            _ => self.files.push(path.clone()),
        }
        self.inodes += 1;
        self.put(path, kind, mode as u16, content);
    }

    fn put(&mut self, path: Vec<u8>, kind: EntryKind, mode: u16, content: FoundContent) {
        let (entry, mtime) = (path[1..].into(), i64::from(mode));
        self.entries.push(LayerEntry { path: entry, kind, mode, mtime, xattrs: None });
        self.expected.insert(path, content);
    }

    /// Adds another name of a file.
    fn link(&mut self, path: Vec<u8>, choice: usize) {
        let Some(target) = self.files.get(choice % self.files.len().max(1)).cloned() else {
            return;
        };
        let content = match &self.expected[&target] {
            FoundContent::File(bytes) => FoundContent::File(bytes.clone()),
            FoundContent::Symlink(target) => FoundContent::Symlink(target.clone()),
            other => panic!("{other:?}"),
        };
        self.put(path, EntryKind::Link(target[1..].into()), 0, content);
    }
}

/// A file with a hole before its data, and one behind it.
fn sparse(layer: &[u8], offset: usize, size: usize) -> (EntryKind, FoundContent) {
    let bytes = &layer[offset..offset + size];
    let hole = vec![0; size * 2];
    let content = [&hole[..], bytes, &hole].concat();
    let extent = Extent { at: hole.len() as u64, length: size as u64, offset: offset as u64 };
    let extents = if size > 0 { vec![extent] } else { vec![] };
    let map = Sparse { length: content.len() as u64, extents };
    (EntryKind::Sparse(Arc::new(map)), FoundContent::File(content))
}

/// Takes the names of `bytes` one by one: five bytes of choices, one of length, the name.
fn sample(mut bytes: &[u8], layer: &[u8]) -> Sample {
    let mut sample = Sample { directories: vec![vec![]], inodes: 2, ..Sample::default() };
    while let Some(([choice @ .., length], rest)) = bytes.split_first_chunk::<6>() {
        let (name, rest) = rest.split_at(rest.len().min(1 + usize::from(*length) % 255));
        bytes = rest;
        let name: Vec<u8> =
            name.iter().map(|byte| if matches!(byte, 0 | b'/') { b'x' } else { *byte }).collect();
        let is_special =
            name.is_empty() || name == b"." || name == b".." || name.starts_with(b".wh.");
        if !is_special && sample.expected.len() < 500 {
            sample.add(layer, *choice, &name);
        }
    }
    sample
}

/// Writes the tree that `bytes` describe with the compressor that their first byte tells.
pub fn written(bytes: &[u8]) -> Option<()> {
    let (first, bytes) = bytes.split_first()?;
    let all = [Compression::Zstd(1), Compression::Gzip(1), Compression::Lz4, Compression::None];
    let layer = layer();
    let Sample { entries, expected, inodes, .. } = sample(bytes, &layer);
    let mut tree = Tree::new();
    tree.apply(0, entries).unwrap();
    let (data, out) = (memory_file("layer")?, memory_file("image")?);
    data.write_all_at(&layer, 0).ok()?;
    let data = [Blob::from_file(data).ok()?];
    let owner = Owner { uid: 1, gid: u32::from(*first) };
    let compression = all[usize::from(*first) % all.len()];
    let size = write(tree, &data, owner, compression, &out, &Meter::default()).unwrap();
    let mut image = vec![0; size as usize];
    out.read_exact_at(&mut image, 0).ok()?;
    // Hard links have no inode of their own, nor have entries with one place of their data.
    assert!(u32::from_le_bytes(image[4..8].try_into().unwrap()) as usize <= inodes);
    let mut found = reading::read(&image);
    assert!(found.remove(&b"/"[..]).is_some() && found.remove(&b"/dev"[..]).is_some());
    assert_eq!(found.len(), expected.len());
    for (path, content) in &expected {
        assert!(found[path].content == *content, "{}", path.escape_ascii());
    }
    Some(())
}
