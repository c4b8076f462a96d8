//! What the integration tests share: an installation of the real static binary, setuid root, in a
//! prefix of the test's own, and ordinary users who call it. Start at [`Installation::new`].
//!
//! Nothing is skipped: without root, or without the binary that `make test` names, a test fails.

pub mod bundle;
pub mod certificates;
mod host;
pub mod hostile;
pub mod http;
mod image;
pub mod machine;
pub mod mpi;
pub mod net;
pub mod oci;
pub mod proxy;
pub mod pty;
pub mod pull;
pub mod registry;
mod scratch;
pub mod server;
pub mod slurm;
pub mod ssh;
pub mod token;

pub use host::{
    cgroups, loop_devices, mounts, no_cgroup_stays_empty, no_cgroup_stays_empty_but, processes_of,
};
pub use image::Image;
pub use scratch::{Scratch, kept};

use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory of this package, where `scripts/` lies.
pub const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// What [`Installation::with_busybox`] has.
pub const IMAGE: &str = "load/library/bb";

/// The OCI runtimes that everything has to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// None of others: sarus.json has no `runcPath`.
    Builtin,
    Runc,
    Crun,
}

impl Runtime {
    pub const ALL: [Self; 3] = [Self::Builtin, Self::Runc, Self::Crun];
    /// Those that are programs of their own.
    pub const PROGRAMS: [Self; 2] = [Self::Runc, Self::Crun];

    /// Where the machine has it.
    pub fn path(self) -> PathBuf {
        let name = match self {
            Self::Builtin => panic!("the built-in runtime is not a program"),
            Self::Runc => "runc",
            Self::Crun => "crun",
        };
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .map(|directory| Path::new(directory).join(name))
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{name} is not installed: run the tests by `make test`"))
    }
}

/// An ordinary user, known to one installation only: the host has no such account.
#[derive(Debug, Clone)]
pub struct User {
    pub name: &'static str,
    pub uid: u32,
    /// The primary group, of the same number as the user.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    /// Root itself, for comparison.
    pub fn root() -> Self {
        Self { name: "root", uid: 0, gid: 0, groups: vec![] }
    }
}

/// What a finished command left: its status and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// The exit status; 128+n if signal n ended it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let output = command.output().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let signal = || 128 + output.status.signal().unwrap_or(0);
        Self {
            command: format!("{command:?}"),
            status: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Insists on exit status 0; what it printed.
    #[track_caller]
    pub fn succeeds(self) -> String {
        assert_eq!(self.status, 0, "{self}");
        self.stdout
    }

    /// Insists on this exit status, not 0; what it wrote to stderr.
    #[track_caller]
    pub fn fails(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self}");
        self.stderr
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\nended with {status}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// The static binary under test.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("SARUSBOX").map(PathBuf::from);
    path.filter(|path| path.exists())
        .expect("SARUSBOX does not name the static binary: run the tests by `make test`")
}

/// An installation in a directory of its own, owned by root up to `/`; removed when dropped.
///
/// ```text
/// /opt/sarus-test-PID-N/prefix     the installation
///                       home/NAME  the users' homes, which hold their repositories
///                       central    the centralized repository
///                       images     archives that all users can read
///                       tmp        the temporary directory
/// ```
#[derive(Debug)]
pub struct Installation {
    root: PathBuf,
    runtime: Runtime,
    /// The keys of sarus.json with their values in JSON, in this order.
    settings: Vec<(String, String)>,
    pub alice: User,
    pub bob: User,
}

