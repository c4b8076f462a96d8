//! `sarus pull` from a hostile registry: it ends soon, with one line, little memory, and nothing on
//! the disk but parts and good blobs.

use std::fs;
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::support::http::{Answer, Request};
use crate::support::oci::{
    Blob, Built, CONFIG, HOST, INDEX, LAYER, MANIFEST, busybox, descriptor, manifest, noise_layer,
};
use crate::support::pull::{for_each, measure};
use crate::support::server::Server;
use crate::support::{Installation, Output};

/// What a client may use at most for an image of a few megabytes, in MiB.
const MEMORY: usize = 150;
/// What a client may take of an endless body, and what it may keep, in bytes.
const TAKEN: usize = 64 << 20;
const KEPT: u64 = 16 << 20;

/// A change of the answers of a good registry.
type Change = Box<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;

/// Changes the answers to requests whose path contains `part`.
fn at(part: &'static str, change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Change {
    Box::new(move |request, good| match request.path().contains(part) {
        true => change(good),
        false => good,
    })
}

fn good() -> Built {
    Built::new(vec![busybox(), noise_layer("data", 300_000)])
}

/// Pulls `built` through `change`, which alice must not be able to; what she is told, and what the
/// server was asked.
#[track_caller]
fn refused(row: &str, built: &Built, change: Change) -> (String, Vec<Request>) {
    // What is refused here proves nothing unless the same image, unchanged, is pulled.
    static GOOD: Once = Once::new();
    GOOD.call_once(|| {
        let server = Server::new(|request| good().answer(request));
        Installation::new().pull_and_run(&format!("{}/ns/name:tag", server.address()));
    });
    let served = built.clone();
    let server = Server::new(move |request| change(request, served.answer(request)));
    let installation = Installation::new();
    let name = format!("{}/ns/name:tag", server.address());
    let mut command = installation.pull_command(&name);
    command.env("SARUS_STALL_TIMEOUT", "1");
    let (output, memory) = measure(&command);
    check(row, &installation, &output, memory);
    assert!(output.stderr.contains(&name), "{row}: {output}");
    let log = server.log();
    for entry in &log {
        assert!(entry.sent < TAKEN, "{row}: took {} bytes of {:?}", entry.sent, entry.request);
    }
    (output.stderr, log.into_iter().map(|entry| entry.request).collect())
}

#[track_caller]
fn check(row: &str, installation: &Installation, output: &Output, memory: usize) {
    assert_eq!(output.status, 1, "{row}: {output}");
    assert!(memory < MEMORY, "{row}: {memory} MiB");
    installation.refused(output);
    let Ok(files) = fs::read_dir(installation.cache()) else { return };
    let kept: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(kept < KEPT, "{row}: {kept} bytes kept");
}

#[test]
fn endless_bodies_end_soon() {
    type Endless = fn(Vec<u8>, Answer) -> Answer;
    let ways: [(&str, u8, Endless); 5] = [
        ("zeros", 0, |page, answer| answer.body(page).endless()),
        ("chunks", b' ', |page, answer| answer.body(page).endless().chunked()),
        ("open brackets", b'[', |page, answer| answer.body(page).endless()),
        ("an error", b'x', |page, _| Answer::new(404).body(page).endless()),
        ("an error of the server", b'x', |page, _| Answer::new(500).body(page).endless()),
    ];
    let parts = ["/manifests/", "/blobs/"];
    for_each(parts.iter().flat_map(|part| ways.map(|way| (*part, way))), |(part, way)| {
        let (what, byte, change) = way;
        let change = at(part, move |answer| change(vec![byte; 1 << 20], answer));
        refused(&format!("{what} without end for {part}"), &good(), change);
    });
    let header = "x".repeat(4 << 20);
    refused(
        "a header of 4 MiB",
        &good(),
        at("/manifests/", move |answer| answer.header("X-Long", &header)),
    );
}

