use super::*;
use std::fs;
use std::io::Write;

/// A temporary directory, removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sarus-store-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn repository(&self) -> Repository {
        Repository { root: self.0.join(".sarus") }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn add(repository: &Repository, name: &str, content: &str) -> Image {
    let writer = repository.image_writer(&reference(name)).unwrap();
    writer.file().write_all(content.as_bytes()).unwrap();
    let metadata = Metadata { cmd: Some(vec![name.into()]), ..Metadata::default() };
    writer.commit(&metadata, Digest::sha256(name.as_bytes())).unwrap()
}

fn keys(repository: &Repository) -> Vec<String> {
    repository.images().unwrap().into_iter().map(|image| image.paths.key).collect()
}

/// Lists all files below, without directories.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn an_image_is_added_found_replaced_and_removed() {
    let scratch = Scratch::new("life");
    let repository = scratch.repository();
    assert!(repository.images().unwrap().is_empty());
    add(&repository, "alpine", "old");
    add(&repository, "quay.io/ns/x:1", "x");
    let old = repository.find(&reference("alpine")).unwrap().unwrap();
    let running = fs::File::open(&old.paths.squashfs).unwrap();
    add(&repository, "alpine", "new");
    assert_eq!(keys(&repository), ["quay.io/ns/x/1", "index.docker.io/library/alpine/latest"]);
    assert_eq!(std::io::read_to_string(running).unwrap(), "old");
    let new = repository.find(&reference("docker.io/alpine")).unwrap().unwrap();
    assert_eq!(fs::read_to_string(&new.paths.squashfs).unwrap(), "new");
    assert_eq!(new.digest, Some(Digest::sha256(b"alpine")));
    assert_eq!(repository.metadata(&new).unwrap().cmd, Some(vec!["alpine".into()]));

    let removed = repository.remove(&reference("alpine")).unwrap();
    assert_eq!(removed.key(), "index.docker.io/library/alpine/latest");
    assert!(!repository.images_dir().join("index.docker.io").exists());
    let error = repository.remove(&reference("alpine")).unwrap_err();
    let root = repository.path().display();
    let expected =
        format!("cannot remove index.docker.io/library/alpine:latest: no such image in {root}");
    assert_eq!(error.to_string(), expected);
    repository.remove(&reference("quay.io/ns/x:1")).unwrap();
    assert_eq!(
        files(repository.path()),
        [".lock", "metadata.json"].map(|name| format!("{root}/{name}"))
    );
}

#[test]
fn what_is_given_up_leaves_nothing() {
    let scratch = Scratch::new("drop");
    let repository = scratch.repository();
    let writer = repository.image_writer(&reference("alpine")).unwrap();
    writer.file().write_all(b"half").unwrap();
    drop(writer);
    assert!(files(repository.path()).is_empty());
}

#[test]
fn a_failed_commit_is_one_error_and_leaves_the_repository_as_it_was() {
    let scratch = Scratch::new("full");
    let repository = scratch.repository();
    add(&repository, "alpine", "old");
    let before = files(repository.path());
    let writer = repository.image_writer(&reference("alpine")).unwrap();
    // A directory in the place of the index makes the last steps fail.
    let index = Index::path(repository.path());
    let text = fs::read_to_string(&index).unwrap();
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    let error = writer.commit(&Metadata::default(), Digest::sha256(b"")).unwrap_err();
    let path = repository.path().display();
    let expected = format!(
        "cannot add index.docker.io/library/alpine:latest to {path}: cannot read {path}/metadata.json: not a regular file"
    );
    assert_eq!(error.to_string(), expected);
    fs::remove_dir(&index).unwrap();
    fs::write(&index, text).unwrap();
    assert_eq!(files(repository.path()), before);
    let image = repository.find(&reference("alpine")).unwrap().unwrap();
    assert_eq!(fs::read_to_string(image.paths.squashfs).unwrap(), "old");
}

