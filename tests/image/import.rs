//! Images made by umoci and skopeo, imported, mounted by the kernel, and compared with umoci's own
//! unpacking. Needs root (mounts), umoci, skopeo, squashfs-tools and busybox-static.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use sarus::cli::progress::{Meter, Progress};
use sarus::image::digest::Hasher;
use sarus::image::platform::TargetPlatform;
use sarus::import::merge;
use sarus::import::source::{self, ImageSelector};
use sarus::import::temp::TempDir;
use sarus::import::workers::cores;
use sarus::squashfs::compression::Compression;
use tar::{Builder, EntryType, Header};

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

/// An OCI layout `oci` with the image `test` of these tars, made by umoci.
fn layout(scratch: &Scratch, layers: &[&Path]) {
    run("umoci", &["init", "--layout", "oci"], &scratch.0);
    run("umoci", &["new", "--image", "oci:test"], &scratch.0);
    for layer in layers {
        let layer = layer.to_str().unwrap();
        run("umoci", &["raw", "add-layer", "--image", "oci:test", layer], &scratch.0);
    }
    let environment = "--config.env=PATH=/bin";
    run("umoci", &["config", "--image", "oci:test", "--config.cmd=sh", environment], &scratch.0);
}

/// Imports `source` and compares what the kernel shows of it with `expected`.
fn import_and_compare(
    scratch: &Scratch,
    source: &str,
    compression: Compression,
    expected: &BTreeMap<String, String>,
) {
    let temp_dir = TempDir::new(&scratch.0).unwrap();
    let choice = ImageSelector { name: "test".into(), platform: TargetPlatform::host() };
    // A new file each time: a mount namespace of another process may keep the last one mounted, and mount
    // would find its loop device again.
    let path = scratch.path("image.squashfs");
    fs::remove_file(&path).ok();
    let mut new = File::options();
    let out = new.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let source = scratch.path(source);
    let image = source::open(source.as_os_str(), &choice, &temp_dir, Progress::quiet()).unwrap();
    let merged = merge(image, &temp_dir, cores(), &Meter::default(), &|| {}).unwrap();
    let imported = merged.write(compression, &out, Progress::quiet()).unwrap();
    assert_eq!(imported.size(), out.metadata().unwrap().len());
    assert_eq!(imported.size() % 4096, 0);
    assert_eq!(imported.metadata().cmd.as_deref(), Some(&["sh".to_owned()][..]));
    let mounted = Mounted::new(&path, &scratch.path("mounted"));
    let found = listing(&mounted.0, |_| {});
    for (path, expected) in expected {
        let found = found.get(path).map_or("nothing", String::as_str);
        assert_eq!(found, expected, "{path} in {compression} of {}", source.display());
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{path} should not be there");
    }
}

/// An image mounted by the kernel, until dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let (image, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mount", &["-t", "squashfs", "-o", "loop,ro", image, place], Path::new("/"));
        Self(at.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

/// Every file below `root` with type, mode, owner, size, digest or target, and time.
fn listing(root: &Path, adapt: impl Fn(&mut Listed)) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let type_ = metadata.file_type();
        let (kind, content) = if type_.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ("directory", String::new())
        } else if type_.is_symlink() {
            ("link", fs::read_link(&path).unwrap().display().to_string())
        } else if type_.is_fifo() {
            ("fifo", String::new())
        } else {
            assert!(type_.is_file(), "{}", path.display());
            let mut hasher = Hasher::default();
            hasher.update(&fs::read(&path).unwrap());
            ("file", format!("{} {}", metadata.len(), hasher.finish()))
        };
        let mut listed = Listed {
            name: name.escape_ascii().to_string(),
            kind,
            content,
            mode: metadata.mode() & 0o7777,
            mtime: metadata.mtime(),
        };
        let owner = (metadata.uid(), metadata.gid());
        assert_eq!(owner, (0, 0), "the owner of {}", path.display());
        adapt(&mut listed);
        let Listed { name, kind, content, mode, mtime } = listed;
        // umoci gives the root the time of the unpacking.
        let mtime = if name.is_empty() { 0 } else { mtime };
        all.insert(name, format!("{kind} {mode:o} {mtime} {content}"));
    }
    all
}

struct Listed {
    name: String,
    kind: &'static str,
    content: String,
    mode: u32,
    mtime: i64,
}

