//! `sarus pull` from a registry that is only nearly as it should be: what goes wrong now and then
//! is tried again, transfers go on where they broke off, and secrets go to nobody else.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::support::Installation;
use crate::support::http::{Answer, Request};
use crate::support::oci::{Blob, Built, CONFIG, LAYER, busybox, manifest, noise_layer};
use crate::support::pull::{finish, for_each};
use crate::support::server::{Exchange, Server};
use crate::support::token::basic;

/// The size of the layer on which everything is tried.
const SIZE: usize = 1_500_000;

fn image() -> Built {
    static MADE: OnceLock<Built> = OnceLock::new();
    MADE.get_or_init(|| Built::new(vec![busybox(), noise_layer("data", SIZE)])).clone()
}

/// Which time this path is asked for, from 0 on, as each of its requests sees it.
#[derive(Default)]
struct Counter(Mutex<HashMap<String, usize>>);

impl Counter {
    fn next(&self, request: &Request) -> usize {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(request.path().to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

/// What a row of a table makes of the good answer to the n-th request for a path.
type Change = fn(usize, &Request, Answer) -> Answer;

/// Pulls and runs the image through `change`, as it has to succeed; what the server was asked.
#[track_caller]
fn pull_through(row: &str, built: &Built, change: Change) -> Vec<Exchange> {
    let counter = Counter::default();
    let served = built.clone();
    let server =
        Server::new(move |request| change(counter.next(request), request, served.answer(request)));
    let installation = Installation::new();
    let name = format!("{}/ns/name:tag", server.address());
    let mut command = installation.pull_command(&name);
    command.env("SARUS_STALL_TIMEOUT", "1");
    let output = finish(&command, "");
    let log = server.log();
    assert_eq!(output.status, 0, "{row}: {output}\n{log:?}");
    installation.run_release(&name);
    let mut expected: Vec<_> = built.blobs().map(|blob| blob.digest.clone()).collect();
    expected.sort();
    assert_eq!(installation.cached(), expected, "{row}");
    log
}

/// The requests for this blob, and how many of its bytes were sent.
fn transfers(log: &[Exchange], blob: &Blob) -> (Vec<Option<usize>>, usize) {
    let ours = log.iter().filter(|entry| entry.request.target.contains(&blob.digest));
    (ours.clone().map(|entry| entry.request.range()).collect(), ours.map(|entry| entry.sent).sum())
}

#[test]
fn a_transfer_goes_on_where_it_broke_off() {
    let built = image();
    let rows: [(&str, Change); 7] = [
        ("cut before the first byte", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.cut_after(0),
            _ => answer,
        }),
        ("cut after one byte", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.cut_after(1),
            _ => answer,
        }),
        ("cut before the last byte", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.cut_after(SIZE),
            _ => answer,
        }),
        ("cut again and again, with progress", |_, request, answer| {
            match request.path().contains("/blobs/") {
                true => answer.cut_after(100_000),
                false => answer,
            }
        }),
        ("stalled in the middle", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.stall_after(SIZE / 2),
            _ => answer,
        }),
        ("cut chunks", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.chunked().cut_after(SIZE / 2),
            _ => answer,
        }),
        ("cut with no length told", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.untold_length().cut_after(SIZE / 2),
            _ => answer,
        }),
    ];
    for_each(rows, |(row, change)| {
        let log = pull_through(row, &built, change);
        let (ranges, sent) = transfers(&log, &built.layers[1]);
        let size = built.layers[1].bytes.len();
        assert!(ranges.len() > 1, "{row}: {ranges:?}");
        // Nothing is sent twice but what was still on its way when the connection broke.
        assert!(sent <= size + size / 10, "{row}: {sent} of {size} bytes, {ranges:?}");
        let starts: Vec<_> = ranges.iter().map(|range| range.unwrap_or(0)).collect();
        assert!(starts.is_sorted(), "{row}: {ranges:?}");
    });
}

