//! Archives and layouts made in memory: every form, and what is wrong with some.

use std::io::Write;
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::import::layer::LayerDigest;

/// A file of a test's own that goes away with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("sarus-source-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn with(name: &str, bytes: &[u8]) -> Self {
        let scratch = Self::new(name);
        std::fs::write(&scratch.0, bytes).unwrap();
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0)).ok();
    }
}

fn selector(name: &str) -> ImageSelector {
    ImageSelector { name: name.into(), platform: TargetPlatform::parse("linux/amd64").unwrap() }
}

fn opened(path: &Scratch, name: &str) -> Result<SourceImage> {
    let temp_dir = TempDir::new(&std::env::temp_dir()).unwrap();
    open(path.0.as_os_str(), &selector(name), &temp_dir, Progress::quiet())
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

const LAYER: [u8; 1024] = [0; 1024];

fn config(layers: usize) -> String {
    let ids = vec![format!("\"{}\"", Digest::sha256(&LAYER)); layers].join(",");
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"],"Env":null}},
            "rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
    )
}

fn docker(manifest: &str, config_name: &str) -> Vec<u8> {
    archive(&[
        ("manifest.json", manifest.as_bytes()),
        (config_name, config(2).as_bytes()),
        ("l/layer.tar", &LAYER),
    ])
}

#[test]
fn a_docker_archive_is_read_plain_or_compressed() {
    let name = format!("{}.json", Digest::sha256(config(2).as_bytes()).hex());
    let manifest = format!(
        r#"[{{"Config":"{name}","RepoTags":null,"Layers":["l/layer.tar","./l//layer.tar"]}}]"#
    );
    let plain = docker(&manifest, &name);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut zstd = vec![0; zstd_safe::compress_bound(plain.len())];
    let size = zstd_safe::compress(zstd.as_mut_slice(), &plain, 1).unwrap();
    zstd.truncate(size);
    for (form, bytes) in [("plain", plain), ("gz", gzip.finish().unwrap()), ("zst", zstd)] {
        let image = opened(&Scratch::with(form, &bytes), "any").unwrap();
        assert_eq!(image.digest, Digest::sha256(config(2).as_bytes()));
        assert_eq!(image.metadata.cmd, Some(vec!["sh".into()]));
        assert_eq!(image.layers.len(), 2);
        for layer in image.layers {
            assert_eq!(layer.expected, LayerDigest::DiffId(Digest::sha256(&LAYER)));
            assert_eq!(layer.blob.bytes(2000).unwrap(), LAYER);
        }
    }
}

#[test]
fn layers_may_be_links_in_the_archive() {
    let mut tar = Builder::new(Vec::new());
    let mut add = |name: &str, kind: EntryType, link: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        match link {
            "" => tar.append_data(&mut header, name, content).unwrap(),
            link => tar.append_link(&mut header, name, link).unwrap(),
        }
    };
    let manifest = r#"[{"Config":"c.json","Layers":["a/layer.tar","b/layer.tar"]}]"#;
    add("manifest.json", EntryType::Regular, "", manifest.as_bytes());
    add("c.json", EntryType::Regular, "", config(2).as_bytes());
    add("a/layer.tar", EntryType::Symlink, "../b/layer.tar", b"");
    add("b/layer.tar", EntryType::Link, "x", b"");
    add("x", EntryType::Regular, "", &LAYER);
    add("loop", EntryType::Symlink, "loop", b"");
    add("out", EntryType::Symlink, "../../etc/passwd", b"");
    let scratch = Scratch::with("links", &tar.into_inner().unwrap());
    let image = opened(&scratch, "any").unwrap();
    assert!(image.layers.iter().all(|layer| layer.blob.bytes(2000).unwrap() == LAYER));
    let temp_dir = TempDir::new(&std::env::temp_dir()).unwrap();
    let files = Files::open(scratch.0.as_os_str(), &temp_dir, Progress::quiet()).unwrap();
    assert!(files.find("loop").unwrap_err().to_string().contains("too many links"));
    assert!(files.find("out").unwrap().is_none());
    assert!(files.find("../x").is_err());
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let manifest = r#"[
        {"Config":"c.json","RepoTags":["docker.io/library/a:latest","a:1"],"Layers":[]},
        {"Config":"c.json","RepoTags":["b:2"],"Layers":["l/layer.tar","l/layer.tar"]}]"#;
    let scratch = Scratch::with("several", &docker(manifest, "c.json"));
    assert_eq!(opened(&scratch, "b:2").unwrap().layers.len(), 2);
    // The first has as many layers as it should not.
    let wrong = opened(&scratch, "a").unwrap_err().to_string();
    assert!(wrong.contains("the image has 0 layers, but its configuration lists 2"), "{wrong}");
    let error = opened(&scratch, "c").unwrap_err().to_string();
    assert!(error.ends_with("docker.io/library/a:latest = a:1, b:2"), "{error}");
}

