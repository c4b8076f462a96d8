use super::*;
use std::fs;
use std::os::unix::fs::symlink;

type Opener = fn(BorrowedFd<'_>, &Path, OFlags, Mode) -> rustix::io::Result<OwnedFd>;

/// The kernel's way, and ours for kernels that have none.
const WAYS: [(&str, Opener); 2] = [("openat2", open_by_kernel), ("walk", open_by_walk)];

/// A directory of the test's own, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sarus-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// An image's root made by somebody who means harm, beside a file that must stay out of reach.
    fn hostile(name: &str) -> Self {
        let scratch = Self::new(name);
        let root = scratch.root();
        fs::create_dir_all(root.join("usr/lib/deep")).unwrap();
        fs::write(scratch.0.join("secret"), "secret").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        fs::write(root.join("usr/lib/file"), "file").unwrap();
        for (link, target) in [
            ("lib", "usr/lib"),
            ("absolute", "/usr/lib"),
            ("up", "../../../.."),
            ("usr/lib/deep/up", "../../../../../../secret"),
            ("outside", "/../../secret"),
            ("etc", "/nowhere/../../etc"),
            ("dangling", "usr/new/dir"),
            ("loop", "loop"),
            ("a", "b"),
            ("b", "a"),
            ("file-link", "usr/lib/file"),
            ("through-file", "usr/lib/file/x"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let link = |n: u32| root.join(format!("chain{n}"));
        symlink("secret", link(0)).unwrap();
        (1..=40).for_each(|n| symlink(format!("chain{}", n - 1), link(n)).unwrap());
        scratch
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn open(&self) -> OwnedFd {
        fs::File::open(self.root()).unwrap().into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn content(file: OwnedFd) -> String {
    std::io::read_to_string(fs::File::from(file)).unwrap()
}

#[test]
fn both_ways_find_the_same_and_nothing_outside() {
    let scratch = Scratch::hostile("find");
    let root = scratch.open();
    for (path, expected) in [
        ("secret", Ok("inside")),
        ("/secret", Ok("inside")),
        ("../../secret", Ok("inside")),
        ("./usr/./lib//../../secret", Ok("inside")),
        ("lib/file", Ok("file")),
        ("absolute/file", Ok("file")),
        ("file-link", Ok("file")),
        ("up/secret", Ok("inside")),
        ("usr/lib/deep/up", Ok("inside")),
        ("outside", Ok("inside")),
        ("chain39", Ok("inside")),
        ("chain40", Err(Errno::LOOP)),
        ("loop", Err(Errno::LOOP)),
        ("a/x", Err(Errno::LOOP)),
        ("etc/passwd", Err(Errno::NOENT)),
        ("dangling", Err(Errno::NOENT)),
        ("through-file", Err(Errno::NOTDIR)),
        ("secret/..", Err(Errno::NOTDIR)),
        ("", Err(Errno::NOENT)),
    ] {
        for (way, open) in WAYS {
            let found = open(root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty());
            assert_eq!(found.map(content), expected.map(str::to_owned), "{path:?} by {way}");
        }
    }
}

#[test]
fn both_ways_understand_the_flags() {
    let scratch = Scratch::hostile("flags");
    let root = scratch.open();
    let create = OFlags::WRONLY | OFlags::CREATE;
    for (path, flags, expected) in [
        ("lib", OFlags::PATH | OFlags::NOFOLLOW, Ok(FileType::Symlink)),
        ("lib", OFlags::PATH, Ok(FileType::Directory)),
        ("lib", OFlags::RDONLY | OFlags::NOFOLLOW, Err(Errno::LOOP)),
        ("lib", OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY, Err(Errno::NOTDIR)),
        ("secret", OFlags::PATH | OFlags::DIRECTORY, Err(Errno::NOTDIR)),
        ("/", OFlags::PATH | OFlags::DIRECTORY, Ok(FileType::Directory)),
        ("usr/..", OFlags::RDONLY | OFlags::DIRECTORY, Ok(FileType::Directory)),
        ("usr", create, Err(Errno::ISDIR)),
        ("secret", create | OFlags::EXCL, Err(Errno::EXIST)),
        ("outside", create | OFlags::EXCL, Err(Errno::EXIST)),
        ("outside", create, Ok(FileType::RegularFile)),
        ("missing/file", create, Err(Errno::NOENT)),
    ] {
        for (way, open) in WAYS {
            let mode = if flags.contains(OFlags::CREATE) { 0o600 } else { 0 };
            let found = open(root.as_fd(), Path::new(path), flags, Mode::from_raw_mode(mode));
            let kind = found.and_then(status).map(|status| kind(&status));
            assert_eq!(kind, expected, "{path:?} {flags:?} by {way}");
        }
    }
    assert_eq!(fs::read_to_string(scratch.0.join("secret")).unwrap(), "secret");
}

#[test]
fn magic_links_lead_nowhere() {
    let root: OwnedFd = fs::File::open("/").unwrap().into();
    let secret = Scratch::new("magic");
    let file = fs::File::create(secret.0.join("file")).unwrap();
    fs::remove_file(secret.0.join("file")).unwrap();
    let link =
        format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
    for (way, open) in WAYS {
        let found = open(root.as_fd(), Path::new(&link), OFlags::RDONLY, Mode::empty());
        assert!(found.is_err(), "{way}");
    }
}

#[test]
fn what_is_missing_is_no_error_for_who_asks() {
    let scratch = Scratch::hostile("missing");
    let root = scratch.open();
    assert!(find_in_root(&root, Path::new("dangling"), OFlags::PATH).unwrap().is_none());
    assert!(find_in_root(&root, Path::new("lib/file"), OFlags::PATH).unwrap().is_some());
    let error = find_in_root(&root, Path::new("loop"), OFlags::PATH).unwrap_err();
    assert_eq!(error.to_string(), "cannot open loop: Too many levels of symbolic links");
}
