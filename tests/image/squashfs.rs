//! Images of our own writer, mounted by the kernel and unpacked by unsquashfs, and compared with the
//! tree that they were made of. Needs root (mounts), tar and squashfs-tools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sarus::cli::progress::{Meter, Progress};
use sarus::image::digest::Hasher;
use sarus::image::platform::TargetPlatform;
use sarus::import::merge;
use sarus::import::source::{self, ImageSelector};
use sarus::import::temp::TempDir;
use sarus::import::workers::cores;
use sarus::squashfs::compression::Compression;
use sarus::squashfs::validate;

const ALL: [Compression; 4] =
    [Compression::Zstd(3), Compression::Gzip(6), Compression::Lz4, Compression::None];

/// A directory of a test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts images: run it as root");
        let path = Path::new("/var/tmp").join(format!("sarus-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Imports an image with the one layer `layer.tar`.
    fn import(&self, compression: Compression, name: &str) -> PathBuf {
        self.docker_archive();
        let temp_dir = TempDir::new(&self.0).unwrap();
        let choice = ImageSelector { name: "test".into(), platform: TargetPlatform::host() };
        // A new file each time: a mount namespace of another process may keep the last one mounted, and
        // mount would find its loop device again.
        let path = self.path(name);
        fs::remove_file(&path).ok();
        let mut new = File::options();
        let out = new.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let archive = self.path("docker.tar");
        let image = source::open(archive.as_os_str(), &choice, &temp_dir, Progress::quiet());
        let merged = merge(image.unwrap(), &temp_dir, cores(), &Meter::default(), &|| {}).unwrap();
        let imported = merged.write(compression, &out, Progress::quiet()).unwrap();
        validate::check(&|bytes, at| out.read_exact_at(bytes, at), imported.size()).unwrap();
        path
    }

    fn docker_archive(&self) {
        let digest = |bytes: &[u8]| {
            let mut hasher = Hasher::default();
            hasher.update(bytes);
            hasher.finish().to_string()
        };
        let layer = digest(&fs::read(self.path("layer.tar")).unwrap());
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{}},
            "rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#
        );
        let name = digest(config.as_bytes()).replace("sha256:", "") + ".json";
        let manifest = format!(r#"[{{"Config":"{name}","RepoTags":[],"Layers":["layer.tar"]}}]"#);
        fs::write(self.path("manifest.json"), manifest).unwrap();
        fs::write(self.path(&name), config).unwrap();
        let names = ["-cf", "docker.tar", "manifest.json", &name, "layer.tar"];
        run("tar", &names, &self.0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
}

/// An image mounted by the kernel, until dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let (image, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mount", &["-t", "squashfs", "-o", "loop,ro", image, place], Path::new("/"));
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

/// Every file below `root` with type, mode, time, content, attributes and the first of its names.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.strip_prefix(root).unwrap().to_owned(), (path, metadata));
    }
    let mut first_names = BTreeMap::new();
    for (name, (_, metadata)) in &found {
        first_names.entry(metadata.ino()).or_insert_with(|| name.clone());
    }
    let describe = |(name, (path, metadata)): (PathBuf, (PathBuf, fs::Metadata))| {
        let (mode, mtime) = (metadata.mode(), metadata.mtime());
        let links = (metadata.nlink(), &first_names[&metadata.ino()]);
        let text = format!("{mode:o} {mtime} {links:?} {} {:?}", content(&path), xattrs(&path));
        (name, text)
    };
    found.into_iter().map(describe).collect()
}