#[test]
fn lengths_that_lie_are_found_out() {
    let lengths = ["0", "1", "99999999", "18446744073709551616", "-1", "abc", "", "1, 2"];
    let parts = ["/manifests/", "/blobs/"];
    for_each(parts.iter().flat_map(|part| lengths.map(|length| (*part, length))), |row| {
        let (part, length) = row;
        // The rest of a body that is longer than it claims looks like another answer.
        let change = at(part, move |answer| answer.claim_length(length));
        refused(&format!("Content-Length '{length}' for {part}"), &good(), change);
    });
}

#[test]
fn a_body_that_is_not_as_long_as_its_manifest_says_is_refused() {
    let built = good();
    let longer = |blob: &Blob| Arc::new([&blob.bytes[..], &[0; 100_000]].concat());
    let shorter = |blob: &Blob| Arc::new(blob.bytes[..blob.bytes.len() - 1].to_vec());
    let (config, layer) = (&built.config, &built.layers[1]);
    // Of a body that tells no length, a client may read no more than it needs.
    let rows = [
        (config, "long", longer(config), true),
        (config, "short", shorter(config), true),
        (config, "short", shorter(config), false),
        (layer, "long", longer(layer), true),
        (layer, "short", shorter(layer), true),
        (layer, "short", shorter(layer), false),
    ];
    for_each(rows, |(blob, how, bytes, is_told)| {
        let digest = blob.digest.clone();
        let change: Change = Box::new(move |request, answer| {
            if !request.path().contains(&digest) {
                return answer;
            }
            let answer = Answer::new(200).body(bytes.clone());
            if is_told { answer } else { answer.untold_length() }
        });
        refused(&format!("{} that is too {how}, told: {is_told}", blob.digest), &built, change);
    });
}

#[test]
fn who_never_answers_is_not_waited_for() {
    for_each(["/manifests/", "/blobs/"], |part| {
        let change = at(part, |answer| answer.after(Duration::from_secs(600)));
        let (told, _) = refused(&format!("no answer for {part}"), &good(), change);
        assert!(told.contains("nothing") || told.contains("answer"), "{told}");
    });
}

#[test]
fn a_manifest_is_what_the_registry_says_it_is() {
    let other = Built::busybox().manifest.digest;
    let change = at("/manifests/", move |_| {
        let built = good();
        let answer = Answer::new(200).header("Content-Type", built.media_type);
        answer.header("Docker-Content-Digest", &other).body(built.manifest.bytes)
    });
    refused("another digest", &good(), change);
}

#[test]
fn another_part_than_was_asked_for_is_not_taken() {
    let built = good();
    let digest = built.layers[1].digest.clone();
    let change: Change = Box::new(move |request, answer| match request.range() {
        _ if !request.path().contains(&digest) => answer,
        None => answer.cut_after(1_000),
        Some(_) => {
            let whole = Request { headers: vec![], ..request.clone() };
            good().answer(&whole).range(1)
        }
    });
    refused("another part", &built, change);
}

