//! The keys that `sarus ssh-keygen` and `ssh_hook keygen` make: what they are, and who can read them.

use crate::support::hostile::give;
use crate::support::{Installation, Output, User, binary};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FILES: [&str; 4] =
    ["id_ed25519", "id_ed25519.pub", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"];

fn site() -> Installation {
    let installation = Installation::with_ssh();
    let hooks = installation.ssh_hooks();
    installation.set("OCIHooks", &hooks)
}

fn place(installation: &Installation, user: &User) -> PathBuf {
    installation.path("home").join(user.name).join(".oci-hooks/ssh")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Insists that ssh-keygen reads both pairs of `keys`, and that the halves belong together.
#[track_caller]
fn are_pairs(keys: &Path) {
    for name in ["id_ed25519", "ssh_host_ed25519_key"] {
        for program in [binary().with_file_name("openssh/bin/ssh-keygen"), "ssh-keygen".into()] {
            let mut command = Command::new(program);
            command.args(["-y", "-P", "", "-f"]).arg(keys.join(name));
            let public = fs::read_to_string(keys.join(format!("{name}.pub"))).unwrap();
            assert_eq!(Output::of(&mut command).succeeds(), public);
        }
    }
}

/// The applet called as a program, as the manual has it.
fn hook(installation: &Installation, user: &User, args: &[&str]) -> Output {
    let program = installation.prefix().join("bin/ssh_hook");
    let mut command = installation.as_user(user, program, args);
    command.env("HOOK_BASE_DIR", installation.path("home"));
    command.env("PASSWD_FILE", installation.prefix().join("etc/passwd"));
    Output::of(&mut command)
}

#[test]
fn keys_are_made_once_and_replaced_on_demand() {
    let installation = site();
    let alice = &installation.alice;
    let keys = place(&installation, alice).join("keys");
    let private = || fs::read_to_string(keys.join("id_ed25519")).unwrap();
    let exist = format!(
        "SSH keys not generated because they already exist in \"{}\". \
         Use the '--overwrite' option to overwrite the existing keys.\n",
        keys.display()
    );
    type Call<'a> = &'a dyn Fn(&[&str]) -> Output;
    let by_engine = |args: &[&str]| installation.sarus(alice, &[&["ssh-keygen"], args].concat());
    let by_hook = |args: &[&str]| hook(&installation, alice, &[&["keygen"], args].concat());
    for call in [&by_engine as Call<'_>, &by_hook] {
        fs::remove_dir_all(&keys).ok();
        assert_eq!(call(&[]).succeeds(), "Successfully generated SSH keys\n");
        assert_eq!(names(&keys), FILES);
        are_pairs(&keys);
        let first = private();
        assert_eq!(call(&[]).succeeds(), exist);
        assert_eq!(private(), first);
        assert_eq!(call(&["--overwrite"]).succeeds(), "Successfully generated SSH keys\n");
        assert_ne!(private(), first);
        are_pairs(&keys);
        // One that is missing makes all of them useless.
        fs::remove_file(keys.join("id_ed25519.pub")).unwrap();
        assert_eq!(call(&[]).succeeds(), "Successfully generated SSH keys\n");
        are_pairs(&keys);
        assert_eq!(names(keys.parent().unwrap()), [".lock", "keys"]);
        call(&["--force"]).fails(1);
        call(&["more"]).fails(1);
    }
    // Something else in their place gives way for good.
    fs::remove_dir_all(&keys).unwrap();
    fs::write(&keys, "x").unwrap();
    for _ in 0..2 {
        by_engine(&["--overwrite"]).succeeds();
        assert_eq!(names(keys.parent().unwrap()), [".lock", "keys"]);
    }
    for file in FILES {
        let status = fs::metadata(keys.join(file)).unwrap();
        let mode = if file.ends_with("pub") { 0o644 } else { 0o600 };
        assert_eq!((status.uid(), status.mode() & 0o7777), (alice.uid, mode), "{file}");
    }
    for directory in [&keys, keys.parent().unwrap(), keys.parent().unwrap().parent().unwrap()] {
        let status = fs::metadata(directory).unwrap();
        assert_eq!((status.uid(), status.mode() & 0o7777), (alice.uid, 0o700));
    }
}

#[test]
fn old_keys_stay_until_they_are_overwritten() {
    let installation = site();
    let alice = &installation.alice;
    let keys = place(&installation, alice).join("keys");
    for name in ["id_rsa", "id_rsa.pub", "ssh_host_rsa_key", "ssh_host_rsa_key.pub"] {
        let file = keys.strip_prefix(installation.path("")).unwrap().join(name);
        installation.plant(alice, file.to_str().unwrap(), "old", 0o700);
    }
    let home = installation.path("home/alice");
    Output::of(Command::new("chown").arg("-R").arg(alice.uid.to_string()).arg(home)).succeeds();
    let said = installation.sarus(alice, &["ssh-keygen"]).succeeds();
    assert!(said.contains("they already exist"), "{said}");
    assert_eq!(fs::read_to_string(keys.join("id_rsa")).unwrap(), "old");
    let error = installation.sarus(alice, &["run", "--ssh", "x", "true"]).fails(125);
    let why = format!("{} has RSA keys of an earlier release only", keys.display());
    assert!(error.contains(&why) && error.contains("'sarus ssh-keygen --overwrite'"), "{error}");
    installation.sarus(alice, &["ssh-keygen", "--overwrite"]).succeeds();
    assert_eq!(names(&keys), FILES);
    assert!(hook(&installation, alice, &["check-user-has-sshkeys"]).succeeds().is_empty());
}

#[test]
fn nobody_else_can_read_a_key_at_any_moment() {
    let installation = site();
    let (alice, bob) = (&installation.alice, &installation.bob);
    // Only the keys themselves are closed: all above is open to others.
    let place = place(&installation, alice);
    fs::create_dir_all(&place).unwrap();
    for directory in [place.parent().unwrap(), &place] {
        give(directory, alice);
        fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let secret = "cat PLACE/keys*/id_ed25519 PLACE/keys*/ssh_host_ed25519_key 2>/dev/null";
    let secret = secret.replace("PLACE", place.to_str().unwrap());
    let thief = format!("while :; do {secret} && echo; done");
    let mut thief = installation.as_user(bob, "sh", ["-c", &thief]);
    let mut thief = thief.stdout(Stdio::piped()).spawn().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = || {
            let (mut looks, mut seen) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                looks += 1;
                for directory in fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()) {
                    let is_dir = directory.is_dir();
                    let open = fs::metadata(&directory).is_ok_and(|s| s.mode() & 0o077 != 0);
                    assert!(!(is_dir && open), "{}", directory.display());
                    for name in ["id_ed25519", "ssh_host_ed25519_key"] {
                        let Ok(status) = fs::metadata(directory.join(name)) else { continue };
                        assert_eq!(status.mode() & 0o077, 0);
                        seen += 1;
                    }
                }
            }
            assert!(looks > 100 && seen > 100, "{looks} {seen}");
        };
        let watch = scope.spawn(watch);
        for _ in 0..20 {
            let mut command =
                installation.as_user(alice, "sh", ["-c", "umask 0; exec \"$@\"", "sh"]);
            command
                .arg(installation.prefix().join("bin/sarus"))
                .args(["ssh-keygen", "--overwrite"]);
            Output::of(&mut command).succeeds();
        }
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
    });
    thief.kill().unwrap();
    let stolen = thief.wait_with_output().unwrap();
    assert!(stolen.stdout.is_empty());
}