#[test]
fn a_repository_of_an_old_engine_is_read_and_kept() {
    let scratch = Scratch::new("old");
    let repository = scratch.repository();
    let images = repository.images_dir();
    let entry = |key: &str, more: &str| {
        let parts: Vec<_> = key.split('/').collect();
        let [server, namespace, image @ .., tag] = parts.as_slice() else { panic!("{key}") };
        let image = image.join("/");
        format!(
            r#"{{"uniqueKey":"{key}","server":"{server}","namespace":"{namespace}","image":"{image}","tag":"{tag}","imagePath":"/moved/{key}.squashfs","metadataPath":"/moved/{key}.meta","datasize":"2.61MB","created":"2020-01-31T15:08:56"{more}}}"#
        )
    };
    let entries = [
        entry("index.docker.io/library/alpine/latest", r#","digest":"2fe79f06fa6d12""#),
        entry("nvcr.io/nvidia/k8s/cuda-sample/nbody", r#","digest":"29e2298d9f71""#),
        entry(
            "docker.io/library/debian/12",
            r#","digest":"","id":"aaaabbbbccccdddd","future":[1]"#,
        ),
        entry("index.docker.io/library/gone/1", r#","digest":"1""#),
        entry("../../../escape/1", r#","digest":"1""#),
    ];
    for key in [
        "index.docker.io/library/alpine/latest",
        "nvcr.io/nvidia/k8s/cuda-sample/nbody",
        "docker.io/library/debian/12",
    ] {
        fs::create_dir_all(images.join(key).parent().unwrap()).unwrap();
        fs::write(images.join(format!("{key}.squashfs")), "").unwrap();
        fs::write(images.join(format!("{key}.meta")), "{}").unwrap();
    }
    let index = Index::path(repository.path());
    fs::write(&index, format!("{{\"images\":[{}],\"version\":7}}\n", entries.join(","))).unwrap();

    let table = table(&repository.images().unwrap());
    assert_eq!(
        table,
        "\
REPOSITORY                       TAG          DIGEST         CREATED               SIZE         SERVER
alpine                           latest       2fe79f06fa6d   2020-01-31T15:08:56   2.61MB       index.docker.io
nvcr.io/nvidia/k8s/cuda-sample   nbody        29e2298d9f71   2020-01-31T15:08:56   2.61MB       nvcr.io
debian                           12           aaaabbbbcccc   2020-01-31T15:08:56   2.61MB       docker.io"
    );
    for name in ["alpine", "nvcr.io/nvidia/k8s/cuda-sample:nbody", "debian:12"] {
        assert!(repository.find(&reference(name)).unwrap().is_some(), "{name}");
    }
    assert!(repository.find(&reference("gone:1")).unwrap().is_none());

    add(&repository, "new", "");
    let text = fs::read_to_string(&index).unwrap();
    assert!(text.contains(r#""future":[1]"#) && text.ends_with(r#""version":7}"#), "{text}");
    assert!(!text.contains("gone") && !text.contains("escape"), "{text}");
    assert_eq!(keys(&repository).len(), 4);
}

#[test]
fn an_empty_repository_has_a_header_and_no_more() {
    assert_eq!(
        table(&[]),
        "REPOSITORY   TAG          DIGEST       CREATED      SIZE         SERVER"
    );
}

#[test]
fn a_damaged_index_is_not_overwritten() {
    let scratch = Scratch::new("damaged");
    let repository = scratch.repository();
    fs::create_dir(repository.path()).unwrap();
    let index = Index::path(repository.path());
    fs::write(&index, r#"{"images":[{"#).unwrap();
    let error = repository.images().unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}: not a JSON object", index.display()));
    let writer = repository.image_writer(&reference("alpine")).unwrap();
    assert!(writer.commit(&Metadata::default(), Digest::sha256(b"")).is_err());
    assert_eq!(fs::read_to_string(&index).unwrap(), r#"{"images":[{"#);
}

#[test]
fn the_user_is_looked_up_in_the_sites_list() {
    let scratch = Scratch::new("user");
    let config = Config {
        prefix_dir: scratch.path().to_owned(),
        local_repository_base_dir: "/home".into(),
        ..Config::default()
    };
    let user = User {
        uid: rustix::process::Uid::from_raw(1000),
        gid: rustix::process::Gid::from_raw(100),
        groups: vec![],
    };
    let passwd = scratch.path().join("etc/passwd");
    let error = || Repository::local(&config, &user).unwrap_err();
    assert!(error().to_string().ends_with("etc/passwd: No such file or directory"));
    fs::create_dir(scratch.path().join("etc")).unwrap();
    for line in ["bob:x:1001:100::/home/bob:/bin/sh", "../root:x:1000:100::/:/bin/sh"] {
        fs::write(&passwd, line).unwrap();
        let hint = "ask the administrator to run configure_installation.sh --users";
        assert_eq!(error().hint(), Some(hint));
    }
    let line = b"bj\xf6rn:x:999:100:Bj\xf6rn::\nalice:x:1000:100:Al\xefce:/home/alice:/bin/sh\n";
    fs::write(&passwd, line).unwrap();
    let repository = Repository::local(&config, &user).unwrap();
    assert_eq!(repository.path(), Path::new("/home/alice/.sarus"));
    let error = Repository::centralized(&config).unwrap_err();
    assert_eq!(error.to_string(), "this site has no centralized repository");
}

#[test]
fn the_lock_of_a_killed_pull_is_removed_and_that_of_a_living_one_is_not() {
    let scratch = Scratch::new("locks");
    let repository = scratch.repository();
    let lease = repository.lease(&reference("living"), |_| Ok(())).unwrap();
    fs::write(repository.partial().join("dead.lock"), "").unwrap();
    // Lock of the C++ engine (1.x), which must stay.
    fs::write(repository.path().join("metadata.json.lock"), "").unwrap();
    drop(repository.image_writer(&reference("other")).unwrap());
    let left = files(repository.path());
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(Lease::try_acquire(lease.path()).unwrap().is_none());
    drop(lease);
    assert_eq!(files(&repository.partial()), Vec::<String>::new());
}
