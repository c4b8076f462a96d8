//! `sarus pull` of layers whose bytes are not those of their digest, but an image all the same: as
//! they are read while they arrive, nothing of them may ever become an image, however the threads
//! race.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::support::Installation;
use crate::support::http::Answer;
use crate::support::oci::{Blob, Built, busybox, noise_layer};
use crate::support::pull::{finish, for_each};
use crate::support::server::Server;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

const SIZE: usize = 600_000;

/// A layer that somebody would like to have in the place of another.
fn evil() -> Blob {
    noise_layer("etc/evil", 50_000)
}

fn inflated(blob: &Blob) -> Vec<u8> {
    let mut plain = vec![];
    GzDecoder::new(&blob.bytes[..]).read_to_end(&mut plain).unwrap();
    plain
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(vec![], Compression::fast());
    gzip.write_all(plain).unwrap();
    gzip.finish().unwrap()
}

/// `bytes`, continued by `filler` to this length.
fn padded(mut bytes: Vec<u8>, filler: u8, length: usize) -> Vec<u8> {
    assert!(bytes.len() <= length);
    bytes.resize(length, filler);
    bytes
}

/// Wrong bytes for a layer of this length, each a good layer for who does not look at its digest.
fn forged(length: usize) -> Vec<(&'static str, Vec<u8>)> {
    let with_zeros = [inflated(&evil()), vec![0; 200_000]].concat();
    vec![
        ("blanks", vec![b' '; length]),
        ("zeros, an empty tar", vec![0; length]),
        ("a tar and zeros", padded(inflated(&evil()), 0, length)),
        ("a tar and garbage", padded(inflated(&evil()), b'?', length)),
        ("a gzip tar and garbage", padded(evil().bytes.to_vec(), b'?', length)),
        ("a gzip tar and zeros", padded(evil().bytes.to_vec(), 0, length)),
        ("a gzip tar and an empty member", {
            let end = deflated(b"");
            let padding = padded(deflated(&with_zeros), 0, length - end.len());
            [padding, end].concat()
        }),
    ]
}

#[test]
fn a_layer_with_other_bytes_never_becomes_an_image() {
    let built = Built::new(vec![busybox(), noise_layer("data", SIZE)]);
    let layer = built.layers[1].clone();
    // At once, in pieces, and last of all: who reads is behind, or waits for more.
    type Manner = fn(Answer) -> Answer;
    let manners: [Manner; 4] = [
        |answer| answer,
        |answer| answer.slowly(100_000, Duration::from_millis(20)),
        |answer| answer.after(Duration::from_millis(300)),
        |answer| answer.slowly(SIZE - 1, Duration::from_millis(300)),
    ];
    let all = forged(layer.bytes.len());
    for round in 0..3 {
        let rows = all.iter().flat_map(|row| manners.iter().map(move |manner| (row, manner)));
        for_each(rows, |((what, bytes), manner)| {
            let (served, digest, bytes) =
                (built.clone(), layer.digest.clone(), Arc::new(bytes.clone()));
            let manner = *manner;
            let server = Server::new(move |request| {
                let good = served.answer(request);
                match request.path().contains(&digest) {
                    true => manner(good.body(Arc::clone(&bytes))),
                    false => good,
                }
            });
            let installation = Installation::new();
            let output = installation.pull(&format!("{}/ns/name:tag", server.address()));
            assert_eq!(output.status, 1, "{what}, round {round}: {output}");
            installation.refused(&output);
            let images = installation.sarus(&installation.alice, &["images"]).succeeds();
            assert_eq!(images.lines().count(), 1, "{what}: {images}");
            assert!(!installation.cached().contains(&layer.digest), "{what}");
        });
    }
}

#[test]
fn a_part_that_an_earlier_process_left_is_not_taken_on_trust() {
    let built = Built::new(vec![busybox(), noise_layer("data", SIZE)]);
    let layer = &built.layers[1];
    for_each(forged(layer.bytes.len()), |(what, bytes)| {
        for length in [bytes.len(), bytes.len() - 1, bytes.len() / 2] {
            let installation = Installation::new();
            let file = format!(".sarus/cache/{}.tar.part", layer.digest);
            installation.write_home(&file, &bytes[..length]);
            let served = built.clone();
            let server = Server::new(move |request| served.answer(request));
            let name = format!("{}/ns/name:tag", server.address());
            let output = finish(&installation.pull_command(&name), "");
            assert_eq!(output.status, 0, "{what}, {length} bytes: {output}");
            installation.run_release(&name);
            let list = ["run", &name, "ls", "/etc"];
            let shown = installation.sarus(&installation.alice, &list).succeeds();
            assert!(!shown.contains("evil"), "{what}, {length} bytes: {shown}");
            assert_eq!(installation.cached().len(), 3, "{what}");
        }
    });
}