fn content(path: &Path) -> String {
    let type_ = fs::symlink_metadata(path).unwrap().file_type();
    if type_.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else if type_.is_file() {
        let mut hasher = Hasher::default();
        let bytes = fs::read(path).unwrap();
        hasher.update(&bytes);
        format!("{} {}", bytes.len(), hasher.finish())
    } else {
        assert!(type_.is_dir() || type_.is_fifo());
        String::new()
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let size = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut values = BTreeMap::new();
    for name in names {
        let name = std::str::from_utf8(name).unwrap();
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(size);
        values.insert(name.to_owned(), value);
    }
    values
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 25) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A tree with all that squashfs can hold and users may make.
fn make_tree(root: &Path) {
    for name in ["dev", "many", "links/deep", "tagged"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for number in 0..20_000 {
        let path = root.join(format!("many/sample-with-a-rather-long-name-{number:06}.json"));
        fs::write(path, format!("{}", number / 2)).unwrap();
    }
    let block = 128 << 10;
    for size in [0, 1, block - 1, block, block + 1, 5 * block + 9] {
        fs::write(root.join(format!("file-{size}")), noise(size)).unwrap();
        fs::write(root.join(format!("equal-{size}")), noise(size)).unwrap();
        fs::write(root.join(format!("zeros-{size}")), vec![0; size]).unwrap();
        fs::hard_link(root.join(format!("file-{size}")), root.join(format!("links/{size}")))
            .unwrap();
    }
    for name in ["links/a", "links/deep/b", "links/deep/c"] {
        fs::hard_link(root.join("file-1"), root.join(name)).unwrap();
    }
    for length in [1, 255, 256, 300, 4095] {
        let target = "a/".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
        symlink(target, root.join(format!("symlink-{length}"))).unwrap();
    }
    fs::hard_link(root.join("symlink-300"), root.join("links/symlink")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for (at, bytes) in [(0, "head"), (7_000_000, "middle"), (20_000_000, "end")] {
        sparse.write_all_at(bytes.as_bytes(), at).unwrap();
    }
    sparse.set_len(30_000_001).unwrap();
    run("mkfifo", &["fifo", "links/fifo"], root);
    for name in ["tagged", "file-1", "sparse", "many"] {
        set_xattr(&root.join(name), "user.note", b"the same on several");
        set_xattr(&root.join(name), "user.empty", b"");
    }
    set_xattr(&root.join("file-0"), "user.large", &noise(3_000));
    set_xattr(&root.join("file-0"), "trusted.dropped", b"x");
    set_xattr(&root.join("file-0"), "user.overlay.dropped", b"x");
    fs::set_permissions(root.join("file-1"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(root.join("tagged"), fs::Permissions::from_mode(0o3777)).unwrap();
}

#[test]
fn the_kernel_and_unsquashfs_see_the_tree_that_was_imported() {
    let scratch = Scratch::new("written");
    let root = scratch.path("root");
    make_tree(&root);
    let arguments = ["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"];
    let place = ["--pax-option=delete=atime,delete=ctime", "-C", "root", "-cf", "layer.tar", "."];
    run("tar", &[&arguments[..], &place].concat(), &scratch.0);
    for name in ["trusted.dropped", "user.overlay.dropped"] {
        rustix::fs::lremovexattr(root.join("file-0"), name).unwrap();
    }
    let expected = listing(&root);
    for compression in ALL {
        let image = scratch.import(compression, "image.squashfs");
        let mounted = Mounted::new(&image, scratch.path("mounted"));
        let found = listing(&mounted.0);
        for (path, expected) in &expected {
            assert_eq!(found.get(path), Some(expected), "{} in {compression}", path.display());
        }
        assert_eq!(found.len(), expected.len());
        // Three data blocks, and a sector for the extended attributes.
        let blocks = fs::metadata(mounted.0.join("sparse")).unwrap().blocks();
        assert_eq!(blocks, 3 * (128 << 10) / 512 + 1);
        drop(mounted);
        run("unsquashfs", &["-quiet", "-d", "unpacked", image.to_str().unwrap()], &scratch.0);
        assert!(listing(&scratch.path("unpacked")) == expected, "unsquashfs in {compression}");
        fs::remove_dir_all(scratch.path("unpacked")).unwrap();
    }
}

#[test]
fn three_hundred_thousand_names_are_found() {
    const COUNT: usize = 300_000;
    let scratch = Scratch::new("names");
    let mut layer = tar::Builder::new(std::io::BufWriter::new(
        File::create(scratch.path("layer.tar")).unwrap(),
    ));
    let name = |number: usize| format!("d/{:08x}", number.wrapping_mul(2_654_435_761) as u32);
    for number in 0..COUNT {
        let mut header = tar::Header::new_gnu();
        let content = (number % 1_000).to_string();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        layer.append_data(&mut header, name(number), content.as_bytes()).unwrap();
    }
    layer.into_inner().unwrap().flush().unwrap();
    let image = scratch.import(Compression::default(), "image.squashfs");
    let mounted = Mounted::new(&image, scratch.path("mounted"));
    assert_eq!(fs::read_dir(mounted.0.join("d")).unwrap().count(), COUNT);
    for number in (0..COUNT).step_by(101) {
        let found = fs::symlink_metadata(mounted.0.join(name(number)));
        assert!(found.is_ok_and(|found| found.is_file()), "{}", name(number));
    }
    for number in (0..COUNT).step_by(1_001) {
        let content = fs::read_to_string(mounted.0.join(name(number))).unwrap();
        assert_eq!(content, (number % 1_000).to_string());
        assert!(!mounted.0.join(name(number) + "x").exists());
    }
}

#[test]
fn the_same_layers_give_the_same_bytes() {
    let scratch = Scratch::new("same");
    run("tar", &["-C", "/usr/share", "-cf", "layer.tar", "zoneinfo", "perl5"], &scratch.0);
    let first = scratch.import(Compression::default(), "first.squashfs");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let second = scratch.import(Compression::default(), "second.squashfs");
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
}
