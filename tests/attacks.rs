//! Attacks on the engine by its users: with images that they made themselves, with mounts, with
//! races, and with whatever an administrator left open. Nothing outside of the container may be
//! read, made or changed that the user could not read, make or change without the engine.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use common::hostile::{Flipper, field, give, snapshot, wait_until};
use common::{Image, Installation, Output, Runtime, User, loop_devices, processes_of};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const IMAGE: &str = "load/library/bb";
const NO_META: &str = "{}";

fn with_busybox(runtime: Runtime) -> Installation {
    let installation = Installation::new().runtime(runtime);
    installation.load(&installation.alice, &Image::busybox(), "bb");
    installation
}

fn run(installation: &Installation, args: &[&str]) -> Output {
    installation.sarus(&installation.alice, &[&["run"], args].concat())
}

fn bind(source: &Path, destination: &str) -> String {
    format!("--mount=type=bind,src={},dst={destination}", source.display())
}

/// What no attack may touch: a tree of root's and one of bob's, closed to others and not.
fn canary(installation: &Installation) -> PathBuf {
    let canary = installation.path("canary");
    fs::create_dir(&canary).unwrap();
    for name in
        ["hosts", "passwd", "group", "resolv.conf", "nsswitch.conf", "init", "launch", "null"]
    {
        fs::write(canary.join(name), format!("the {name} of root\n")).unwrap();
    }
    let bob = &installation.bob;
    installation.plant(bob, "canary/bob/file", "SECRET of bob\n", 0o700);
    installation.plant(bob, "canary/bob/open/file", "SECRET of bob\n", 0o755);
    give(&canary.join("bob"), bob);
    canary
}

#[test]
fn links_and_odd_files_in_an_image_lead_nowhere() {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Then {
        Runs,
        IsRefused,
    }
    use Then::{IsRefused, Runs};
    // The path in the image, and what stands there: a link to something, or a kind of file. `@` is
    // the canary of the host.
    let table: &[(&str, &str, Then)] = &[
        ("etc", "@", Runs),
        ("etc", "../../../../../..@", Runs),
        ("etc", "/", Runs),
        ("etc", "/dev", Runs),
        ("etc", "/proc", Runs),
        ("etc", "/proc/self/root@", Runs),
        ("etc", "/proc/self/cwd", Runs),
        ("etc", "etc", IsRefused),
        ("etc", "/loop/a", IsRefused),
        ("etc", "is a file", IsRefused),
        ("etc", "is a fifo", IsRefused),
        ("dev", "@", IsRefused),
        ("dev", "../../..@", IsRefused),
        ("dev", "/etc", IsRefused),
        ("dev", "dev", IsRefused),
        ("dev", "is a file", IsRefused),
        ("proc", "@", IsRefused),
        ("proc", "/etc", IsRefused),
        ("proc", "is a file", IsRefused),
        ("sys", "@", IsRefused),
        ("sys", "is a fifo", IsRefused),
        ("etc/passwd", "@/passwd", Runs),
        ("etc/passwd", "../../../../../../..@/passwd", Runs),
        ("etc/hosts", "@/hosts", Runs),
        ("etc/hosts", "@/bob/file", Runs),
        ("etc/hosts", "is a fifo", Runs),
        ("etc/hosts", "is a directory", Runs),
        ("etc/resolv.conf", "/proc/self/fd/0", Runs),
        ("etc/resolv.conf", "/proc/1/root@/resolv.conf", Runs),
        ("dev/init", "@/init", Runs),
        ("dev/launch", "@/launch", Runs),
        ("dev/null", "@/null", Runs),
        ("dev/shm", "@", Runs),
        ("dev/pts", "@", Runs),
        ("work", "@", Runs),
        ("work", "@/new/directory", Runs),
        ("work", "/../../..@/new", Runs),
    ];
    let installation = with_busybox(Runtime::Runc);
    let canary = canary(&installation);
    let (alice, before) = (&installation.alice, snapshot(&canary));
    for (number, (path, kind, _)) in table.iter().enumerate() {
        let root = installation.rootfs("rootfs");
        let place = root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        if fs::symlink_metadata(&place).is_ok_and(|status| status.is_dir()) {
            fs::remove_dir_all(&place).unwrap();
        } else {
            fs::remove_file(&place).ok();
        }
        fs::create_dir(root.join("loop")).unwrap();
        symlink("/loop/b", root.join("loop/a")).unwrap();
        symlink("a", root.join("loop/b")).unwrap();
        match *kind {
            "is a file" => fs::write(&place, "").unwrap(),
            "is a directory" => fs::create_dir(&place).unwrap(),
            "is a fifo" => {
                Output::of(Command::new("mkfifo").arg(&place)).succeeds();
            }
            link => symlink(link.replace('@', canary.to_str().unwrap()), &place).unwrap(),
        }
        installation.forge(alice, &root, &format!("hostile{number}"), NO_META);
        fs::remove_dir_all(root).unwrap();
    }
    for (number, (path, kind, then)) in table.iter().enumerate() {
        let image = format!("load/library/hostile{number}");
        let script = "cat /etc/passwd /etc/hosts /etc/resolv.conf /dev/null; echo >/etc/new; true";
        let args = ["--init", "-w", "/work", &image, "sh", "-c", script];
        let what = format!("{path} {kind}");
        let output = run(&installation, &args);
        match then {
            // Where no directory can be made, the working directory is refused, or never reached.
            Runs => assert!(output.status == 0 || output.status == 125, "{what}: {output}"),
            IsRefused => assert_eq!(output.status, 125, "{what}: {output}"),
        }
        let shown = output.stdout + &output.stderr;
        for secret in ["SECRET", "of root"] {
            assert!(!shown.contains(secret), "{what}: {shown}");
        }
        assert_eq!(snapshot(&canary), before, "{what}");
        // Nor without options.
        run(&installation, &[&image, "true"]);
        assert_eq!(snapshot(&canary), before, "{what}");
    }
}