#[test]
fn what_goes_wrong_once_is_tried_again() {
    let rows: [(&str, Change); 10] = [
        ("no answer", |time, _, answer| if time < 2 { Answer::none() } else { answer }),
        ("500", |time, _, answer| if time < 2 { Answer::new(500) } else { answer }),
        ("502", |time, _, answer| if time < 2 { Answer::new(502) } else { answer }),
        ("503", |time, _, answer| if time < 2 { Answer::new(503) } else { answer }),
        ("504", |time, _, answer| if time < 2 { Answer::new(504) } else { answer }),
        ("429", |time, _, answer| if time < 2 { Answer::new(429) } else { answer }),
        ("a page for a gateway's error", |time, _, answer| match time {
            0 => Answer::new(502).body(b"<html>Bad gateway</html>".to_vec()),
            _ => answer,
        }),
        ("ranges ignored", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.cut_after(SIZE / 2),
            _ if request.range().is_some() => {
                let whole = Request { headers: vec![], ..request.clone() };
                image().answer(&whole)
            }
            _ => answer,
        }),
        ("ranges refused", |time, request, answer| match time {
            0 if request.path().contains("/blobs/") => answer.cut_after(SIZE / 2),
            _ if request.range().is_some() => Answer::new(416),
            _ => answer,
        }),
        ("chunks, and no length", |_, request, answer| {
            match request.path().contains("/manifests/") {
                true => answer.chunked(),
                false => answer.untold_length(),
            }
        }),
    ];
    for_each(rows, |(row, change)| drop(pull_through(row, &image(), change)));
}

