//! The same safety where the kernel lacks the calls that make it easy.

use super::*;
use sarus::sys::fs::mount::{self, Restrictions};
use std::os::unix::ffi::OsStrExt;

/// A command that runs the engine as alice where `setup` was done in a mount namespace.
fn in_namespace(installation: &Installation, setup: &str, sarus: &[&str]) -> Command {
    let script = format!("{setup}\nexec \"$@\"");
    let inner = installation.sarus_command(&installation.alice, sarus);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    if let Some(directory) = inner.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

/// What an old kernel, or a filter of system calls, does not know.
const OLD_KERNEL: [&str; 8] = [
    "strace",
    "--follow-forks",
    "--output=/dev/null",
    "--trace=fsopen,open_tree,mount_setattr,move_mount,openat2,close_range,seccomp",
    "--inject=fsopen,open_tree,mount_setattr,move_mount,openat2,close_range,getrandom:error=ENOSYS",
    "--signal=none",
    "--quiet=all",
    "--",
];

#[test]
fn restrictions_hold_for_submounts_with_new_and_old_kernels() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let source = installation.plant(alice, "home/alice/source/file", "", 0o755);
        let source = source.parent().unwrap();
        let sub = source.join("sub");
        fs::create_dir(&sub).unwrap();
        fs::create_dir(source.join("with blank")).unwrap();
        // A tmpfs of alice's below another one, and a set-user-id program in it.
        let setup = format!(
            "mount -t tmpfs -o mode=1777 one '{0}/sub'; mkdir '{0}/sub/deep';
             mount -t tmpfs -o mode=1777 two '{0}/sub/deep';
             mount -t tmpfs -o mode=1777,noexec three '{0}/with blank';
             cp /usr/bin/id '{0}/sub/deep/'; chmod 4755 '{0}/sub/deep/id'",
            source.display()
        );
        let places = "for d in /m /m/sub /m/sub/deep '/m/with blank'; do";
        for (kernel, prefix) in [("new", &[][..]), ("old", &OLD_KERNEL)] {
            let what = format!("{runtime:?} {kernel}");
            let shell = |mount: &str, script: &str| {
                let inner =
                    in_namespace(&installation, &setup, &["run", mount, IMAGE, "sh", "-c", script]);
                let mut command = Command::new(prefix.first().copied().unwrap_or("env"));
                command.args(prefix.iter().skip(1));
                command.arg(inner.get_program()).args(inner.get_args());
                command.current_dir(inner.get_current_dir().unwrap());
                Output::of(&mut command)
            };
            let readonly = bind(source, "/m") + ",readonly";
            let script = format!("{places} touch \"$d/new\" && echo \"wrote $d\"; done; true");
            let shown = shell(&readonly, &script);
            assert_eq!(shown.stdout, "", "{what}: {shown}");
            assert_eq!(shown.stderr.matches("Read-only file system").count(), 4, "{what}: {shown}");
            let script = format!("{places} touch \"$d/new\"; done; cat /proc/self/mountinfo");
            let mounts = shell(&bind(source, "/m"), &script).succeeds();
            let below: Vec<_> = mounts.lines().filter(|line| line.contains(" /m")).collect();
            assert_eq!(below.len(), 4, "{what}: {mounts}");
            for line in &below {
                let options = line.split(' ').nth(5).unwrap();
                assert!(options.contains("nosuid"), "{what}: {line}");
                assert!(!line.contains("shared:") && !line.contains("master:"), "{what}: {line}");
                assert_eq!(options.contains("noexec"), line.contains("blank"), "{what}: {line}");
            }
            fs::remove_file(source.join("new")).unwrap();
        }
    }
}