#[test]
fn many_at_once_and_killed_ones_leave_one_good_set() {
    let installation = site();
    let alice = &installation.alice;
    let place = place(&installation, alice);
    for round in 0..6 {
        let start = |number: u64| {
            let mut command = installation.sarus_command(alice, &["ssh-keygen", "--overwrite"]);
            let mut child = command.stdout(Stdio::null()).spawn().unwrap();
            if number % 2 == 1 {
                std::thread::sleep(Duration::from_micros(700 * (round + number)));
                child.kill().unwrap();
            }
            child
        };
        let children: Vec<_> = (0..8).map(start).collect();
        for (number, mut child) in children.into_iter().enumerate() {
            assert!(child.wait().unwrap().success() || number % 2 == 1);
        }
        are_pairs(&place.join("keys"));
        assert!(hook(&installation, alice, &["check-user-has-sshkeys"]).succeeds().is_empty());
    }
    installation.sarus(alice, &["ssh-keygen", "--overwrite"]).succeeds();
    assert_eq!(names(&place), [".lock", "keys"]);
}

#[test]
fn keys_that_others_may_know_or_change_are_refused() {
    let installation = site();
    let (alice, bob) = (&installation.alice, &installation.bob);
    installation.sarus(alice, &["ssh-keygen"]).succeeds();
    installation.sarus(bob, &["ssh-keygen"]).succeeds();
    let keys = place(&installation, alice).join("keys");
    let key = keys.join("id_ed25519");
    let good = fs::read(&key).unwrap();
    let others = place(&installation, bob).join("keys/id_ed25519");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    type Spoil<'a> = Box<dyn Fn() + 'a>;
    let cases: Vec<(Spoil<'_>, &str)> = vec![
        (Box::new(|| mode(&key, 0o640)), "open to other users (mode 640)"),
        (Box::new(|| mode(&key, 0o604)), "open to other users (mode 604)"),
        (Box::new(|| mode(&keys, 0o770)), "open to other users (mode 770)"),
        (Box::new(|| give(&key, bob)), "Permission denied"),
        (Box::new(|| give(&keys, bob)), "owned by user id"),
        (
            Box::new(|| {
                fs::remove_file(&key).unwrap();
                symlink(&others, &key).unwrap();
            }),
            "Permission denied",
        ),
        (
            Box::new(|| {
                fs::remove_file(&key).unwrap();
                symlink("/etc/shadow", &key).unwrap();
            }),
            "Permission denied",
        ),
        (
            Box::new(|| {
                fs::remove_file(&key).unwrap();
                Output::of(Command::new("mkfifo").args(["-m", "600"]).arg(&key)).succeeds();
                give(&key, alice);
            }),
            "regular file",
        ),
        (
            Box::new(|| {
                fs::write(&key, vec![b'x'; 1 << 20]).unwrap();
                give(&key, alice);
            }),
            "larger than",
        ),
    ];
    for (spoil, why) in cases {
        spoil();
        let error = installation.sarus(alice, &["run", "--ssh", "x", "true"]).fails(125);
        assert!(error.contains("failed to check the SSH keys") && error.contains(why), "{error}");
        fs::remove_file(&key).ok();
        fs::write(&key, &good).unwrap();
        for path in [&key, &keys] {
            give(path, alice);
        }
        mode(&key, 0o600);
        mode(&keys, 0o700);
    }
    assert!(hook(&installation, alice, &["check-user-has-sshkeys"]).succeeds().is_empty());
}