#[test]
fn privileged_files_of_an_image_are_inert() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        let root = installation.rootfs("rootfs");
        // As mksquashfs makes them for anyone by -p; umoci and the engine make none.
        for name in ["setuid", "capable"] {
            let program = root.join(name).join("busybox");
            fs::create_dir(root.join(name)).unwrap();
            fs::copy(root.join("bin/busybox"), &program).unwrap();
            chown(&program, Some(0), Some(0)).unwrap();
        }
        let program = root.join("setuid/busybox");
        fs::set_permissions(&program, PermissionsExt::from_mode(0o6755)).unwrap();
        // Version 2, effective, with all capabilities permitted: capabilities(7).
        let all = [1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 1, 0, 0, 0, 0, 0, 0];
        set_attribute(&root.join("capable/busybox"), "security.capability", &all);
        for (name, major, minor) in [("memory", "1", "1"), ("zeroes", "1", "5"), ("disk", "7", "0")]
        {
            let node = root.join(name);
            let kind = if name == "disk" { "b" } else { "c" };
            Output::of(Command::new("mknod").args(["-m666"]).arg(&node).args([kind, major, minor]))
                .succeeds();
        }
        installation.forge(alice, &root, "privileged", NO_META);
        let image = "load/library/privileged";
        let sh = |script: &str| run(&installation, &[image, "sh", "-c", script]);
        for node in ["memory", "zeroes", "disk"] {
            let output = sh(&format!("head -c 1 /{node}"));
            assert_ne!(output.status, 0, "{output}");
            assert!(output.stderr.contains("Permission denied"), "{output}");
        }
        for program in ["setuid", "capable"] {
            let shown = sh(&format!("/{program}/busybox cat /proc/self/status")).succeeds();
            let uid = alice.uid;
            assert_eq!(field(&shown, "Uid"), format!("{uid} {uid} {uid} {uid}"), "{runtime:?}");
            assert_eq!(field(&shown, "CapEff"), "0000000000000000");
        }
        // Nor what the user makes of it, nor elsewhere in the root file system.
        sh("cp -p /setuid/busybox /tmp/; chmod 6755 /tmp/busybox; /tmp/busybox id -u").succeeds();
        let mounts = sh("cat /proc/self/mountinfo").succeeds();
        for line in mounts.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let (point, options) = (fields[4], fields[5]);
            if !point.starts_with("/proc") && !point.starts_with("/sys/") {
                assert!(options.contains("nosuid"), "{line}");
            }
            if point == "/" {
                assert!(options.contains("nodev"), "{line}");
            }
        }
    }
}

