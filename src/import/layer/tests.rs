//! Compressed and plain layers, whole and damaged.

use std::io::Write;

use ::tar::{Builder, Header};
use flate2::write::GzEncoder;

use super::*;

fn temp_dir() -> TempDir {
    TempDir::new(&std::env::temp_dir()).unwrap()
}

fn tar(content: &[u8]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "a/file", content).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; zstd_safe::compress_bound(bytes.len())];
    let size = zstd_safe::compress(frame.as_mut_slice(), bytes, 1).unwrap();
    frame.truncate(size);
    frame
}

fn source(blob: &[u8], expected: LayerDigest) -> LayerBlob {
    LayerBlob { name: "test".into(), blob: Blob::from_bytes(blob), expected }
}

/// Expands one layer, and makes the deferred digest check.
fn expanded(blob: &[u8], expected: LayerDigest) -> Result<Layer> {
    let layers = expand_all(&[source(blob, expected)], &temp_dir(), 1, &Meter::default(), &|| {})?;
    let layer = layers.into_iter().next().unwrap();
    layer.deferred.iter().try_for_each(DeferredDigest::check)?;
    Ok(layer)
}

fn content(layer: &Layer) -> Vec<u8> {
    match layer.entries[0].kind {
        EntryKind::File { offset, length } => {
            layer.data.slice(offset, length).unwrap().bytes(u64::MAX).unwrap()
        }
        ref other => panic!("{other:?}"),
    }
}

/// Content that is larger than a buffer, and does not compress well.
fn sample() -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as u8 & 0x3f
    };
    (0..600_000).map(|_| next()).collect()
}

#[test]
fn every_form_of_compression_gives_the_same_files() {
    let sample = sample();
    let tar = tar(&sample);
    let (head, tail) = tar.split_at(300_001);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&tar)].concat();
    let forms = [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip, two members", [gzip(head), gzip(tail)].concat()),
        ("gzip, an empty member", [gzip(b""), gzip(&tar), gzip(b"")].concat()),
        ("gzip, padded", [gzip(&tar), vec![0; 10_000]].concat()),
        ("zstd", zstd(&tar)),
        ("zstd, two frames", [zstd(head), zstd(tail)].concat()),
        ("zstd, skippable frames", [skippable, vec![0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat()),
    ];
    for (name, form) in forms {
        let stored = LayerDigest::Blob(Digest::sha256(&form));
        for expected in [stored, LayerDigest::DiffId(Digest::sha256(&tar))] {
            let layer = expanded(&form, expected).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(content(&layer) == sample, "{name}");
            assert_eq!(layer.data.length(), tar.len() as u64, "{name}");
        }
    }
}

#[test]
fn a_wrong_digest_is_an_error_for_every_form() {
    let tar = tar(b"content");
    for form in [tar.clone(), gzip(&tar), zstd(&tar)] {
        for expected in
            [LayerDigest::Blob(Digest::sha256(b"")), LayerDigest::DiffId(Digest::sha256(b""))]
        {
            let error = expanded(&form, expected).unwrap_err();
            assert!(error.to_string().contains(&Digest::sha256(b"").to_string()), "{error}");
            assert!(error.to_string().contains("layer test"), "{error}");
        }
    }
}

#[test]
fn a_layer_cut_anywhere_is_an_error() {
    let tar = tar(&sample());
    for form in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let expected = LayerDigest::Blob(Digest::sha256(&form));
        for length in (0..form.len()).step_by(9_973).chain(form.len() - 9..form.len()) {
            assert!(expanded(&form[..length], expected).is_err(), "{length} of {}", form.len());
        }
    }
}

#[test]
fn garbage_is_refused() {
    let tar = tar(b"content");
    let cases = [
        ([gzip(&tar), b"garbage".to_vec()].concat(), "trailing garbage after the gzip data"),
        ([zstd(&tar), b"garbage".to_vec()].concat(), "damaged zstd data"),
        (
            [tar.clone(), b"garbage".to_vec()].concat(),
            "data after the end-of-archive marker at byte",
        ),
        (gzip(&[gzip(&tar), vec![1; 600]].concat()), "not a tar archive"),
        (b"BZh9 and so on".to_vec(), "compressed with bzip2"),
        (b"\xfd7zXZ\0 and so on".to_vec(), "compressed with xz"),
        (vec![1; 600], "not a tar archive"),
    ];
    for (blob, expected) in cases {
        let error =
            expanded(&blob, LayerDigest::Blob(Digest::sha256(&blob))).unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with("cannot read layer test"), "{error}");
    }
}

#[test]
fn an_empty_layer_is_no_error() {
    for form in [vec![], vec![0; 1024], gzip(&[0; 1024]), gzip(b"")] {
        let layer = expanded(&form, LayerDigest::Blob(Digest::sha256(&form))).unwrap();
        assert!(layer.entries.is_empty());
    }
}

#[test]
fn damaged_layers_neither_panic_nor_hang() {
    let tar = tar(&sample()[..3_000]);
    let mut state = 7u64;
    for form in [gzip(&tar), zstd(&tar)] {
        for _ in 0..1_000 {
            let mut damaged = form.clone();
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % damaged.len();
            damaged[at] ^= (state >> 20) as u8 | 1;
            assert!(expanded(&damaged, LayerDigest::Blob(Digest::sha256(&form))).is_err());
        }
    }
}