/// What umoci makes of the image, under our rules: the owner may read and write everything, there
/// is nothing in `/dev`, and times are those that squashfs can tell.
fn unpacked(scratch: &Scratch) -> BTreeMap<String, String> {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    run("umoci", &["unpack", "--rootless", "--image", "oci:test", "bundle"], &scratch.0);
    let mut listing = listing(&scratch.path("bundle/rootfs"), |listed| {
        listed.mode |= match listed.kind {
            "directory" => 0o700,
            "link" => 0o777,
            _ => 0o600,
        };
        listed.mtime = listed.mtime.clamp(0, u32::MAX.into());
        // Directories that no layer describes have no time in our images, so that the same layers
        // always give the same tree.
        if listed.kind == "directory" && listed.mtime + 1 >= start.cast_signed() {
            listed.mtime = 0;
        }
    });
    listing.retain(|path, _| !path.starts_with("dev/"));
    listing.entry("dev".into()).or_insert_with(|| "directory 755 0 ".into());
    listing
}

/// Imports the layout in all its forms and with all compressors.
fn all_forms_are_as_umoci_unpacks_them(scratch: &Scratch) {
    let expected = unpacked(scratch);
    for (form, name) in [("docker-archive", "docker.tar:test:latest"), ("oci-archive", "oci.tar")] {
        let to = format!("{form}:{name}");
        run("skopeo", &["--insecure-policy", "copy", "oci:oci:test", &to], &scratch.0);
    }
    run("gzip", &["-1k", "docker.tar"], &scratch.0);
    for compression in ALL {
        import_and_compare(scratch, "oci", compression, &expected);
    }
    for source in ["docker.tar", "docker.tar.gz", "oci.tar"] {
        import_and_compare(scratch, source, Compression::default(), &expected);
    }
    let image = scratch.path("image.squashfs");
    run("unsquashfs", &["-d", "unsquashed", image.to_str().unwrap()], &scratch.0);
    assert_eq!(listing(&scratch.path("unsquashed"), |_| {}), expected);
}

/// A tar made by hand.
struct Layer {
    tar: Builder<File>,
    path: PathBuf,
    header: Header,
}

impl Layer {
    fn new(scratch: &Scratch, name: &str) -> Self {
        let path = scratch.path(name);
        let mut header = Header::new_gnu();
        header.set_mode(0o640);
        header.set_mtime(1_234_567_890);
        Self { tar: Builder::new(File::create(&path).unwrap()), path, header }
    }

    fn entry(mut self, type_: EntryType, name: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = self.header.clone();
        header.set_entry_type(type_);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        self.tar.append_data(&mut header, name, content).unwrap();
        self
    }

    fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, mode, b"")
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, 0o644, content)
    }

    fn link(mut self, type_: EntryType, name: &str, target: &str) -> Self {
        let mut header = self.header.clone();
        header.set_entry_type(type_);
        header.set_size(0);
        self.tar.append_link(&mut header, name, target).unwrap();
        self
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    fn at(mut self, mtime: u64) -> Self {
        self.header.set_mtime(mtime);
        self
    }

    fn done(self) -> PathBuf {
        self.tar.into_inner().unwrap();
        self.path
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 25) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_busybox_image_is_as_umoci_unpacks_it() {
    let scratch = Scratch::new("busybox");
    let busybox = fs::read("/bin/busybox").unwrap();
    let names = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    let mut layer = Layer::new(&scratch, "layer.tar")
        .directory("./", 0o755)
        .directory("./bin/", 0o755)
        .entry(EntryType::Regular, "./bin/busybox", 0o4755, &busybox)
        .directory("./tmp/", 0o1777)
        .directory("./dev/", 0o755)
        .entry(EntryType::Char, "./dev/null", 0o666, b"");
    for name in String::from_utf8(names).unwrap().lines().filter(|name| *name != "busybox") {
        layer = match name.len() % 2 {
            0 => layer.hard_link(&format!("./bin/{name}"), "./bin/busybox"),
            _ => layer.symlink(&format!("./bin/{name}"), "busybox"),
        };
    }
    layout(&scratch, &[&layer.done()]);
    all_forms_are_as_umoci_unpacks_them(&scratch);
}

#[test]
fn every_merging_rule_is_as_umoci_has_it() {
    let scratch = Scratch::new("merge");
    let block = 128 << 10;
    let lower = Layer::new(&scratch, "lower.tar")
        .directory("./", 0o750)
        .file("removed", b"x")
        .file("replaced", b"old")
        .file("directory-to-file/a", b"x")
        .file("file-to-directory", b"x")
        .directory("opaque", 0o755)
        .file("opaque/old", b"x")
        .file("opaque/deep/old", b"x")
        .directory("merged", 0o700)
        .file("merged/old", b"x")
        .directory("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("absolute", "/usr/lib")
        .entry(EntryType::Regular, "none", 0o000, b"unreadable")
        .entry(EntryType::Regular, "setuid", 0o6755, b"x")
        .directory("closed", 0o000)
        .file("closed/x", b"x")
        .directory("sticky", 0o3777)
        .entry(EntryType::Fifo, "fifo", 0o644, b"")
        .file("empty", b"")
        .file("block", &noise(block))
        .file("more-than-a-block", &noise(block + 1))
        .file("less-than-a-block", &noise(block - 1))
        .file("zeros", &vec![0; 3 * block + 5])
        .file("holes", &[noise(block), vec![0; 2 * block], noise(9)].concat())
        .file("same-as-more", &noise(block + 1))
        .file(&"n".repeat(255), b"long")
        .file(&format!("{}/x", vec!["deep"; 100].join("/")), b"deep")
        .symlink("link-of-255", &"t".repeat(255))
        .hard_link("hard", "more-than-a-block")
        .symlink("dangling", "/nowhere/at/all")
        .at(0)
        .file("epoch", b"x")
        .at(u64::from(u32::MAX))
        .file("2106", b"x")
        .done();
    let upper = Layer::new(&scratch, "upper.tar")
        .at(1_300_000_000)
        .file(".wh.removed", b"")
        .file("replaced", b"new")
        .file("directory-to-file", b"x")
        .directory("file-to-directory", 0o711)
        .file("file-to-directory/x", b"x")
        .directory("opaque", 0o711)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"x")
        .directory("merged", 0o755)
        .file("merged/new", b"x")
        .file("lib/behind", b"x")
        .file("absolute/behind-too", b"x")
        .hard_link("hard-across", "hard")
        .hard_link("hard-behind", "lib/behind")
        .file("gone/.wh.never-there", b"")
        .done();
    layout(&scratch, &[&lower, &upper]);
    all_forms_are_as_umoci_unpacks_them(&scratch);
}

#[test]
fn a_real_root_is_as_umoci_unpacks_it() {
    let scratch = Scratch::new("root");
    let (lower, upper) = (scratch.path("lower.tar"), scratch.path("upper.tar"));
    let tar = |to: &Path, arguments: &[&str]| {
        let to = to.to_str().unwrap();
        let arguments = [&["--sparse", "-C", "/", "-cf", to], arguments].concat();
        run("tar", &arguments, Path::new("/"));
    };
    tar(&lower, &["--format=gnu", "etc", "usr/share/zoneinfo", "usr/lib/git-core"]);
    tar(&upper, &["--format=pax", "usr/sbin", "usr/share/perl5", "etc/alternatives"]);
    layout(&scratch, &[&lower, &upper]);
    all_forms_are_as_umoci_unpacks_them(&scratch);
}

#[test]
fn large_directories_are_whole() {
    let scratch = Scratch::new("many");
    // Beyond 256 entries there is a second header, beyond 64 KiB another kind of directory.
    let mut layer = Layer::new(&scratch, "layer.tar").directory("dev", 0o755).directory("d", 0o755);
    for number in 0..6_000 {
        layer = layer.file(&format!("d/file-{number}"), format!("{}", number / 2).as_bytes());
    }
    layout(&scratch, &[&layer.done()]);
    let expected = unpacked(&scratch);
    assert_eq!(expected.len(), 6_003);
    import_and_compare(&scratch, "oci", Compression::default(), &expected);
}

#[test]
fn every_form_of_sparse_files_is_read() {
    let scratch = Scratch::new("sparse");
    let root = scratch.path("root");
    fs::create_dir_all(root.join("dev")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for (at, content) in [(0, "head"), (7_000_000, "middle"), (20_000_000, "end")] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, content.as_bytes(), at).unwrap();
    }
    sparse.set_len(30_000_000).unwrap();
    let expected = listing(&root, |_| {});
    run("umoci", &["init", "--layout", "oci"], &scratch.0);
    let pax = ["0.0", "0.1", "1.0"].map(|version| ["--format=pax", "--sparse-version", version]);
    for form in pax.iter().map(|form| &form[..]).chain([&["--format=gnu"][..]]) {
        let arguments = [form, &["--sparse", "-C", "root", "-cf", "layer.tar", "."]].concat();
        run("tar", &arguments, &scratch.0);
        assert!(fs::metadata(scratch.path("layer.tar")).unwrap().len() < 1 << 20);
        for arguments in [
            &["new", "--image", "oci:test"][..],
            &["raw", "add-layer", "--image", "oci:test", "layer.tar"],
            &["config", "--image", "oci:test", "--config.cmd=sh"],
        ] {
            run("umoci", arguments, &scratch.0);
        }
        import_and_compare(&scratch, "oci", Compression::default(), &expected);
        run("umoci", &["rm", "--image", "oci:test"], &scratch.0);
    }
}