#[test]
fn a_runtime_that_lifts_the_confinement_is_found_out() {
    let installation = with_busybox(Runtime::Runc);
    let source = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdint.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            uint64_t attr[4] = {0, 0x2 | 0x4, 0, 0}; /* clears nosuid and nodev */
            if (syscall(442, AT_FDCWD, "rootfs", 0, attr, sizeof attr)) return 99;
            return execv(RUNC, argv);
        }"#;
    let runc = format!("#define RUNC \"{}\"\n", Runtime::Runc.path().display());
    // Under a name that is trusted to keep it.
    let loose = installation.compile("runc-loose", &(runc + source));
    let installation = installation.set("runcPath", &format!("\"{}\"", loose.display()));
    for directory in ["/", "/tmp"] {
        let output = run(&installation, &["-w", directory, IMAGE, "echo", "started"]);
        assert_eq!(output.stdout, "", "{output}");
        let text = output.fails(125);
        assert!(text.contains("not mounted nosuid and nodev"), "{text}");
    }
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn attributes_of_overlay_in_an_image_lead_nowhere() {
    let installation = with_busybox(Runtime::Crun);
    let canary = canary(&installation);
    let before = snapshot(&canary);
    let root = installation.rootfs("rootfs");
    fs::create_dir(root.join("redirected")).unwrap();
    fs::write(root.join("metacopied"), "x").unwrap();
    let set = |name, value: &str, path| set_attribute(&root.join(path), name, value.as_bytes());
    set("trusted.overlay.redirect", canary.to_str().unwrap(), "redirected");
    set("trusted.overlay.opaque", "y", "usr");
    set("trusted.overlay.metacopy", "", "metacopied");
    set("trusted.overlay.redirect", &format!("{}/hosts", canary.display()), "metacopied");
    set("trusted.overlay.origin", "nonsense", "home");
    installation.forge(&installation.alice, &root, "attributes", NO_META);
    let script = "ls -la /redirected; cat /metacopied; touch /redirected/new /usr/new /home/new";
    let output = run(&installation, &["load/library/attributes", "sh", "-c", script]);
    let shown = output.stdout + &output.stderr;
    assert!(!shown.contains("of root") && !shown.contains("hosts"), "{shown}");
    assert_eq!(snapshot(&canary), before);
}

#[test]
fn a_file_that_is_no_image_is_refused() {
    let installation = with_busybox(Runtime::Runc);
    let (alice, bob) = (&installation.alice, &installation.bob);
    let good = installation.repository(alice).join("images/load/library/bb/latest.squashfs");
    let good = fs::read(good).unwrap();
    let secret = installation.plant(bob, "home/bob/closed/latest.squashfs", "", 0o700);
    fs::write(&secret, &good).unwrap();
    fs::set_permissions(secret.parent().unwrap(), PermissionsExt::from_mode(0o700)).unwrap();
    let rooted = installation.path("rooted.squashfs");
    fs::write(&rooted, &good).unwrap();
    fs::set_permissions(&rooted, PermissionsExt::from_mode(0o600)).unwrap();
    let entry = |name: &str| {
        let image = installation.forge_entry(alice, name, NO_META);
        (format!("load/library/{name}"), image)
    };
    type Make<'a> = Box<dyn Fn(&Path) + 'a>;
    let random = || -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..1 << 20).map(|_| next()).collect()
    };
    let table: Vec<(&str, Make<'_>)> = vec![
        ("fifo", Box::new(|path| drop(Output::of(Command::new("mkfifo").arg(path)).succeeds()))),
        ("directory", Box::new(|path| fs::create_dir(path).unwrap())),
        ("absent", Box::new(|_| ())),
        ("empty", Box::new(|path| fs::write(path, "").unwrap())),
        ("shadow", Box::new(|path| symlink("/etc/shadow", path).unwrap())),
        ("device", Box::new(|path| symlink("/dev/zero", path).unwrap())),
        ("disk", Box::new(|path| symlink("/dev/loop0", path).unwrap())),
        ("stdin", Box::new(|path| symlink("/proc/self/fd/0", path).unwrap())),
        ("bobs", Box::new(|path| symlink(&secret, path).unwrap())),
        ("roots", Box::new(|path| symlink(&rooted, path).unwrap())),
        ("short", Box::new(|path| fs::write(path, &good[..40]).unwrap())),
        ("truncated", Box::new(|path| fs::write(path, &good[..good.len() / 2]).unwrap())),
        ("random", Box::new(|path| fs::write(path, random()).unwrap())),
        (
            "magic",
            Box::new(|path| {
                let mut bytes = random();
                bytes[..96].copy_from_slice(&good[..96]);
                fs::write(path, bytes).unwrap();
            }),
        ),
        (
            "inodes",
            Box::new(|path| {
                let mut bytes = good.clone();
                let end = bytes.len();
                bytes[end - 3000..].fill(0xa5);
                fs::write(path, bytes).unwrap();
            }),
        ),
    ];
    for (name, make) in table {
        let (image, path) = entry(name);
        make(&path);
        let output = installation
            .as_user(alice, "timeout", ["10"])
            .arg(installation.prefix().join("bin/sarus"))
            .args(["run", &image, "true"])
            .stdin(fs::File::open(installation.config_file()).unwrap())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        // Damage that nobody comes across is none.
        let may_run = name == "inodes" && output.status.success();
        assert!(may_run || output.status.code() == Some(125), "{name}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    run(&installation, &[IMAGE, "true"]).succeeds();
}

#[test]
fn a_forged_index_names_no_file_outside_of_the_repository() {
    let installation = with_busybox(Runtime::Runc);
    let alice = &installation.alice;
    let index = installation.repository(alice).join("metadata.json");
    let elsewhere = installation.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("latest.meta"), NO_META).unwrap();
    for (key, name) in [
        ("../../../../elsewhere/latest", "elsewhere"),
        ("load/library/../../../../../../elsewhere/latest", "x"),
        ("/etc/shadow", "shadow"),
        ("load//library/./x/latest", "x"),
        ("", ""),
    ] {
        let entry = format!(
            r#"{{"images": [{{"uniqueKey": "{key}", "imagePath": "/etc/shadow", "metadataPath": "/dev/sda"}}]}}"#
        );
        fs::write(&index, entry).unwrap();
        let text = run(&installation, &[name, "true"]).fails(125);
        assert!(!text.contains("panicked") && !text.contains("root:"), "{text}");
    }
    for text in ["", "[]", "{\"images\": 3}", "{\"images\": [[], 3, null]}", "\0", "{"] {
        fs::write(&index, text).unwrap();
        let text = run(&installation, &[IMAGE, "true"]).fails(125);
        assert!(!text.contains("panicked"), "{text}");
    }
    fs::remove_file(&index).unwrap();
    symlink("/etc/shadow", &index).unwrap();
    let text = run(&installation, &[IMAGE, "true"]).fails(125);
    assert!(text.contains("Permission denied"), "{text}");
}