#[test]
fn everything_works_on_old_kernels_and_is_as_safe() {
    for runtime in Runtime::ALL {
        let (installation, site) = with_site_mount(runtime);
        let alice = &installation.alice;
        let data = installation.plant(alice, "home/alice/data/file", "content", 0o755);
        let data = data.parent().unwrap();
        let before = snapshot(&site);
        let traced = |args: &[&str]| {
            let inner = installation.sarus_command(alice, &[&["run"], args].concat());
            let mut command = Command::new(OLD_KERNEL[0]);
            command.args(&OLD_KERNEL[1..]).arg(inner.get_program()).args(inner.get_args());
            Output::of(command.current_dir(inner.get_current_dir().unwrap()))
        };
        let shown = traced(&[&bind(data, "/a/b"), IMAGE, "cat", "/a/b/file", "/site/alice/file"]);
        assert_eq!(shown.succeeds(), "contentof alice", "{runtime:?}");
        assert_eq!(traced(&["--init", "-w", "/new", IMAGE, "pwd"]).succeeds(), "/new\n");
        for (destination, why) in [
            ("/x/y", "does not allow"),
            ("/out/etc/y", "does not allow"),
            ("/out", "reserved"),
            ("/proclink/1", "reserved"),
            ("/site/bob/open", "Permission denied"),
            ("/toroots/new", "Permission denied"),
        ] {
            let text = traced(&[&bind(data, destination), IMAGE, "true"]).fails(125);
            assert!(text.contains(why), "{destination}: {text}");
        }
        for source in ["/proc/self/root/root", "/proc/self/cwd/x"] {
            let output = traced(&[&bind(Path::new(source), "/m"), IMAGE, "ls", "/m"]);
            assert_ne!(output.status, 0, "{output}");
        }
        assert_eq!(snapshot(&site), before);
    }
}

/// Since Linux 5.2, a file system tells in its own words what is wrong (fsopen(2)).
#[test]
fn the_kernels_own_message_tells_why_a_file_system_cannot_be_mounted() {
    let installation = Installation::new();
    let target = fs::File::open(installation.path("home/alice")).unwrap();
    let mounted = mount::filesystem("tmpfs", "tmpfs", &target, Restrictions::default(), "size=x");
    let text = mounted.unwrap_err().to_string();
    assert_eq!(text, "cannot mount tmpfs: Invalid argument (kernel: tmpfs: Bad value for 'size')");
    let mounted = mount::filesystem("nonsense", "x", &target, Restrictions::default(), "");
    assert_eq!(mounted.unwrap_err().to_string(), "cannot mount nonsense: No such device");
}

/// Before Linux 5.8, a loop device is made by two calls.
#[test]
fn loop_devices_are_made_without_loop_configure_too() {
    const LOOP_CONFIGURE: u32 = 0x4c0a;
    let installation = Installation::with_busybox(Runtime::Crun);
    let old_kernel = installation.refusing(libc::SYS_ioctl, 1, LOOP_CONFIGURE);
    let alice = &installation.alice;
    let status = installation.sarus_command(alice, &["run", IMAGE, "cat", "/proc/self/status"]);
    let mut command = Command::new(old_kernel);
    command.arg(status.get_program()).args(status.get_args());
    command.current_dir(status.get_current_dir().unwrap());
    let status = Output::of(&mut command).succeeds();
    assert_eq!(field(&status, "Uid"), vec![alice.uid.to_string(); 4].join(" "));
}

/// Any user may mount on a name of any bytes, by FUSE.
#[test]
fn mount_points_have_any_name() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let home = installation.path("home/alice");
        let setup = format!(
            "cd {}; name=$(printf 'a\\377\\nb'); mkdir \"$name\"; mount -t tmpfs none \"$name\"",
            home.display()
        );
        for pid in ["--pid=host", "--pid=private"] {
            let args = ["run", pid, IMAGE, "echo", "ran"];
            let output = Output::of(&mut in_namespace(&installation, &setup, &args));
            assert_eq!(output.succeeds(), "ran\n", "{runtime:?} {pid}");
            fs::remove_dir(home.join(std::ffi::OsStr::from_bytes(b"a\xff\nb"))).unwrap();
        }
    }
}
