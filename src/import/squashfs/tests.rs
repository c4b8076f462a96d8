//! Compressors, the queue ahead of the writer, and contents with holes. That the kernel takes the
//! images is shown in `tests/import.rs`.

use std::io::Read;
use std::sync::Arc;

use backhand::compression::CompressionAction;

use super::*;
use crate::import::tar::{Extent, Sparse};

const ALL: [Compression; 4] =
    [Compression::Zstd(3), Compression::Gzip(6), Compression::Lz4, Compression::None];

#[test]
fn compressions_have_names_and_levels() {
    let cases = [
        ("zstd", None, Some(Compression::Zstd(3))),
        ("zstd", Some(22), Some(Compression::Zstd(22))),
        ("zstd", Some(23), None),
        ("zstd", Some(0), None),
        ("gzip", None, Some(Compression::Gzip(6))),
        ("gzip", Some(12), Some(Compression::Gzip(12))),
        ("gzip", Some(13), None),
        ("lz4", None, Some(Compression::Lz4)),
        ("lz4", Some(1), None),
        ("none", None, Some(Compression::None)),
        ("none", Some(1), None),
        ("xz", None, None),
        ("", None, None),
    ];
    for (name, level, expected) in cases {
        assert_eq!(Compression::new(name, level).ok(), expected, "{name} {level:?}");
    }
    let error = Compression::new("zstd", Some(99)).unwrap_err().to_string();
    assert_eq!(error, "no zstd compression level 99: choose 1 to 22");
}

#[test]
fn a_block_comes_out_smaller_or_longer() {
    let mut state = 1u32;
    let noise: Vec<u8> = (0..BLOCK)
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 24) as u8
        })
        .collect();
    let text = b"compress me, ".repeat(BLOCK / 13);
    for compression in ALL {
        let mut engine = Engine::new(compression).unwrap();
        for (raw, shrinks) in [(&noise[..], false), (&text, true), (b"", false), (b"a", false)] {
            let length = engine.compress(raw).len();
            assert_ne!(length, raw.len(), "{compression}");
            let shrinks = shrinks && compression != Compression::None;
            assert_eq!(length < raw.len(), shrinks, "{compression} {}", raw.len());
        }
    }
}

/// Asks for `asked` while the walker guessed `guessed`; every answer must be what compressing in
/// place gives.
fn answers_are_right(guessed: &[&[u8]], asked: &[&[u8]]) {
    let queue = Queue::new(2);
    let compression = Compression::Zstd(1);
    let ahead = Ahead::new(&queue, Engine::new(compression).unwrap());
    let mut engine = Engine::new(compression).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..queue.workers() {
            scope.spawn(|| queue.work(compression));
        }
        scope.spawn(|| {
            let _ = guessed.iter().all(|block| queue.push(block.to_vec()));
            queue.end();
        });
        for block in asked {
            let kind = compression.superblock().unwrap();
            let answer = ahead.compress(block, kind, 0).unwrap();
            assert_eq!(answer, engine.compress(block));
        }
        queue.close();
    });
}

#[test]
fn a_wrong_guess_never_shows() {
    let blocks: Vec<Vec<u8>> = (0..200u8).map(|byte| vec![byte; 5000]).collect();
    let all: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    let backwards: Vec<_> = all.iter().rev().copied().collect();
    let twice: Vec<_> = all.iter().flat_map(|block| [*block, *block]).collect();
    answers_are_right(&all, &all);
    answers_are_right(&all, &backwards);
    answers_are_right(&all, &twice);
    answers_are_right(&twice, &all);
    answers_are_right(&all, &all[50..60]);
    answers_are_right(&all[50..60], &all);
    answers_are_right(&[], &all);
    answers_are_right(&all, &[]);
    answers_are_right(&all, &[b"", &[1; 4999], &[1; 5000]]);
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
        let mut reader = ContentReader::new(content, &data, None);
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

#[test]
fn what_squashfs_cannot_hold_is_told() {
    let entry = |path: &str, kind| crate::import::layer::LayerEntry {
        path: path.as_bytes().into(),
        kind,
        mode: 0o644,
        mtime: 0,
    };
    let huge = Arc::new(Sparse { length: MAX_TOTAL + 1, extents: vec![] });
    let cases = [
        (
            crate::import::layer::EntryKind::Symlink(vec![b'x'; 256].into()),
            "its link has 256 bytes",
        ),
        (crate::import::layer::EntryKind::Sparse(huge), "more than 1 TiB"),
    ];
    for (what, expected) in cases {
        let mut tree = Tree::new();
        tree.apply(0, vec![entry("a/b", what)]).unwrap();
        let owner = Owner { uid: 0, gid: 0 };
        let file = std::fs::File::open("/dev/null").unwrap();
        let data = [Blob::from_bytes(b"")];
        let meter = Meter::default();
        let error = write(tree, &data, owner, Compression::None, &file, &meter).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("cannot store /a/b: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
