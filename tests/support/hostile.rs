//! What attacks are made of: small C programs, images of any content, and a look at what they may
//! not touch.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::image::copy_busybox_rootfs;
use super::{Installation, Output, User};

impl Installation {
    /// A static program from C source, which root owns and all may execute.
    pub fn compile(&self, name: &str, source: &str) -> PathBuf {
        let path = self.path(name);
        let mut cc = Command::new("cc");
        cc.args(["-static", "-O1", "-x", "c", "-", "-o"]).arg(&path).stdin(Stdio::piped());
        let mut child = cc.spawn().expect("cc is not installed");
        child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "cannot compile {name}");
        path
    }

    /// A program that runs another one as a kernel would that knows system call `number` but not
    /// `value` as its argument `index`.
    pub fn refusing(&self, number: i64, index: usize, value: u32) -> PathBuf {
        let source = r#"
        #include <errno.h>
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <stddef.h>
        #include <sys/prctl.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NUMBER, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[INDEX])),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, VALUE, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog filter = {sizeof code / sizeof *code, code};
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 99;
            execvp(argv[1], argv + 1);
            return 98;
        }"#;
        let source = source.replace("NUMBER", &number.to_string());
        let source = source.replace("INDEX", &index.to_string());
        self.compile("refusing", &source.replace("VALUE", &value.to_string()))
    }

    /// The root directory of a busybox image, which the test may change before [`Self::forge`].
    pub fn rootfs(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        copy_busybox_rootfs(&root);
        root
    }

    /// Puts an image into the repository of `user` without asking the engine, as anyone can who
    /// owns one: `root` as mksquashfs(1) packs it, and `meta` as it stands.
    pub fn forge(&self, user: &User, root: &Path, name: &str, meta: &str) -> PathBuf {
        let image = self.forge_entry(user, name, meta);
        let mut pack = Command::new("mksquashfs");
        pack.arg(root).arg(&image).args(["-noappend", "-quiet", "-no-progress", "-comp", "gzip"]);
        // Content is not compressed, which takes most of the time.
        pack.args(["-noD", "-noF"]);
        Output::of(&mut pack).succeeds();
        give(&image, user);
        image
    }

    /// All of an image in the repository of `user` but the file, whose path is given back.
    pub fn forge_entry(&self, user: &User, name: &str, meta: &str) -> PathBuf {
        let repository = self.repository(user);
        let folder = repository.join("images/load/library").join(name);
        fs::create_dir_all(&folder).unwrap();
        let index = repository.join("metadata.json");
        let image = folder.join("latest.squashfs");
        let key = format!("load/library/{name}/latest");
        let entry = format!(
            r#"{{"uniqueKey": "{key}", "server": "load", "tag": "latest",
                "namespace": "library", "image": "{name}", "imagePath": "/etc/shadow",
                "metadataPath": "../../../etc/shadow", "digest": "", "datasize": "", "created": ""}}"#
        );
        let text = fs::read_to_string(&index).unwrap_or(r#"{"images":[]}"#.into());
        if !text.contains(&format!("\"{key}\"")) {
            let comma = if text.contains("uniqueKey") { "," } else { "" };
            let (before, _) = text.rsplit_once("]}").unwrap();
            fs::write(&index, format!("{before}{comma}{entry}]}}")).unwrap();
        }
        fs::write(folder.join("latest.meta"), meta).unwrap();
        Output::of(Command::new("chown").arg("-hR").arg(user.uid.to_string()).arg(&repository))
            .succeeds();
        image
    }

    /// A file of `user` with `content` at `name`, below a directory of theirs with `mode`.
    pub fn plant(&self, user: &User, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(&path, content).unwrap();
        give(&path, user);
        give(folder, user);
        fs::set_permissions(folder, PermissionsExt::from_mode(mode)).unwrap();
        path
    }
}

/// Makes `user` the owner of `path`, not of what it links to.
pub fn give(path: &Path, user: &User) {
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).unwrap();
}

/// All that lies below `path`: names, kinds, owners, modes, times and content.
pub fn snapshot(path: &Path) -> String {
    let listed = ["-printf", "%P %y %u %g %m %s %T@ %l\n"];
    let tree = Output::of(Command::new("find").arg(path).args(listed)).succeeds();
    let sums = ["-type", "f", "-exec", "sha256sum", "{}", "+"];
    tree + &Output::of(Command::new("find").arg(path).args(sums)).succeeds()
}

/// A program that exchanges two names again and again, until it is dropped.
pub struct Flipper(Child);

impl Flipper {
    /// As `user`, who must own the directory of both.
    pub fn start(installation: &Installation, user: &User, one: &Path, other: &Path) -> Self {
        let source = r#"
            #define _GNU_SOURCE
            #include <fcntl.h>
            #include <stdio.h>
            #include <unistd.h>
            int main(int argc, char **argv) {
                for (unsigned n = 0, failed = 0;; n++) {
                    if (!renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE)) failed = 0;
                    else if (++failed > 1000) return 1;
                    usleep(n % 7 * 700);
                }
            }"#;
        let program = installation.compile("flip", source);
        let mut command = installation.as_user(user, program, [one, other]);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        let ended = self.0.try_wait().unwrap();
        self.0.kill().ok();
        self.0.wait().ok();
        assert!(ended.is_none() || std::thread::panicking(), "it did not flip");
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not after 60 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The words behind `name:` in `/proc/PID/status`, or in a text like it.
pub fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