impl Installation {
    /// An installation with runc and no setting that is not required.
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests install setuid programs, mount and change users: run `make test` as root"
        );
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = PathBuf::from(format!("/opt/sarus-test-{}-{number}", std::process::id()));
        // Users of this installation's own, so that `processes_of` sees no other test's.
        // Runs of several test programs side by side must not meet.
        let uid = 20_001 + std::process::id() % 200 * 20_000 + number * 10;
        let user = |name, uid, groups| User { name, uid, gid: uid, groups };
        let this = Self {
            runtime: Runtime::Runc,
            settings: vec![],
            alice: user("alice", uid, vec![uid + 1, uid + 2]),
            bob: user("bob", uid + 5, vec![]),
            root,
        };
        this.lay_out();
        this.runtime(Runtime::Runc)
    }

    fn lay_out(&self) {
        let mut install = Command::new(Path::new(SOURCE).join("scripts/install.sh"));
        // `make` exports it; whoever wants an OpenSSH asks for it.
        install.arg(binary()).arg(self.prefix()).env_remove("OPENSSH");
        Output::of(&mut install).succeeds();
        for (name, mode) in
            [("home", 0o755), ("central", 0o755), ("images", 0o755), ("tmp", 0o1777)]
        {
            fs::create_dir(self.path(name)).unwrap();
            fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
        let mut group = String::from("root:x:0:\ntty:x:5:\n");
        for User { name, uid, gid, groups } in [&self.alice, &self.bob] {
            let home = self.path("home").join(name);
            fs::create_dir(&home).unwrap();
            chown(&home, Some(*uid), Some(*gid)).unwrap();
            passwd += &format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display());
            group += &format!("{name}:x:{gid}:\n");
            for extra in groups {
                group += &format!("{name}{extra}:x:{extra}:{name}\n");
            }
        }
        fs::write(self.prefix().join("etc/passwd"), passwd).unwrap();
        fs::write(self.prefix().join("etc/group"), group).unwrap();
    }

    /// With `runtime`, and a busybox image that alice calls [`IMAGE`].
    pub fn with_busybox(runtime: Runtime) -> Self {
        let this = Self::new().runtime(runtime);
        this.load(&this.alice, &Image::busybox(), "bb");
        this
    }

    /// With the pages, completions and documents of the binary under test; where they are.
    pub fn with_pages(&self) -> PathBuf {
        let share = self.prefix().join("share");
        let mut pages = Command::new(Path::new(SOURCE).join("scripts/pages.sh"));
        Output::of(pages.arg(binary()).arg(&share)).succeeds();
        share
    }

    /// Uses `runtime`, and writes a minimal sarus.json anew.
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        let quoted = |path: PathBuf| format!("\"{}\"", path.display());
        self.settings = [
            ("securityChecks", "true".into()),
            ("OCIBundleDir", quoted(self.prefix().join("var/OCIBundleDir"))),
            ("rootfsFolder", "\"rootfs\"".into()),
            ("prefixDir", quoted(self.prefix())),
            ("tempDir", quoted(self.path("tmp"))),
            ("localRepositoryBaseDir", quoted(self.path("home"))),
            ("centralizedRepositoryDir", quoted(self.path("central"))),
            ("ramFilesystemType", "\"tmpfs\"".into()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if runtime != Runtime::Builtin {
            self.settings.push(("runcPath".to_owned(), quoted(runtime.path())));
        }
        self.config(|text| text)
    }

    /// Sets `key` of sarus.json to `json`, a value in JSON; adds it or replaces it.
    pub fn set(mut self, key: &str, json: &str) -> Self {
        self.settings.retain(|(other, _)| other != key);
        self.settings.push((key.to_owned(), json.to_owned()));
        self.config(|text| text)
    }

    /// Edits the text of sarus.json as it stands; a later `set` or `runtime` undoes it.
    pub fn config(self, edit: impl FnOnce(String) -> String) -> Self {
        let lines: Vec<_> =
            self.settings.iter().map(|(key, value)| format!("    \"{key}\": {value}")).collect();
        fs::write(self.config_file(), edit(format!("{{\n{}\n}}\n", lines.join(",\n")))).unwrap();
        self
    }

    /// A path in this test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where it is installed.
    pub fn prefix(&self) -> PathBuf {
        self.path("prefix")
    }

    /// `<prefix>/etc/sarus.json`.
    pub fn config_file(&self) -> PathBuf {
        self.prefix().join("etc/sarus.json")
    }

    /// The local repository of `user`.
    pub fn repository(&self, user: &User) -> PathBuf {
        self.path("home").join(user.name).join(".sarus")
    }

    /// A command that runs `program` as `user`, with their groups, home and a bare environment.
    ///
    /// The process that is started becomes the program (by exec), so its pid is the program's.
    pub fn as_user<A: AsRef<std::ffi::OsStr>>(
        &self,
        user: &User,
        program: impl AsRef<std::ffi::OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        // crun up to 1.8 refuses machines that have cgroup v1 with the v2 tree beside it
        // (/sys/fs/cgroup/unified): it gets to see none, in a mount namespace of its own.
        const WITHOUT_HYBRID_CGROUPS: &str =
            "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
        let mut command = if self.runtime == Runtime::Crun {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c"]);
            command.args([WITHOUT_HYBRID_CGROUPS, "sh", "setpriv"]);
            command
        } else {
            Command::new("setpriv")
        };
        let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg(if groups.is_empty() {
            "--clear-groups".to_owned()
        } else {
            format!("--groups={}", groups.join(","))
        });
        command.arg("--").arg(program).args(args);
        let home = self.path("home").join(user.name);
        command.current_dir(if home.exists() { &home } else { Path::new("/") });
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("HOME", home).env("USER", user.name);
        command
    }

    /// A command that runs this installation's `sarus` as `user`.
    pub fn sarus_command(&self, user: &User, args: &[&str]) -> Command {
        self.as_user(user, self.prefix().join("bin/sarus"), args)
    }

    /// Runs this installation's `sarus` as `user`, to its end.
    pub fn sarus(&self, user: &User, args: &[&str]) -> Output {
        Output::of(&mut self.sarus_command(user, args))
    }

    /// A copy of `image` as a docker-archive that every user can read.
    pub fn archive(&self, image: &Image) -> PathBuf {
        let path = self.path("images").join(format!("{}.tar", image.key()));
        fs::copy(image.docker_archive(), &path).unwrap();
        path
    }

    /// Loads `image` into the repository of `user`, to be run as `name`.
    pub fn load(&self, user: &User, image: &Image, name: &str) {
        let archive = self.archive(image);
        self.sarus(user, &["load", archive.to_str().unwrap(), name]).succeeds();
    }
}

impl Drop for Installation {
    /// Removes everything, and fails the test if the engine left a mount or a loop device.
    fn drop(&mut self) {
        let mounts: Vec<_> = mounts().into_iter().filter(|m| m.starts_with(&self.root)).collect();
        for mount in mounts.iter().rev() {
            Command::new("umount").arg("--lazy").arg(mount).status().ok();
        }
        let loops: Vec<_> =
            loop_devices().into_iter().filter(|(_, file)| file.starts_with(&self.root)).collect();
        for (device, _) in &loops {
            Command::new("losetup").arg("--detach").arg(device).status().ok();
        }
        // What an engine such as Podman leaves to others to tidy up is still being written to.
        for _ in 0..50 {
            if fs::remove_dir_all(&self.root).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        if !std::thread::panicking() {
            assert!(mounts.is_empty(), "still mounted: {mounts:?}");
            assert!(loops.is_empty(), "loop devices still in use: {loops:?}");
        }
    }
}