#[test]
fn keys_are_made_with_the_rights_of_the_user_alone() {
    let installation = site();
    let (alice, bob) = (&installation.alice, &installation.bob);
    // Where alice sends it with a link, alice must be allowed to write.
    let closed = installation.path("closed");
    fs::create_dir(&closed).unwrap();
    symlink(&closed, installation.path("home/alice/.oci-hooks")).unwrap();
    let error = installation.sarus(alice, &["ssh-keygen"]).fails(1);
    assert!(error.contains("cannot generate SSH keys in"), "{error}");
    assert!(error.contains("Permission denied"), "{error}");
    assert!(names(&closed).is_empty());
    // Nobody makes keys in another's name: the name is that of the real user.
    let mut command = installation.sarus_command(bob, &["ssh-keygen"]);
    command.env("USER", "alice").env("HOME", installation.path("home/alice"));
    command.env("HOOK_BASE_DIR", &closed);
    Output::of(&mut command).succeeds();
    assert_eq!(names(&place(&installation, bob).join("keys")), FILES);
    // Who is not in the site's passwd has no place for them.
    let stranger = User { name: "stranger", uid: bob.uid + 1, gid: bob.gid, groups: vec![] };
    let error = installation.sarus(&stranger, &["ssh-keygen"]).fails(1);
    assert!(error.contains(&format!("cannot find user id {}", stranger.uid)), "{error}");
}