#[test]
fn hostile_metadata_is_refused_or_harmless() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        let canary = canary(&installation);
        let before = snapshot(&canary);
        let root = installation.rootfs("rootfs");
        let name = "meta";
        let image = installation.forge(alice, &root, name, NO_META);
        let meta = image.with_extension("meta");
        let deep = "[".repeat(200_000);
        let long = format!(r#"{{"Env": ["A={}"]}}"#, "x".repeat(10 << 20));
        // The text, and what `env; pwd` shows of it, if it runs.
        for (text, shown) in [
            (r#"{"Env": ["A=b=c", "=x", "NONE", "", "B="]}"#, Some("A=b=c\nB=\n")),
            (r#"{"Env": ["PMI_FD=5", "LD_PRELOAD=/x.so"]}"#, Some("LD_PRELOAD=/x.so\n")),
            (r#"{"Env": ["_LIBCONTAINER_INITPIPE=0", "LISTEN_FDS=3"]}"#, Some("LISTEN_FDS=3\n")),
            (r#"{"Env": ["N=a\u0000b", "\u0000=1", "OK=1"]}"#, Some("OK=1\n")),
            (r#"{"Env": ["P=\n\u001b[2J"]}"#, Some("P=\n")),
            (r#"{"WorkingDir": "../../../.."}"#, None),
            (r#"{"WorkingDir": "/../../../../tmp"}"#, None),
            (r#"{"WorkingDir": "/tmp/\u0000"}"#, None),
            (r#"{"WorkingDir": "/proc/self/fd/7"}"#, None),
            (r#"{"WorkingDir": "/proc/1/root/new"}"#, None),
            (r#"{"WorkingDir": "/sys/new"}"#, None),
            (r#"{"Entrypoint": ["/bin/e\u0000nv"]}"#, None),
            (r#"{"Entrypoint": [""]}"#, None),
            (r#"{"Entrypoint": "env"}"#, None),
            (r#"{"Labels": {"com.hooks.mpi.enabled": "true"}}"#, Some("")),
            ("", None),
            ("[]", None),
            ("null", None),
            (&deep, None),
            (&long, None),
        ] {
            fs::write(&meta, text).unwrap();
            let image = format!("load/library/{name}");
            let output = run(&installation, &[&image, "sh", "-c", "env; pwd"]);
            let what = text.chars().take(60).collect::<String>();
            match shown {
                Some(words) => {
                    let stdout = output.clone().succeeds();
                    assert!(words.lines().all(|word| stdout.contains(word)), "{what}: {stdout}");
                }
                None => assert!(
                    [0, 125, 126, 127].contains(&output.status),
                    "{what}: {}",
                    output.status
                ),
            }
            let stderr: String = output.stderr.chars().take(2000).collect();
            assert!(!stderr.contains("panicked"), "{what}: {stderr}");
            assert!(!output.stdout.contains("(unreachable)"), "{what}: {}", output.stdout);
            assert_eq!(snapshot(&canary), before, "{what}");
        }
    }
}

#[test]
fn a_mount_shows_no_more_than_the_user_may_see() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let canary = canary(&installation);
        let before = snapshot(&canary);
        let rooted = installation.path("rooted");
        fs::create_dir(&rooted).unwrap();
        fs::write(rooted.join("file"), "SECRET of root").unwrap();
        fs::set_permissions(&rooted, PermissionsExt::from_mode(0o700)).unwrap();
        let home = installation.path("home/alice");
        let link = |name: &str, target: &Path| {
            symlink(target, home.join(name)).unwrap();
            home.join(name)
        };
        let engine = format!("/proc/{}/root", std::process::id());
        for source in [
            canary.join("bob/file"),
            canary.join("bob/open"),
            canary.join("bob/open/file"),
            canary.join("bob"),
            rooted.join("file"),
            rooted.clone(),
            link("bob", &canary.join("bob/open")),
            link("root", &rooted.join("file")),
            link("loop", &home.join("loop")),
            "/proc/self/fd/3".into(),
            "/proc/self/root/root".into(),
            "/proc/self/cwd".into(),
            "/proc/self/exe".into(),
            "/proc/self/ns/mnt".into(),
            engine.into(),
            "/etc/shadow".into(),
            "/nonsense".into(),
        ] {
            let script = "cat /x /x/file /x/open/file; ls /x; cat /x/shadow; touch /x/new; true";
            let output = run(&installation, &[&bind(&source, "/x"), IMAGE, "sh", "-c", script]);
            let shown = output.stdout + &output.stderr;
            assert!(!shown.contains("SECRET") && !shown.contains("root:*"), "{source:?}: {shown}");
            assert!([0, 125].contains(&output.status), "{source:?}: {shown}");
            // The runtime changes directory as root; not for us.
            for directory in ["/x", "/x/open"] {
                let args =
                    [&bind(&source, "/x"), "-w", directory, IMAGE, "sh", "-c", "cat file; ls"];
                let output = run(&installation, &args);
                let shown = output.stdout + &output.stderr;
                assert!(!shown.contains("SECRET"), "{source:?} -w {directory}: {shown}");
            }
            assert_eq!(snapshot(&canary), before);
        }
    }
}

#[test]
fn a_mount_of_the_whole_host_does_not_show_the_bundle() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let place = installation.prefix().join("var/OCIBundleDir");
        let list = ["ls", "-A", &format!("/host{}", place.display())].map(str::to_owned);
        let mount = bind(Path::new("/"), "/host");
        let args = [&[mount.as_str(), IMAGE], &list.each_ref().map(String::as_str)[..]].concat();
        assert_eq!(run(&installation, &args).succeeds(), "", "{runtime:?}");
    }
}

#[test]
fn standard_streams_stay_their_owners() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        let canary = canary(&installation);
        let sarus = installation.prefix().join("bin/sarus");
        let log = installation.path("log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).unwrap();
        let before = snapshot(&canary);
        for options in ["", "--init", "-w /tmp", "--init -w /tmp"] {
            let script = format!(
                "exec {} run {options} {IMAGE} cat <{}/hosts 2>>{}",
                sarus.display(),
                canary.display(),
                log.display()
            );
            let output = Output::of(&mut installation.as_user(alice, "sh", ["-c", &script]));
            assert_eq!(output.succeeds(), "the hosts of root\n", "{runtime:?}");
            assert_eq!(snapshot(&canary), before, "{runtime:?} {options}");
            assert_eq!(fs::metadata(&log).unwrap().uid(), 0, "{runtime:?} {options}");
        }
        assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
    }
}

/// An installation whose site mounts a tree of root's, with directories of alice's and bob's in it.
fn with_site_mount(runtime: Runtime) -> (Installation, PathBuf) {
    let installation = Installation::new().runtime(runtime);
    let site = installation.path("site");
    fs::create_dir(&site).unwrap();
    fs::create_dir(site.join("roots")).unwrap();
    installation.plant(&installation.alice, "site/alice/file", "of alice", 0o755);
    installation.plant(&installation.bob, "site/bob/open/file", "SECRET", 0o755);
    give(&site.join("bob"), &installation.bob);
    fs::set_permissions(site.join("bob"), PermissionsExt::from_mode(0o700)).unwrap();
    let mounts =
        format!(r#"[{{"type": "bind", "source": "{}", "destination": "/site"}}]"#, site.display());
    let limits = r#"{"notAllowedPrefixesOfPath": ["/etc", "/alias"], "notAllowedPaths": ["/opt"]}"#;
    let installation = installation.set("siteMounts", &mounts).set("userMounts", limits);
    let root = installation.rootfs("rootfs");
    for (name, target) in [
        ("x", "/etc"),
        ("relative", "usr/../etc"),
        ("chain", "/x/.."),
        ("o", "/opt"),
        ("toroots", "/site/roots"),
        ("tobob", "/site/bob"),
        ("out", "../../../../../.."),
        ("proclink", "/proc"),
        ("alias", "/aliased"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    fs::create_dir(root.join("aliased")).unwrap();
    fs::create_dir(root.join("opt")).unwrap();
    installation.forge(&installation.alice, &root, "bb", NO_META);
    (installation, site)
}

#[test]
fn a_destination_is_judged_where_it_really_is() {
    for runtime in Runtime::ALL {
        let (installation, site) = with_site_mount(runtime);
        let data = installation.plant(&installation.alice, "home/alice/data/file", "", 0o755);
        let data = data.parent().unwrap();
        let before = snapshot(&site);
        for (destination, why) in [
            ("/", "reserved"),
            ("/.", "reserved"),
            ("/out", "reserved"),
            ("/dev", "reserved"),
            ("/dev/null", "reserved"),
            ("/dev/shm", "reserved"),
            ("/dev/pts", "reserved"),
            ("/dev/init", "reserved"),
            ("/dev/launch", "reserved"),
            ("/proc", "reserved"),
            ("/proc/sys", "reserved"),
            ("/proc/self/cwd", "reserved"),
            ("/proclink/1", "reserved"),
            ("/sys", "reserved"),
            ("/sys/kernel", "reserved"),
            ("/out/proc/x", "reserved"),
            ("/etc", "does not allow"),
            ("/x", "does not allow"),
            ("/x/y", "does not allow"),
            ("/x/y/z", "does not allow"),
            ("/relative/y", "does not allow"),
            ("/chain/etc/y", "does not allow"),
            ("/out/etc/y", "does not allow"),
            ("/opt", "does not allow"),
            ("/o", "does not allow"),
            ("/alias/z", "does not allow"),
            ("/aliased/z", "does not allow"),
            ("/aliased", "does not allow"),
            ("/a/../etc", "must not hold '..'"),
            ("/site/roots/new", "Permission denied"),
            ("/site/new", "Permission denied"),
            ("/toroots/new/deep", "Permission denied"),
            ("/site/bob/new", "Permission denied"),
            ("/site/bob/open", "Permission denied"),
            ("/site/bob/open/file", "Permission denied"),
            ("/site/bob/open/nonsense", "Permission denied"),
            ("/tobob/open", "Permission denied"),
        ] {
            let mount = bind(data, destination);
            let text = run(&installation, &[&mount, IMAGE, "true"]).fails(125);
            assert!(text.contains(why), "{destination}: {text}");
            assert_eq!(snapshot(&site), before, "{destination}");
            // The same holds for the working directory, but that it may be anywhere.
            if why == "Permission denied" {
                run(&installation, &["-w", destination, IMAGE, "true"]).fails(125);
                assert_eq!(snapshot(&site), before, "{destination}");
            }
        }
        for allowed in ["/o/below", "/etcetera", "/out/usr", "/site/alice", "/site/roots"] {
            run(&installation, &[&bind(data, allowed), IMAGE, "ls", allowed]).succeeds();
        }
        assert_eq!(snapshot(&site), before);
        // In a directory of hers on the host, alice makes directories, and they are hers.
        run(&installation, &[&bind(data, "/site/alice/new/deep"), IMAGE, "true"]).succeeds();
        run(&installation, &["-w", "/site/alice/work/deep", IMAGE, "true"]).succeeds();
        for made in ["alice/new", "alice/new/deep", "alice/work", "alice/work/deep"] {
            let made = fs::metadata(site.join(made)).unwrap();
            assert_eq!((made.uid(), made.gid()), (installation.alice.uid, installation.alice.gid));
        }
    }
}

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
    "--trace=open_tree,mount_setattr,move_mount,openat2,close_range,seccomp",
    "--inject=open_tree,mount_setattr,move_mount,openat2,close_range:error=ENOSYS",
    "--signal=none",
    "--quiet=all",
    "--",
];

#[test]
fn restrictions_hold_for_submounts_with_new_and_old_kernels() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
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

#[test]
fn no_race_of_the_user_shows_what_is_closed_to_them() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        installation.plant(&installation.bob, "home/bob/closed/open/file", "SECRET", 0o755);
        let closed = installation.path("home/bob/closed");
        give(&closed, &installation.bob);
        fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        let rooted = installation.path("rooted");
        fs::create_dir(&rooted).unwrap();
        let before = snapshot(&closed) + &snapshot(&rooted);
        installation.plant(alice, "home/alice/race/dir/file", "hers", 0o755);
        let race = installation.path("home/alice/race");
        give(&race, alice);
        // Links by the host's path and by the container's.
        symlink(closed.join("open"), race.join("link")).unwrap();
        give(&race.join("link"), alice);
        installation.plant(alice, "home/alice/inside/dir/file", "hers", 0o755);
        let inside = installation.path("home/alice/inside");
        give(&inside, alice);
        symlink("/bob/closed/open", inside.join("link")).unwrap();
        give(&inside.join("link"), alice);
        installation.plant(alice, "home/alice/make/dir/file", "hers", 0o755);
        let make = installation.path("home/alice/make");
        give(&make, alice);
        symlink("/all/rooted", make.join("link")).unwrap();
        give(&make.join("link"), alice);
        let flippers = [&race, &inside, &make].map(|place| {
            Flipper::start(&installation, alice, &place.join("dir"), &place.join("link"))
        });

        let all = bind(&installation.path(""), "/all");
        let bob = bind(&installation.path("home/bob"), "/bob");
        let source = bind(&race.join("dir"), "/m");
        let way = bind(&inside, "/m");
        let made = bind(&make, "/m");
        let data = bind(&installation.path("home/alice/data"), "/m/dir/new");
        fs::create_dir(installation.path("home/alice/data")).unwrap();
        let attacks: [&[&str]; 4] = [
            // The source of a mount.
            &[&source, IMAGE, "cat", "/m/file"],
            // The way to the working directory.
            &[&bob, &way, "-w", "/m/dir", IMAGE, "cat", "file"],
            // A destination below a mount, and a working directory that has to be made.
            &[&all, &made, &data, IMAGE, "cat", "/m/dir/file"],
            &[&all, &made, "-w", "/m/dir/work", IMAGE, "cat", "../file"],
        ];
        let mut hers = 0;
        for turn in 0..120 {
            let output = run(&installation, attacks[turn % attacks.len()]);
            let shown = format!("{}{}", output.stdout, output.stderr);
            assert!(!shown.contains("SECRET"), "{runtime:?} {turn}: {shown}");
            hers += usize::from(shown.contains("hers"));
        }
        // Else nothing was tried.
        assert!(hers > 5, "{runtime:?}: only {hers}");
        drop(flippers);
        assert_eq!(snapshot(&closed) + &snapshot(&rooted), before, "{runtime:?}");
    }
}

#[test]
fn what_root_believes_must_be_safe_from_others() {
    #[derive(Debug, Clone, Copy)]
    enum Fault {
        OwnedByAlice,
        ForTheGroup,
        ForAll,
        Linked,
    }
    let new = || {
        let installation = with_busybox(Runtime::Runc);
        let tools = installation.path("tools");
        fs::create_dir(&tools).unwrap();
        for name in ["runc", "hook", "init"] {
            let source = if name == "runc" { Runtime::Runc.path() } else { "/bin/true".into() };
            fs::copy(source, tools.join(name)).unwrap();
        }
        let path = |name: &str| format!("\"{}\"", tools.join(name).display());
        let hooks = format!(r#"{{"poststop": [{{"path": {}}}]}}"#, path("hook"));
        installation
            .set("runcPath", &path("runc"))
            .set("OCIHooks", &hooks)
            .set("initPath", &path("init"))
    };
    // And whether it is checked even where the checks are off.
    let table = [
        ("prefix/etc/sarus.json", true),
        ("prefix/etc/sarus.schema.json", true),
        ("prefix/etc", true),
        ("prefix", true),
        ("", true),
        ("tools/runc", false),
        ("tools/hook", false),
        ("tools/init", false),
        ("tools", false),
        ("prefix/var/OCIBundleDir", false),
        ("prefix/var/OCIBundleDir/entry", false),
        ("prefix/var", false),
    ];
    let installation = new();
    let alice = &installation.alice;
    fs::write(installation.path("prefix/var/OCIBundleDir/entry"), "").unwrap();
    let ours = installation.path("home/alice/copy");
    for (name, always) in table {
        let path = installation.path(name);
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        for fault in [Fault::OwnedByAlice, Fault::ForTheGroup, Fault::ForAll, Fault::Linked] {
            let is_root = name.is_empty();
            let aside = path.with_extension("aside");
            match fault {
                Fault::OwnedByAlice => chown(&path, Some(alice.uid), None).unwrap(),
                Fault::ForTheGroup => {
                    fs::set_permissions(&path, PermissionsExt::from_mode(mode | 0o020)).unwrap();
                }
                Fault::ForAll => {
                    fs::set_permissions(&path, PermissionsExt::from_mode(mode | 0o002)).unwrap();
                }
                // To something of alice's.
                Fault::Linked => {
                    if path.is_dir() || is_root {
                        continue;
                    }
                    fs::copy(&path, &ours).unwrap();
                    give(&ours, alice);
                    fs::rename(&path, &aside).unwrap();
                    symlink(&ours, &path).unwrap();
                }
            }
            let what = format!("{name} {fault:?}");
            let text = run(&installation, &["--init", IMAGE, "true"]).fails(125);
            let named = path.strip_prefix("/").unwrap().to_str().unwrap().trim_end_matches('/');
            let named = text.contains(named) || text.contains(ours.to_str().unwrap());
            assert!(
                named && (text.contains("writable") || text.contains("owned")),
                "{what}: {text}"
            );
            if always {
                let config = installation.config_file();
                let text = fs::read_to_string(&config).unwrap();
                let off = text.replace("\"securityChecks\": true", "\"securityChecks\": false");
                assert_ne!(text, off);
                fs::write(&config, off).unwrap();
                run(&installation, &[IMAGE, "true"]).fails(125);
                // Nothing is parsed before: what is wrong in it is not told.
                fs::write(&config, "nonsense").unwrap();
                let told = run(&installation, &[IMAGE, "true"]).fails(125);
                assert!(told.contains("cannot trust"), "{what}: {told}");
                fs::write(&config, text).unwrap();
            }
            match fault {
                Fault::Linked => {
                    fs::remove_file(&path).unwrap();
                    fs::rename(&aside, &path).unwrap();
                }
                _ => {
                    chown(&path, Some(0), None).unwrap();
                    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
                }
            }
        }
    }
    run(&installation, &[IMAGE, "true"]).succeeds();
    let installation = installation.set("securityChecks", "false");
    for name in ["tools", "tools/runc", "tools/hook", "prefix/var/OCIBundleDir"] {
        let mode = PermissionsExt::from_mode(0o777);
        fs::set_permissions(installation.path(name), mode).unwrap();
    }
    run(&installation, &[IMAGE, "true"]).succeeds();
}

#[test]
fn an_image_that_is_replaced_stays_what_running_containers_see() {
    let installation = with_busybox(Runtime::Crun);
    let alice = &installation.alice;
    let root = installation.rootfs("rootfs");
    fs::write(root.join("version"), "one").unwrap();
    installation.forge(alice, &root, "v", NO_META);
    let fifo = installation.path("home/alice/go");
    Output::of(Command::new("mkfifo").arg("-m666").arg(&fifo)).succeeds();
    let mount = bind(&fifo, "/go");
    let script = "cat /go; cat /version /bin/busybox | head -c 3";
    let running = installation
        .sarus_command(alice, &["run", &mount, "load/library/v", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it runs", || processes_of(alice.uid).iter().any(|(_, line)| line == "cat /go"));
    fs::write(root.join("version"), "two").unwrap();
    // As the engine itself does, and by another file than the one that runs.
    let image = installation.repository(alice).join("images/load/library/v/latest.squashfs");
    fs::rename(&image, image.with_extension("old")).unwrap();
    fs::remove_file(image.with_extension("old")).unwrap();
    let pack = ["-noappend", "-quiet", "-no-progress"];
    Output::of(Command::new("mksquashfs").arg(&root).arg(&image).args(pack)).succeeds();
    let now = run(&installation, &["load/library/v", "cat", "/version"]).succeeds();
    assert_eq!(now, "two");
    fs::write(&fifo, "").unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one");
    // Written to in place, even that only spoils what the user sees.
    fs::write(&image, vec![0xa5; 1 << 20]).unwrap();
    run(&installation, &["load/library/v", "true"]).fails(125);
}

#[test]
fn users_share_the_device_of_an_image_that_they_share() {
    let installation = Installation::new();
    let archive = installation.archive(&Image::busybox());
    let load = ["load", "--centralized-repository", archive.to_str().unwrap(), "bb"];
    installation.sarus(&User::root(), &load).succeeds();
    let users = [installation.alice.clone(), installation.bob.clone()];
    let args = ["run", "--centralized-repository", IMAGE, "sleep", "1000"];
    let mut engines: Vec<_> =
        users.iter().map(|user| installation.sarus_command(user, &args).spawn().unwrap()).collect();
    let sleeps = |user: &User| processes_of(user.uid).iter().any(|(_, line)| line == "sleep 1000");
    wait_until("both run", || users.iter().all(sleeps));
    let devices = || {
        let central = installation.path("central");
        loop_devices().into_iter().filter(|(_, file)| file.starts_with(&central)).count()
    };
    assert_eq!(devices(), 1);
    // Everything of both at once: engines, runtimes and programs.
    let mut all: Vec<String> = engines.iter().map(|engine| engine.id().to_string()).collect();
    for user in &users {
        for (pid, _) in processes_of(user.uid) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            all.extend([pid.to_string(), field(&status, "PPid")]);
        }
    }
    all.retain(|pid| *pid != "1" && *pid != std::process::id().to_string());
    Output::of(Command::new("kill").arg("-KILL").args(&all));
    for engine in &mut engines {
        assert!(!engine.wait().unwrap().success());
    }
    wait_until("no process is left", || users.iter().all(|user| processes_of(user.uid).is_empty()));
    wait_until("no device is left", || devices() == 0);
}