#[test]
fn the_server_says_how_long_to_wait() {
    for_each(
        ["2", "0", "-1", "soon", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT"],
        |wait| {
            for status in [429, 503] {
                let built = image();
                let counter = Counter::default();
                let server = Server::new(move |request| match counter.next(request) {
                    0 => Answer::new(status).header("Retry-After", wait),
                    _ => built.answer(request),
                });
                let installation = Installation::new();
                let name = format!("{}/ns/name:tag", server.address());
                let output = installation.pull(&name);
                assert_eq!(output.status, 0, "Retry-After '{wait}': {output}");
                let times: Vec<_> =
                    server.log_of("/manifests/").iter().map(|entry| entry.at).collect();
                let waited = times[1] - times[0];
                assert!(wait != "2" || waited >= Duration::from_secs(2), "{wait}: {waited:?}");
            }
        },
    );
}

#[test]
fn blobs_are_not_decoded_in_transit() {
    // Registries behind some proxies call a gzip layer a gzip encoding of something else.
    let log = pull_through("gzip", &image(), |_, request, answer| {
        match request.path().contains("/blobs/") {
            true => answer.header("Content-Encoding", "gzip"),
            false => answer,
        }
    });
    for entry in log {
        let accepted = entry.request.header("accept-encoding").unwrap_or("identity");
        assert_eq!(accepted, "identity", "{:?}", entry.request);
    }
}

#[test]
fn what_authorises_the_user_goes_to_nobody_else() {
    for status in [301, 302, 303, 307, 308] {
        let built = image();
        let elsewhere = Server::on("127.0.0.2", {
            let built = built.clone();
            move |request| built.answer(request)
        });
        let other = elsewhere.address();
        let registry = Server::new(move |request| {
            if request.header("authorization") != Some(&basic("alice", "secret")) {
                return Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
            }
            match request.path().contains("/blobs/") {
                // With a signature in the query, as object stores have it.
                true => Answer::redirect(
                    status,
                    &format!("http://{other}{}?X-Signature=a%2Fb%3D&x=1", request.path()),
                ),
                false => built.answer(request),
            }
        });
        let installation = Installation::new();
        let name = format!("{}/ns/name:tag", registry.address());
        let output = finish(&installation.pull_with(&["--login", &name]), "alice\nsecret\n");
        assert_eq!(output.status, 0, "{status}: {output}");
        installation.run_release(&name);
        let log = elsewhere.log();
        assert_eq!(log.len(), 3, "{log:?}");
        for Exchange { request, .. } in log {
            for header in ["authorization", "cookie", "proxy-authorization"] {
                assert_eq!(request.header(header), None, "{status}: {request:?}");
            }
            assert!(request.target.ends_with("?X-Signature=a%2Fb%3D&x=1"), "{request:?}");
        }
    }
}

#[test]
fn layers_come_from_the_registry_whatever_their_urls() {
    let elsewhere = Server::on("127.0.0.4", |_| Answer::new(404));
    let mut built = Built::busybox();
    let layer = built.layers[0].descriptor(LAYER);
    let urls = format!(r#","urls":["http://{}/x","file:///etc/passwd"]}}"#, elsewhere.address());
    let layer = format!("{}{urls}", layer.trim_end_matches('}'));
    built = built.clone().with_manifest(manifest(&built.config.descriptor(CONFIG), &[layer]));
    pull_through("urls", &built, |_, _, answer| answer);
    assert_eq!(elsewhere.log().len(), 0);
}

#[test]
fn a_registry_may_be_nothing_but_files() {
    // No digest in the headers, and a type that says nothing.
    for kind in ["application/octet-stream", "text/plain; charset=utf-8", "application/json"] {
        let built = Built { media_type: "", ..image() };
        let server = Server::new(move |request| match request.path().contains("/manifests/") {
            true => Answer::new(200)
                .header("Content-Type", kind)
                .body(Arc::clone(&built.manifest.bytes)),
            false => built.answer(request),
        });
        Installation::new().pull_and_run(&format!("{}/ns/name:tag", server.address()));
    }
}

#[test]
fn a_redirect_within_the_registry_is_followed_too() {
    let built = image();
    let server = Server::new(move |request| {
        let path = request.path();
        match path.strip_prefix("/moved") {
            Some(rest) => built.answer(&Request { target: rest.into(), ..request.clone() }),
            None if path.contains("/blobs/") => Answer::redirect(307, &format!("/moved{path}")),
            None => built.answer(request),
        }
    });
    Installation::new().pull_and_run(&format!("{}/ns/name:tag", server.address()));
}

#[test]
fn another_process_goes_on_with_what_is_there() {
    let built = image();
    let layer = &built.layers[1];
    for (what, part, is_used) in [
        ("a good part", layer.bytes[..SIZE / 3].to_vec(), true),
        ("one byte", layer.bytes[..1].to_vec(), true),
        ("nothing", vec![], false),
        ("all of it", layer.bytes.to_vec(), true),
        ("a bad part", vec![b'?'; SIZE / 3], false),
        ("too much", vec![b'?'; 2 * SIZE], false),
    ] {
        let installation = Installation::new();
        let file = format!(".sarus/cache/{}.tar.part", layer.digest);
        installation.write_home(&file, &part);
        let served = built.clone();
        let server = Server::new(move |request| served.answer(request));
        let name = format!("{}/ns/name:tag", server.address());
        let output = installation.pull(&name);
        assert_eq!(output.status, 0, "{what}: {output}");
        installation.run_release(&name);
        let (ranges, sent) = transfers(&server.log(), layer);
        let left = layer.bytes.len() - part.len().min(layer.bytes.len());
        if is_used {
            assert!(sent <= left, "{what}: {sent} instead of {left}, {ranges:?}");
        }
        assert_eq!(installation.cached().len(), 3, "{what}");
        assert!(!installation.cache().join(file).exists(), "{what}");
    }
}

#[test]
fn a_damaged_blob_in_the_cache_is_fetched_anew() {
    let built = image();
    for (what, damage) in [
        ("shorter", vec![]),
        ("longer", [&built.layers[1].bytes[..], b"x"].concat()),
        ("other bytes", vec![b'?'; built.layers[1].bytes.len()]),
    ] {
        let installation = Installation::new();
        let served = built.clone();
        let server = Server::new(move |request| served.answer(request));
        let name = format!("{}/ns/name:tag", server.address());
        installation.pull_and_run(&name);
        installation.sarus(&installation.alice, &["rmi", &name]).succeeds();
        let file = installation.cache().join(format!("{}.tar", built.layers[1].digest));
        // As a failing disk does it: the times stay.
        let times = fs::File::open(&file).unwrap().metadata().unwrap().modified().unwrap();
        fs::write(&file, damage).unwrap();
        if what != "other bytes" {
            let file = fs::File::options().write(true).open(&file).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(times)).unwrap();
        }
        server.forget();
        installation.pull_and_run(&name);
        let (_, sent) = transfers(&server.log(), &built.layers[1]);
        assert_eq!(sent, built.layers[1].bytes.len(), "{what}");
        assert_eq!(installation.cached().len(), 3, "{what}");
    }
}