#[test]
fn manifests_that_are_none_are_refused() {
    let deep = || "[".repeat(100_000);
    let size = 10;
    let entry = descriptor(LAYER, &busybox().digest, size);
    let config = descriptor(CONFIG, &good().config.digest, size);
    let platform = r#""platform":{"os":"plan9","architecture":"mips"}}"#;
    let foreign = format!("{},{platform}", entry.trim_end_matches('}'));
    let index = |entries: String| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#)
    };
    let many = |entry: &str, count| vec![entry.to_owned(); count];
    let texts: Vec<(&str, &'static str, String)> = vec![
        ("HTML", "text/html", "<!DOCTYPE html><html>Please log in</html>".into()),
        ("HTML as manifest", MANIFEST, "<html>Please log in</html>".into()),
        ("nothing", MANIFEST, String::new()),
        ("null", MANIFEST, "null".into()),
        ("an array", MANIFEST, "[]".into()),
        ("an empty object", MANIFEST, "{}".into()),
        ("a string", MANIFEST, "\"\u{1b}[31m\"".into()),
        ("no layers", MANIFEST, manifest(&config, &[])),
        ("null as layers", MANIFEST, manifest(&config, &[]).replace("[]", "null")),
        ("no configuration", MANIFEST, manifest("null", std::slice::from_ref(&entry))),
        ("deep JSON", MANIFEST, deep()),
        ("a deep index", INDEX, deep()),
        ("deep objects", MANIFEST, r#"{"a":"#.repeat(100_000)),
        ("deep below a key", MANIFEST, format!(r#"{{"schemaVersion":2,"x":{}"#, deep())),
        ("100,000 manifests", INDEX, index(many(&foreign, 100_000).join(","))),
        ("15,000 manifests", INDEX, index(many(&foreign, 15_000).join(","))),
        ("100,000 empty manifests", INDEX, index(many("{}", 100_000).join(","))),
        ("100,000 layers", MANIFEST, manifest(&config, &many(&entry, 100_000))),
        ("20,000 layers", MANIFEST, manifest(&config, &many(&entry, 20_000))),
        ("100,000 empty layers", MANIFEST, manifest(&config, &many("{}", 100_000))),
        ("an empty index", INDEX, index(String::new())),
        ("schema 1", MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#.into()),
        ("schema 3", MANIFEST, manifest(&config, &[entry]).replace(":2", ":3")),
    ];
    for_each(texts, |(row, media_type, text)| {
        let mut built = good().with_manifest(text);
        built.media_type = media_type;
        let (told, asked) = refused(row, &built, Box::new(|_, answer| answer));
        assert!(!told.contains('\u{1b}'), "{told}");
        let blobs = asked.iter().filter(|request| request.path().contains("/blobs/"));
        assert!(blobs.count() <= 2, "{row}: fetched blobs of a manifest that is none");
    });
}

#[test]
fn an_index_in_an_index_in_an_index_has_an_end() {
    // Every digest is that of another index, for ever: the server makes them up, and does not even
    // need to lie, since each holds a new one by tag.
    let installation = Installation::new();
    let server = Server::new(|request| {
        let (_, wanted) = request.path().rsplit_once('/').unwrap();
        let mut parts = HOST.split('/');
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let next = Blob::new(wanted.as_bytes().to_vec()).digest;
        Answer::new(200).header("Content-Type", INDEX).body(
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{INDEX}",
                    "digest":"{next}","size":300,
                    "platform":{{"os":"{os}","architecture":"{architecture}"}}}}]}}"#
            )
            .into_bytes(),
        )
    });
    let (output, memory) =
        measure(&installation.pull_command(&format!("{}/a/b", server.address())));
    check("nested indexes", &installation, &output, memory);
    assert!(server.log().len() < 50, "{}", server.log().len());
}