#[test]
fn an_invalid_docker_archive_is_an_error_that_says_why() {
    let hex = Digest::sha256(b"").hex();
    let wrong_name = format!(r#"[{{"Config":"{hex}.json","Layers":[]}}]"#);
    let cases: [(Vec<u8>, &str); 9] = [
        (docker("[]", "c"), "no image found"),
        (docker("{", "c"), "cannot read manifest.json: malformed JSON"),
        (docker("\"\u{e9}\"", "c"), "malformed JSON"),
        (docker(r#"[{"Config":"x"}]"#, "c"), "no file x in it"),
        (docker(r#"[{"Config":"../x"}]"#, "c"), "invalid file name ../x"),
        (
            docker(r#"[{"Config":"c","Layers":["y","y"]}]"#, "c"),
            "cannot open layer 1: no file y in it",
        ),
        (docker(&wrong_name, &format!("{hex}.json")), "does not match its name"),
        (archive(&[("x", b"")]), "no manifest.json, no index.json"),
        (vec![0; 0], "no manifest.json, no index.json"),
    ];
    for (number, (bytes, expected)) in cases.iter().enumerate() {
        let scratch = Scratch::with(&format!("wrong-{number}"), bytes);
        let error = opened(&scratch, "any").unwrap_err().to_string();
        assert!(error.starts_with("cannot load /") && error.contains(expected), "{error}");
    }
    let error = opened(&Scratch::new("missing"), "any").unwrap_err().to_string();
    assert!(error.ends_with("missing: No such file or directory"), "{error}");
}

/// A layout being written.
struct Layout {
    directory: Scratch,
    blobs: PathBuf,
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Layout {
    fn new(name: &str) -> Self {
        let directory = Scratch::new(name);
        let blobs = directory.0.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        Self { directory, blobs }
    }

    fn blob(&self, type_: &str, content: &[u8]) -> String {
        let digest = Digest::sha256(content);
        std::fs::write(self.blobs.join(digest.hex()), content).unwrap();
        let size = content.len();
        format!(r#""mediaType":"{type_}","digest":"{digest}","size":{size}"#)
    }

    /// A manifest of as many layers, as the inside of its descriptor.
    fn manifest(&self, layers: usize) -> String {
        let config =
            self.blob("application/vnd.oci.image.config.v1+json", config(layers).as_bytes());
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &LAYER);
        let layers = vec![format!("{{{layer}}}"); layers].join(",");
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{{config}}},"layers":[{layers}]}}"#);
        self.blob(MANIFEST, manifest.as_bytes())
    }

    fn index(&self, entries: &[String]) -> String {
        let entries = entries.iter().map(|entry| format!("{{{entry}}}"));
        let entries = entries.collect::<Vec<_>>().join(",");
        format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
    }

    fn open(&self, entries: &[String], name: &str) -> Result<SourceImage> {
        std::fs::write(self.directory.0.join("index.json"), self.index(entries)).unwrap();
        opened(&self.directory, name)
    }
}

fn on(entry: &str, platform: &str) -> String {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
    let variant = parts.next().map(|variant| format!(r#","variant":"{variant}""#));
    let variant = variant.unwrap_or_default();
    format!(r#"{entry},"platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}"#)
}

fn tagged(entry: &str, name: &str) -> String {
    format!(r#"{entry},"annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
}

#[test]
fn an_image_is_found_in_a_layout() {
    let layout = Layout::new("layout");
    let [one, two, three] = [1, 2, 3].map(|layers| layout.manifest(layers));
    let nested = layout.index(&[on(&one, "linux/arm64/v8"), on(&two, "linux/amd64")]);
    let nested = layout.blob(INDEX, nested.as_bytes());
    let attestation = format!(
        r#"{},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}"#,
        on(&three, "unknown/unknown")
    );
    /// Name, index, the name asked for, and how many layers are found or what the error says.
    type Case = (&'static str, Vec<String>, &'static str, Result<usize, &'static str>);
    let cases: &[Case] = &[
        ("only one", vec![one.clone()], "any", Ok(1)),
        ("only one, named", vec![tagged(&one, "x")], "any", Ok(1)),
        ("by tag", vec![tagged(&one, "x"), tagged(&two, "y")], "repo:y", Ok(2)),
        ("by name", vec![tagged(&one, "a:y"), tagged(&two, "b:y")], "library/b:y", Ok(2)),
        ("none is named so", vec![tagged(&one, "x"), two.clone()], "z", Err("x, (without a name)")),
        ("by platform", vec![on(&one, "linux/s390x"), on(&two, "linux/amd64")], "any", Ok(2)),
        ("nested", vec![nested.clone()], "any", Ok(2)),
        ("nested, by name", vec![tagged(&one, "x"), tagged(&nested, "y")], "y", Ok(2)),
        ("an attestation", vec![attestation, on(&two, "linux/amd64")], "any", Ok(2)),
        (
            "the best variant",
            vec![
                on(&three, "linux/amd64/v3"),
                on(&two, "linux/amd64/v1"),
                on(&one, "linux/amd64/v2"),
            ],
            "any",
            Ok(2),
        ),
        (
            "for others only",
            vec![on(&one, "linux/arm64"), on(&two, "windows/amd64")],
            "any",
            Err("no image for linux/amd64, only for linux/arm64, windows/amd64"),
        ),
        (
            "too new a variant",
            vec![on(&one, "linux/amd64/v4")],
            "any",
            Err("only for linux/amd64/v4"),
        ),
        ("nothing", vec![], "any", Err("no image found")),
    ];
    for (name, entries, wanted, expected) in cases {
        match (layout.open(entries, wanted), expected) {
            (Ok(image), Ok(layers)) => assert_eq!(image.layers.len(), *layers, "{name}"),
            (Err(error), Err(text)) => {
                assert!(error.to_string().ends_with(text), "{name}: {error}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
    }
    let image = layout.open(&[one], "any").unwrap();
    assert_eq!(image.layers[0].expected, LayerDigest::Blob(Digest::sha256(&LAYER)));
}

#[test]
fn an_invalid_layout_is_an_error_that_says_why() {
    let layout = Layout::new("layout-wrong");
    let manifest = |text: &str| vec![layout.blob(MANIFEST, text.as_bytes())];
    let mut nested = layout.manifest(1);
    for _ in 0..5 {
        nested = layout.blob(INDEX, layout.index(&[nested]).as_bytes());
    }
    let chart = layout.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
    let config = layout.blob("application/octet-stream", config(1).as_bytes());
    let typed = |type_: &str| {
        let layer = layout.blob(type_, &LAYER);
        manifest(&format!(r#"{{"config":{{{config}}},"layers":[{{{layer}}}]}}"#))
    };
    let cases: &[(Vec<String>, &str)] = &[
        (manifest(r#"{"schemaVersion":1,"fsLayers":[]}"#), "schema 1"),
        (manifest(r#"{"schemaVersion":2}"#), "has no configuration"),
        (manifest("{}x"), "malformed JSON"),
        (manifest(&format!(r#"{{"config":{{{chart}}},"layers":[]}}"#)), "not a container image"),
        (
            manifest(&format!(r#"{{"config":{{{config}}},"layers":[]}}"#)),
            "the image has 0 layers, but",
        ),
        (vec![nested], "nested too deeply"),
        (typed("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "unknown media type"),
        (typed("application/octet-stream"), "unknown media type"),
        (vec![layout.manifest(1).replace("\"size\":", "\"size\":1")], " bytes instead of 1"),
        (vec![layout.manifest(1).replace("sha256:", "sha512:")], "not a sha256 digest"),
    ];
    for (entries, expected) in cases {
        let error = layout.open(entries, "any").unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let entry = layout.manifest(1);
    let digest = Digest::parse(entry.split('"').find(|part| part.starts_with("sha256:")).unwrap());
    let path = layout.blobs.join(digest.unwrap().hex());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() = b' ';
    std::fs::write(path, bytes).unwrap();
    let error = layout.open(&[entry], "any").unwrap_err();
    assert!(error.to_string().contains("the digest is sha256:"), "{error}");
}

#[test]
fn names_are_compared_without_what_docker_adds() {
    let same =
        [("a", "a:latest"), ("docker.io/library/a:1", "a:1"), ("index.docker.io/x/a", "x/a")];
    assert!(same.iter().all(|(left, right)| same_name(left, right)));
    let other = [("a", "a:1"), ("a", "x/a"), ("localhost:5000/a", "a"), ("h:1/a", "h:2/a")];
    assert!(other.iter().all(|(left, right)| !same_name(left, right)));
}

#[test]
fn platforms_are_ranked() {
    let of = |text: &str| {
        let mut parts = text.split('/').map(String::from);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        crate::image::platform::Platform { os, architecture, variant: parts.next() }
    };
    let cases = [
        ("linux/amd64", "linux/amd64", Some(0)),
        ("linux/amd64", "linux/amd64/v1", Some(0)),
        ("linux/amd64", "linux/amd64/v2", None),
        ("linux/amd64", "linux/386", None),
        ("linux/amd64", "windows/amd64", None),
        ("linux/arm64/v8", "linux/arm64", Some(100)),
        ("linux/arm64/v8", "linux/arm64/v8", Some(0)),
        ("linux/arm/v7", "linux/arm/v6", Some(1)),
        ("linux/arm/v6", "linux/arm/v7", None),
    ];
    for (wanted, offered, expected) in cases {
        let wanted = TargetPlatform::parse(wanted).unwrap();
        assert_eq!(wanted.fit(&of(offered)), expected, "{wanted} {offered}");
    }
    assert!(
        ["", "linux", "windows/amd64", "linux/", "linux/a/b/c"]
            .iter()
            .all(|text| TargetPlatform::parse(text).is_err())
    );
}
