//! Parsers of headers and bodies, with mutated input.

use super::*;
use crate::import::source::remote::is_manifest;
use crate::mutate::{Random, mutate};

/// A sample input and its parser.
type Reader = (&'static str, fn(&str));

const READERS: [Reader; 6] = [
    (
        "Bearer realm=\"https://a/t?x=y\",service=\"r\\\"s\",scope=\"repository:a/b:pull\", Basic x=y",
        |text| _ = challenge::parse(text),
    ),
    ("bytes 100-199/200", |text| _ = parse_range(text)),
    ("Sun, 06 Nov 1994 08:49:37 GMT", |text| _ = date::parse(text)),
    ("https://a.example:5000/v2/x/blobs/1?y=http://z#f", |text| {
        let base = Url::parse("https://registry.example/v2/").unwrap();
        if let Ok(url) = base.join(text) {
            assert!(!url.host().is_empty() && url.with_query("a=b").is_ok(), "{text}");
        }
    }),
    (
        r#"{"schemaVersion":2,"mediaType":"a","config":{"mediaType":"b","digest":"sha256:00","size":1},
            "layers":[{"digest":"x","size":-1}],"manifests":[{"platform":{"os":"linux"}}]}"#,
        |text| _ = is_manifest(text.as_bytes()),
    ),
    (r#"{"errors":[{"code":"DENIED","message":"no"}],"details":"d"}"#, |text| {
        _ = miniserde::json::from_str::<response::ErrorBody>(text);
    }),
];

#[test]
fn mutated_input_never_makes_a_reader_panic() {
    const DICTIONARY: &[u8] = b"\"\\,=/:@?#[]{} \t\0\xff\xc3\xa9-+99999999999999999999";
    let mut random = Random::new();
    for (seed, read) in READERS {
        for _ in 0..3000 {
            let bytes = mutate(seed.as_bytes(), DICTIONARY, &mut random);
            read(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn ranges_tell_where_they_begin_and_how_long_the_whole_is() {
    for (text, expected) in [
        ("bytes 100-199/200", Some((100, 200))),
        ("bytes 0-0/1", Some((0, 1))),
        ("bytes */200", None),
        ("bytes 100-199/*", None),
        ("items 1-2/3", None),
        ("bytes 99999999999999999999-1/2", None),
        ("", None),
    ] {
        assert_eq!(parse_range(text), expected, "{text}");
    }
}