#[test]
fn sizes_and_digests_that_are_none_are_refused_before_anything_is_fetched() {
    let layer = noise_layer("data", 1_000);
    let size = layer.bytes.len().to_string();
    let mut rows = vec![];
    for other in ["-1", "-9223372036854775808", "1e300", "99999999999999999999", "\"12\"", "null"] {
        rows.push((layer.digest.clone(), other.to_owned()));
    }
    let hex = &layer.digest["sha256:".len()..];
    for other in [
        "sha256:../../x",
        "sha256:..%2f..%2fx",
        "../../../../etc/passwd",
        "/etc/passwd",
        "sha256:",
        "sha256:abc",
        "",
        "md5:0123456789abcdef0123456789abcdef",
        &format!("sha256:{}", hex.to_uppercase()),
        &format!("sha256:{hex}/../x"),
        &format!("sha256:{hex}\\u0000"),
        &format!("sha256:{hex}\\n"),
        &format!(" sha256:{hex}"),
        &format!("sha256:{}\\ud800", &hex[..58]),
        hex,
    ] {
        rows.push((other.to_owned(), size.clone()));
    }
    for_each(rows, |(digest, size)| {
        let built = Built::new(vec![busybox(), layer.clone()]);
        let right = layer.descriptor(LAYER);
        let wrong = format!(r#"{{"mediaType":"{LAYER}","digest":"{digest}","size":{size}}}"#);
        let good = built.config.descriptor(CONFIG);
        for text in [
            manifest(&good, &[busybox().descriptor(LAYER), wrong.clone()]),
            manifest(&wrong.replace(LAYER, CONFIG), std::slice::from_ref(&right)),
        ] {
            let row = format!("digest {digest:?}, size {size}");
            let built = built.clone().with_manifest(text);
            let (_, asked) = refused(&row, &built, Box::new(|_, answer| answer));
            let blobs = asked.iter().filter(|request| request.path().contains("/blobs/"));
            assert_eq!(blobs.count(), 0, "{row}");
        }
    });
}

#[test]
fn sizes_that_are_too_large_or_too_small_are_found_out() {
    let built = good();
    for_each([0, 1, 1 << 40, i64::MAX], |size| {
        for is_config in [true, false] {
            let size = usize::try_from(size).unwrap();
            let sized = |blob: &Blob, kind, changes| match changes {
                true => descriptor(kind, &blob.digest, size),
                false => blob.descriptor(kind),
            };
            let config = sized(&built.config, CONFIG, is_config);
            let layers =
                [built.layers[0].descriptor(LAYER), sized(&built.layers[1], LAYER, !is_config)];
            let row = format!("size {size}, of the configuration: {is_config}");
            let built = built.clone().with_manifest(manifest(&config, &layers));
            refused(&row, &built, Box::new(|_, answer| answer));
        }
    });
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    for_each(
        [
            String::new(),
            "null".into(),
            "[".repeat(100_000),
            "<html>".into(),
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../../x"]}}"#.into(),
            r#"{"config":{"Env":[1,2],"Cmd":"sh"}}"#.into(),
            format!(r#"{{"author":"{}"}}"#, "x".repeat(20 << 20)),
        ],
        |text| {
            let row = format!("configuration {text:.60}");
            let mut built = good();
            built.config = Blob::new(text.into_bytes());
            let layers: Vec<_> = built.layers.iter().map(|layer| layer.descriptor(LAYER)).collect();
            let text = manifest(&built.config.descriptor(CONFIG), &layers);
            refused(&row, &built.with_manifest(text), Box::new(|_, answer| answer));
        },
    );
}

#[test]
fn redirects_to_nowhere_are_not_followed() {
    let places = [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "data:text/plain,x",
        "javascript:1",
        "unix:///run/docker.sock",
        "http://",
        "http:///etc/passwd",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "https://127.0.0.1:1/",
        "http://127.0.0.1:1/",
        "//",
        "\u{fffd}",
        "",
    ];
    let parts = ["/manifests/", "/blobs/"];
    for_each(parts.iter().flat_map(|part| places.map(|place| (*part, place))), |(part, place)| {
        let row = format!("redirect of {part} to {place:?}");
        let (told, _) = refused(&row, &good(), at(part, move |_| Answer::redirect(307, place)));
        assert!(!told.contains("root:"), "{told}");
    });
    for_each(parts, |part| {
        refused(&format!("no Location for {part}"), &good(), at(part, |_| Answer::new(302)));
    });
}

#[test]
fn redirects_in_a_circle_have_an_end() {
    let parts = ["/manifests/", "/blobs/"];
    for_each(parts.iter().flat_map(|part| [0, 100_000].map(|more| (*part, more))), |row| {
        let (part, more) = row;
        let change: Change = Box::new(move |request, answer| match request.path().contains(part) {
            true => Answer::redirect(307, &format!("{}?{}", request.path(), "x".repeat(more))),
            false => answer,
        });
        let (told, asked) = refused(&format!("a circle of {part}"), &good(), change);
        assert!(more > 0 || told.to_lowercase().contains("redirect"), "{told}");
        assert!(asked.len() < 100, "{} requests", asked.len());
    });
}
