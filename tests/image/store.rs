//! Many writers in one repository, some of them killed: the list and the files stay in step.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sarus::image::digest::Digest;
use sarus::image::metadata::Metadata;
use sarus::site::config::Config;
use sarus::store::Repository;

/// Tells a copy of this program that it is one of the writers, and of which repository.
const REPOSITORY: &str = "SARUS_TEST_REPOSITORY";

const WRITERS: usize = 20;
const TIME: Duration = Duration::from_secs(6);

/// Every image is written in pieces of one letter, so that a mixture of two shows.
const SIZE: usize = 100_000;

fn repository(root: &Path) -> Repository {
    let config = Config { centralized_repository_dir: Some(root.into()), ..Config::default() };
    Repository::centralized(&config).unwrap()
}

/// A copy of this program that writes until it is killed, at the latest when this test ends.
struct Writer(Child);

impl Writer {
    fn start(root: &Path) -> Self {
        let mut writer = Command::new(std::env::current_exe().unwrap());
        writer.args(["--exact", "image::store::writer"]).env(REPOSITORY, root);
        Self(writer.stdout(Stdio::null()).spawn().unwrap())
    }

    fn has_failed(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn add(repository: &Repository, name: &str, letter: u8) {
    let pending = repository.image_writer(&name.parse().unwrap()).unwrap();
    for _ in 0..10 {
        pending.file().write_all(&vec![letter; SIZE / 10]).unwrap();
    }
    pending.commit(&Metadata::default(), Digest::sha256(&[letter])).unwrap();
}

/// Not a test by itself: what each of the writers does.
#[test]
fn writer() {
    let Ok(root) = std::env::var(REPOSITORY) else { return };
    let repository = repository(Path::new(&root));
    let pid = std::process::id();
    let own = format!("own/image:{pid}");
    for round in 0_u32.. {
        let name = match round % 3 {
            0 => own.as_str(),
            _ => ["shared", "shared:two"][(round + pid) as usize % 2],
        };
        if (round / 3 + pid).is_multiple_of(2) {
            add(&repository, name, b'a' + ((pid + round) % 26) as u8);
        } else if let Err(error) = repository.remove(&name.parse().unwrap()) {
            assert!(error.to_string().contains("no such image"), "{error}");
        }
    }
}

/// Every image that is listed is whole.
fn check(repository: &Repository) -> usize {
    let text = fs::read_to_string(repository.path().join("metadata.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = index["images"].as_array().unwrap();
    let mut keys = BTreeSet::new();
    for entry in entries {
        let image = fs::read(entry["imagePath"].as_str().unwrap()).unwrap();
        assert_eq!(image.len(), SIZE);
        assert!(image.iter().all(|letter| *letter == image[0]), "two images were mixed");
        let meta = fs::read_to_string(entry["metadataPath"].as_str().unwrap()).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&meta).is_ok());
        assert!(keys.insert(entry["uniqueKey"].as_str().unwrap()), "listed twice");
    }
    assert_eq!(repository.images().unwrap().len(), entries.len());
    entries.len()
}

/// What is in the directory besides what belongs there.
fn leftovers(root: &Path) -> Vec<PathBuf> {
    let list = |directory: PathBuf| fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let in_root = list(root.into()).filter(|path| {
        !["metadata.json", "images", ".lock"].iter().any(|known| path.ends_with(known))
    });
    in_root.chain(list(root.join("images/.partial"))).collect()
}

#[test]
fn twenty_writers_and_some_killed_keep_list_and_files_in_step() {
    let root = std::env::temp_dir().join(format!("sarus-stress-{}", std::process::id()));
    fs::remove_dir_all(&root).ok();
    let repository = repository(&root);
    let mut writers: Vec<_> = (0..WRITERS).map(|_| Writer::start(&root)).collect();
    let start = Instant::now();
    let mut killed = 0;
    while start.elapsed() < TIME {
        std::thread::sleep(Duration::from_millis(30));
        assert!(!writers.iter_mut().any(Writer::has_failed), "a writer failed");
        writers[killed % WRITERS] = Writer::start(&root);
        killed += 1;
    }
    drop(writers);
    check(&repository);
    add(&repository, "last", b'z');
    let listed = check(&repository);
    assert!(killed > WRITERS && listed > 0, "{killed} killed, {listed} images listed");
    assert_eq!(leftovers(&root), Vec::<PathBuf>::new());
    fs::remove_dir_all(&root).unwrap();
}
