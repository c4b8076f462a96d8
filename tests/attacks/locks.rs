//! Locks that users take, or keep by stopping what has them: nobody else is held up.

use super::*;
use crate::support::oci::Built;
use crate::support::pty::Shell;
use crate::support::registry::Registry;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

/// Whether process `pid` is stopped and holds an flock(2) of `/dev/loop-control`, as proc(5) tells of
/// `/proc/locks`.
fn is_stopped_with_lock(pid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if !field(&status, "State").starts_with('T') {
        return None;
    }
    let inode = format!(":{}", fs::metadata("/dev/loop-control").unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    Some(locks.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [.., owner, file, _, _] = fields[..] else { return false };
        fields.contains(&"FLOCK") && owner == pid.to_string() && file.ends_with(&inode)
    }))
}

/// A process of a user's. With it, all of that user's processes end: what was stopped does not by
/// itself.
struct Attack(std::process::Child, u32);

impl Drop for Attack {
    fn drop(&mut self) {
        for (pid, _) in processes_of(self.1) {
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().ok();
        }
        self.0.wait().ok();
    }
}

/// A user could keep the lock for as long as the machine is up; the start of every container waited.
#[test]
fn no_stopped_engine_has_the_lock_of_loop_devices() {
    const TRIES: u32 = 400;
    // Starts an engine, waits a little longer each time, and stops it.
    let script = r#"
        tries=$1 n=0
        while [ $n -lt $tries ]; do
            "$2" run "$3" true >/dev/null 2>&1 &
            i=0; while [ $i -lt $((n * 8000 / tries)) ]; do i=$((i + 1)); done
            kill -STOP $! 2>/dev/null
            echo $!; read -r _
            kill -KILL $! 2>/dev/null; wait $! 2>/dev/null
            n=$((n + 1))
        done"#;
    let installation = Installation::with_busybox(Runtime::Runc);
    let sarus = installation.prefix().join("bin/sarus");
    let args = ["-c", script, "sh", &TRIES.to_string(), sarus.to_str().unwrap(), IMAGE];
    let mut attack = installation.as_user(&installation.alice, "sh", args);
    let attack = attack.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut attack = Attack(attack, installation.alice.uid);
    let mut go_on = attack.0.stdin.take().unwrap();
    let mut stopped = 0;
    for engine in BufReader::new(attack.0.stdout.take().unwrap()).lines() {
        let engine = engine.unwrap().parse().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let has_lock = is_stopped_with_lock(engine);
        stopped += u32::from(has_lock.is_some());
        assert_ne!(has_lock, Some(true), "after {stopped} times");
        go_on.write_all(b"\n").unwrap();
    }
    drop(attack);
    assert!(stopped > TRIES / 10, "only {stopped} were stopped");
    assert_nothing_is_left(&installation);
}

/// The kernel asks for no permission when it sends SIGTSTP for Ctrl-Z.
#[test]
fn no_engine_that_is_stopped_from_its_terminal_has_the_lock_of_loop_devices() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let sarus = installation.prefix().join("bin/sarus");
    let mut shell = Shell::start(&installation, &installation.alice);
    let mut stopped = 0;
    for n in 0..200 {
        shell.types(&format!("{} run {IMAGE} true\n", sarus.display()));
        std::thread::sleep(Duration::from_micros(1000 + 30 * n));
        shell.types("\u{1a}\n").wait_for("READY> ");
        std::thread::sleep(Duration::from_millis(5));
        for (engine, line) in processes_of(installation.alice.uid) {
            if line.contains("bin/sarus run") {
                let has_lock = is_stopped_with_lock(engine);
                stopped += u32::from(has_lock.is_some());
                assert_ne!(has_lock, Some(true), "after {stopped} times Ctrl-Z");
            }
        }
        shell.runs("kill -KILL %% 2>/dev/null; wait 2>/dev/null");
    }
    assert!(stopped > 10, "only {stopped} were stopped");
    assert_nothing_is_left(&installation);
}

fn assert_nothing_is_left(installation: &Installation) {
    let images = installation.repository(&installation.alice);
    let is_ours = |(_, file): &(_, PathBuf)| file.starts_with(&images);
    wait_until("no device", || !loop_devices().iter().any(is_ours));
}

/// Has bob lock every file of alice's that he can open, again and again, until it is dropped.
struct Locker(std::process::Child);

