//! `sarus images` for programs: `--json` and `--quiet`.

use crate::support::oci::digest;
use crate::support::registry::Registry;
use crate::support::{Image, Installation};

/// An installation in which alice has images of every kind: loaded, pulled, pulled by digest.
fn with_images() -> (Installation, Vec<String>) {
    let installation = Installation::new();
    let alice = &installation.alice;
    installation.load(alice, &Image::busybox(), "box");
    installation.load(alice, &Image::busybox(), "team/box:1.0");
    let registry = Registry::plain();
    let archive = format!("docker-archive:{}", Image::busybox().docker_archive().display());
    registry.push(&archive, "box:2", &[]);
    let (_, manifest) = registry.manifest("box", "2");
    let address = registry.address();
    let by_digest = format!("{address}/box@{}", digest(manifest.as_bytes()));
    for name in [&format!("{address}/box:2"), &by_digest] {
        installation.sarus(alice, &["pull", name]).succeeds();
    }
    let names = ["load/library/box:latest", "load/team/box:1.0"].map(str::to_owned);
    let names = names.into_iter().chain([format!("{address}/box:2"), by_digest]).collect();
    (installation, names)
}

#[test]
fn quiet_names_are_what_run_and_rmi_take() {
    let (installation, names) = with_images();
    let alice = &installation.alice;
    for option in ["-q", "--quiet"] {
        let listed = installation.sarus(alice, &["images", option]).succeeds();
        assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    }
    for name in &names {
        let output = installation.sarus(alice, &["run", name, "echo", "runs"]);
        assert_eq!(output.succeeds(), "runs\n", "{name}");
        installation.sarus(alice, &["rmi", name]).succeeds();
    }
    assert_eq!(installation.sarus(alice, &["images", "-q"]).succeeds(), "");
}

#[test]
fn json_has_all_that_the_table_shows_and_more() {
    let (installation, names) = with_images();
    let alice = &installation.alice;
    let table = installation.sarus(alice, &["images"]).succeeds();
    let text = installation.sarus(alice, &["images", "--json"]).succeeds();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = value.as_array().unwrap();
    assert_eq!((rows.len(), table.lines().count()), (names.len(), names.len() + 1));
    for ((row, line), name) in rows.iter().zip(table.lines().skip(1)).zip(&names) {
        let field = |key: &str| row[key].as_str().unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        let digest = &field("digest")[..12];
        let keys = ["repository", "tag", "created", "size", "server"].map(field);
        let [repository, tag, created, size, server] = keys;
        assert_eq!(cells, [repository, tag, digest, created, size, server]);
        assert_eq!(field("name"), name);
        assert_eq!(field("digest").len(), 64);
        let file = std::fs::metadata(field("path")).unwrap();
        assert_eq!(row["bytes"].as_u64(), Some(file.len()));
    }
}

#[test]
fn a_repository_without_images_is_an_empty_list() {
    let installation = Installation::new();
    let alice = &installation.alice;
    assert_eq!(installation.sarus(alice, &["images", "--json"]).succeeds(), "[]\n");
    assert_eq!(installation.sarus(alice, &["images", "--quiet"]).succeeds(), "");
    let error = installation.sarus(alice, &["images", "--quiet", "--json"]).fails(1);
    assert!(error.contains("exclude each other"), "{error}");
}
