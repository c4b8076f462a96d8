//! A bare machine: the smallest Debian that there is, as a root file system with an OCI runtime and
//! without compiler, Rust or Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Output, Scratch};

/// One that a test can change as it likes; removed when dropped.
#[derive(Debug)]
pub struct Machine(Scratch);

/// Becomes the only file system that there is, as a machine's own is: its mounts and processes end
/// with the command.
const ENTER: &str = r#"
    mount --bind "$1" "$1"
    cd "$1"
    mount --rbind /dev dev
    mount --rbind /sys sys
    mount -t proc proc proc
    pivot_root . mnt
    umount --lazy /mnt
    exec chroot . env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root sh -ec "$2""#;

/// Made once, and kept below target/.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare-machine");
        if !base.exists() {
            let work = Scratch::new("debootstrap");
            let root = work.path("root");
            let uri = ["indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"];
            let mirrors = Output::of(Command::new("apt-get").args(uri)).succeeds();
            let mirror = mirrors.lines().find(|mirror| !mirror.contains("security")).unwrap();
            let mut debootstrap = Command::new("debootstrap");
            debootstrap.args(["--variant=minbase", "--include=runc", "bookworm"]);
            Output::of(debootstrap.arg(&root).arg(mirror)).succeeds();
            fs::rename(root, &base).unwrap();
        }
        base
    })
}

impl Machine {
    /// With the users alice and bob, fresh from the installer.
    pub fn new() -> Self {
        let this = Self(Scratch::new("machine"));
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto"]).arg(base()).arg(this.root());
        Output::of(&mut copy).succeeds();
        this.runs("useradd --create-home alice; useradd --create-home bob");
        this
    }

    /// Where the host has it.
    pub fn root(&self) -> PathBuf {
        self.0.path("root")
    }

    /// Runs a shell script as its root.
    pub fn run(&self, script: &str) -> Output {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        command.args(["sh", "-ec", ENTER, "sh"]).arg(self.root()).arg(script);
        Output::of(&mut command)
    }

    /// Runs a shell script that has to succeed; what it printed.
    #[track_caller]
    pub fn runs(&self, script: &str) -> String {
        self.run(script).succeeds()
    }
}