impl Locker {
    fn start(installation: &Installation) -> Self {
        let script = r#"
            while :; do
                find "$1" -type f | while read -r file; do
                    flock --nonblock "$file" sleep 300 2>/dev/null &
                done
                wait -n; echo again
            done"#;
        let home = installation.path("home/alice");
        let args = ["-c", script, "bash", home.to_str().unwrap()];
        let mut command =
            installation.as_user(&installation.bob, "setsid", ["bash"].iter().chain(&args));
        let mut this = Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut rounds = BufReader::new(this.0.stdout.take().unwrap()).lines();
        // All that is there before is locked.
        rounds.by_ref().take(2).for_each(drop);
        std::thread::spawn(move || rounds.for_each(drop));
        this
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        Command::new("kill").args(["-KILL", "--", &group]).status().ok();
        self.0.wait().ok();
    }
}

/// They were readable for all, and whoever can read a file can lock it: alice waited for a minute,
/// and failed.
#[test]
fn no_file_of_a_repository_can_be_locked_by_others() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let alice = &installation.alice;
    let registry = Registry::plain();
    let built = Built::busybox();
    built.push(&registry, "ns/name", "latest");
    let name = format!("{}/ns/name", registry.address());
    // As earlier releases left them.
    let repository = installation.repository(alice);
    fs::create_dir_all(repository.join("cache")).unwrap();
    let parts = built.blobs().map(|blob| format!("cache/{}.tar.part", blob.digest));
    let old: Vec<_> = parts.chain([".lock".to_owned()]).map(|name| repository.join(name)).collect();
    give(&repository.join("cache"), alice);
    for path in &old {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        give(path, alice);
    }
    let _locker = Locker::start(&installation);
    installation.load(alice, &Image::busybox(), "again");
    installation.pull_and_run(&name);
    installation.sarus(alice, &["rmi", "load/library/again"]).succeeds();
    let mut locks = vec![];
    for path in all_files(&installation.path("home/alice")) {
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        let is_lock = [".lock", ".part"].iter().any(|end| path.to_string_lossy().ends_with(end));
        if is_lock {
            assert_eq!(mode, 0o600, "{path:?}");
            locks.push(path);
        } else if path.starts_with(&repository) {
            assert_eq!(mode, 0o644, "{path:?}");
        }
    }
    assert!(locks.contains(&repository.join(".lock")), "{locks:?}");
}

/// Who shares a repository with others takes turns with them.
#[test]
fn a_group_that_shares_a_repository_shares_its_locks() {
    let installation = Installation::new();
    let (alice, bob) = (&installation.alice, &installation.bob);
    let archive = installation.archive(&Image::busybox());
    let sarus = installation.prefix().join("bin/sarus");
    let script = "umask 2; exec \"$0\" load --centralized-repository \"$1\" \"$2\"";
    let load = |user: &User, name: &str| {
        let args = ["-c", script, sarus.to_str().unwrap(), archive.to_str().unwrap(), name];
        Output::of(&mut installation.as_user(user, "sh", args)).succeeds();
    };
    let central = installation.path("central");
    // A group that both are in, but that is not alice's primary one.
    let member = User { groups: vec![bob.gid], ..alice.clone() };
    for mode in [0o775, 0o2775] {
        fs::remove_dir_all(&central).unwrap();
        fs::create_dir(&central).unwrap();
        chown(&central, Some(0), Some(bob.gid)).unwrap();
        fs::set_permissions(&central, PermissionsExt::from_mode(mode)).unwrap();
        load(&member, "hers");
        let lock = fs::metadata(central.join(".lock")).unwrap();
        assert_eq!((lock.mode() & 0o777, lock.gid()), (0o660, bob.gid), "{mode:o}");
        let path = central.join(".lock");
        let args = ["--nonblock", path.to_str().unwrap(), "true"];
        let stranger = User { uid: alice.uid + 1, groups: vec![], ..alice.clone() };
        Output::of(&mut installation.as_user(&stranger, "flock", args)).fails(66);
    }
    // Here, what is made belongs to the group too.
    load(bob, "his");
    let images = installation.sarus(bob, &["images", "--centralized-repository"]).succeeds();
    assert!(images.contains("/hers") && images.contains("/his"), "{images}");
}

fn all_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = |path: PathBuf| if path.is_dir() { all_files(&path) } else { vec![path] };
    entries.flat_map(files).filter(|path| path.is_file()).collect()
}
