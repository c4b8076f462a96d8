use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// A root directory of the test's own, in which this user plays root's part.
struct Site {
    root: PathBuf,
    verifier: Verifier,
}

impl Site {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("sarus-trust-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        for (directory, mode) in
            [("", 0o755), ("opt", 0o755), ("opt/etc", 0o755), ("tmp", 0o1777), ("group", 0o775)]
        {
            fs::create_dir(root.join(directory)).unwrap();
            fs::set_permissions(root.join(directory), fs::Permissions::from_mode(mode)).unwrap();
        }
        let verifier = Verifier {
            root: fs::File::open(&root).unwrap().into(),
            owner: rustix::process::getuid().as_raw(),
            checks: Checks::On,
        };
        let site = Self { root, verifier };
        site.file("opt/etc/good", 0o644);
        site.file("tmp/file", 0o644);
        site.file("group/file", 0o755);
        site.file("opt/etc/open", 0o666);
        site.file("opt/program", 0o755);
        site.link("sbin", "opt/etc");
        site.link("opt/to-tmp", "../tmp/file");
        site.link("opt/over-tmp", "../tmp/back");
        site.link("tmp/back", "/opt/etc/good");
        site.link("opt/loop", "loop");
        site
    }

    fn file(&self, path: &str, mode: u32) {
        fs::write(self.root.join(path), "text").unwrap();
        fs::set_permissions(self.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.root.join(path)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        match self.verifier.read(Path::new(path), 100) {
            Ok(text) => text,
            Err(error) => format!("! {error}; {}", error.hint().unwrap_or("-")),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

#[test]
fn only_what_nobody_else_can_change_is_read() {
    let site = Site::new("read");
    for (path, expected) in [
        ("/opt/etc/good", "text"),
        ("/sbin/good", "text"),
        ("/sbin/../program", "text"),
        (
            "/opt/etc/open",
            "! cannot trust /opt/etc/open: /opt/etc/open is writable for its group and others; chmod go-w /opt/etc/open",
        ),
        (
            "/tmp/file",
            "! cannot trust /tmp/file: /tmp is writable for its group and others; every user can write in /tmp: choose another directory",
        ),
        (
            "/group/file",
            "! cannot trust /group/file: /group is writable for its group; chmod go-w /group",
        ),
        (
            "/opt/to-tmp",
            "! cannot trust /opt/to-tmp: /tmp is writable for its group and others; every user can write in /tmp: choose another directory",
        ),
        (
            "/opt/over-tmp",
            "! cannot trust /opt/over-tmp: /tmp is writable for its group and others; every user can write in /tmp: choose another directory",
        ),
        ("/opt/loop", "! cannot open /opt/loop: Too many levels of symbolic links; -"),
        (
            "/opt/missing",
            "! cannot open /opt/missing: No such file or directory; install it, or name another in sarus.json",
        ),
        ("/opt", "! cannot read /opt: not a file; -"),
    ] {
        assert_eq!(site.read(path), expected);
    }
}

#[test]
fn the_wrong_owner_is_named_where_it_first_shows() {
    let mut site = Site::new("owner");
    let uid = site.verifier.owner;
    site.verifier.owner += 1;
    let expected = format!("! cannot trust /sbin/good: / is owned by uid {uid}; chown -h root /");
    assert_eq!(site.read("/sbin/good"), expected);
    site.verifier.checks = Checks::Off;
    assert_eq!(site.read("/sbin/good"), "text");
}

#[test]
fn content_is_bounded_and_text() {
    let site = Site::new("content");
    fs::write(site.root.join("opt/big"), "x".repeat(101)).unwrap();
    fs::write(site.root.join("opt/binary"), b"ab\xff").unwrap();
    assert_eq!(site.read("/opt/big"), "! cannot read /opt/big: larger than 100 bytes; -");
    assert_eq!(site.read("/opt/binary"), "! cannot read /opt/binary: invalid UTF-8 at byte 2; -");
    rustix::fs::mkfifoat(&site.verifier.root, "opt/pipe", Mode::from_raw_mode(0o600)).unwrap();
    assert_eq!(site.read("/opt/pipe"), "! cannot read /opt/pipe: not a file; -");
}

#[test]
fn programs_are_executable_files() {
    let site = Site::new("program");
    let program = |path: &str| site.verifier.program(Path::new(path)).map_err(|e| e.to_string());
    assert!(program("/opt/program").is_ok());
    assert_eq!(program("/opt/etc/good").unwrap_err(), "cannot use /opt/etc/good: not executable");
    assert_eq!(program("/opt").unwrap_err(), "cannot use /opt: not a file");
    assert!(site.verifier.find(Path::new("/opt/missing")).unwrap().is_none());
}

#[test]
fn trees_are_looked_into() {
    let site = Site::new("tree");
    let tree = || site.verifier.tree(Path::new("/opt")).map(drop).map_err(|e| e.to_string());
    let remove = |path: &str| fs::remove_file(site.root.join(path)).unwrap();
    assert!(tree().is_err());
    remove("opt/etc/open");
    remove("opt/loop");
    remove("opt/over-tmp");
    assert_eq!(
        tree().unwrap_err(),
        "cannot trust /opt: cannot trust /opt/to-tmp: /tmp is writable for its group and others"
    );
    remove("opt/to-tmp");
    assert_eq!(tree(), Ok(()));
    fs::create_dir(site.root.join("opt/many")).unwrap();
    for n in 0..MAX_ENTRIES {
        fs::write(site.root.join(format!("opt/many/{n}")), "").unwrap();
    }
    assert_eq!(
        tree().unwrap_err(),
        "cannot trust /opt: cannot look into /opt/many: too many files to check"
    );
}
