//! Images whose content lies in wait: links, devices, set-user-id programs, attributes.

use super::*;

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
        ("tmp", "@", Runs),
        ("tmp", "/", Runs),
        ("tmp", "/proc/self/root@", Runs),
        ("tmp", "is a fifo", Runs),
        ("work", "@", Runs),
        ("work", "@/new/directory", Runs),
        ("work", "/../../..@/new", Runs),
    ];
    let mut installation = Installation::with_busybox(Runtime::Runc);
    let canary = canary(&installation);
    let (alice, before) = (installation.alice.clone(), snapshot(&canary));
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
        installation.forge(&alice, &root, &format!("hostile{number}"), NO_META);
        fs::remove_dir_all(root).unwrap();
    }
    let source = installation.plant(&alice, "home/alice/source/file", "", 0o755);
    for runtime in Runtime::ALL {
        installation = installation.runtime(runtime);
        for (number, (path, kind, then)) in table.iter().enumerate() {
            let image = format!("load/library/hostile{number}");
            let script =
                "cat /etc/passwd /etc/hosts /etc/resolv.conf /dev/null; echo >/etc/new; true";
            let args = ["--init", "-w", "/work", &image, "sh", "-c", script];
            let what = format!("{runtime:?} {path} {kind}");
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
            // Nor without options, nor by mounts that are made on the way there.
            run(&installation, &[&image, "true"]);
            assert_eq!(snapshot(&canary), before, "{what}");
            if !matches!(*path, "tmp" | "work" | "etc/hosts") {
                continue;
            }
            for destination in [format!("/{path}"), format!("/{path}/mounted")] {
                let mount = bind(&source, &destination);
                let output =
                    run(&installation, &[&mount, &image, "sh", "-c", "echo x >/tmp/new; true"]);
                assert!(output.status == 0 || output.status == 125, "{what}: {output}");
                assert_eq!(snapshot(&canary), before, "{what} {destination}");
            }
        }
    }
}

#[test]
fn privileged_files_of_an_image_are_inert() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
        // Nobody makes devices; and one that root would make there is none.
        for (kind, major, minor) in [("c", "1", "1"), ("c", "1", "5"), ("b", "7", "0")] {
            let output = sh(&format!("mknod /tmp/node {kind} {major} {minor}"));
            assert!(output.stderr.contains("Operation not permitted"), "{output}");
            let script = "until [ -e /tmp/node ]; do sleep 0.1; done; head -c 1 /tmp/node";
            let args = ["run", image, "sh", "-c", script];
            let container = installation.sarus_command(alice, &args).stderr(Stdio::piped()).spawn();
            let container = container.unwrap();
            let program = || {
                let mut all = processes_of(alice.uid).into_iter();
                all.find(|(_, line)| line.starts_with("sh -c until")).map(|(pid, _)| pid)
            };
            wait_until("the program runs", || program().is_some());
            let node = format!("/proc/{}/root/tmp/node", program().unwrap());
            Output::of(Command::new("mknod").args(["-m666", &node, kind, major, minor])).succeeds();
            let output = container.wait_with_output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && text.contains("Permission denied"), "{text}");
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
fn what_a_runtime_lifts_is_restricted_before_the_program_starts() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let source = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdint.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            uint64_t attr[4] = {0, 0x2 | 0x4, 0, 0}; /* clears nosuid and nodev */
            if (!strcmp(argv[1], "--version")) return execv(RUNC, argv);
            if (syscall(442, AT_FDCWD, "rootfs", 0, attr, sizeof attr)) return 99;
            return execv(RUNC, argv);
        }"#;
    let runc = format!("#define RUNC \"{}\"\n", Runtime::Runc.path().display());
    let loose = installation.compile("runc-loose", &(runc + source));
    let installation = installation.set("runcPath", &format!("\"{}\"", loose.display()));
    let flags = "grep -E '^[^ ]+ / ' /proc/mounts";
    let output = run(&installation, &[IMAGE, "sh", "-c", flags]);
    assert!(output.clone().succeeds().contains("nosuid,nodev"), "{output}");
}

/// Nobody but the runtime can run the engine's hook in time.
#[test]
fn a_runtime_that_runs_no_hooks_is_refused() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let script = format!(
        "#!/bin/sh\nsed -i 's/\"createContainer\":/\"poststop\":/' config.json\nexec {} \"$@\"\n",
        Runtime::Runc.path().display()
    );
    let careless = installation.path("careless");
    fs::write(&careless, script).unwrap();
    fs::set_permissions(&careless, PermissionsExt::from_mode(0o755)).unwrap();
    let installation = installation.set("runcPath", &format!("\"{}\"", careless.display()));
    let output = run(&installation, &[IMAGE, "sh", "-c", "sleep 1; echo started"]);
    assert_eq!(output.stdout, "", "{output}");
    let text = output.fails(125);
    assert!(text.contains("did not run the hook"), "{text}");
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn attributes_of_overlay_in_an_image_lead_nowhere() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
        let script =
            "ls -la /redirected; cat /metacopied; touch /redirected/new /usr/new /home/new";
        let output = run(&installation, &["load/library/attributes", "sh", "-c", script]);
        let shown = output.stdout + &output.stderr;
        assert!(!shown.contains("of root") && !shown.contains("hosts"), "{shown}");
        assert_eq!(snapshot(&canary), before);
    }
}

#[test]
fn no_working_directory_leads_out_by_a_descriptor() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        for number in 0..40 {
            let directory = format!("/proc/self/fd/{number}");
            for path in [directory.clone(), format!("{directory}/../../../../..")] {
                let output = run(&installation, &["-w", &path, IMAGE, "ls", "-a", "."]);
                assert!(!output.stdout.contains("overlay"), "{runtime:?} {path}: {output}");
                assert!(!output.stdout.contains("OCIBundleDir"), "{runtime:?} {path}: {output}");
                // A path with `..` is refused; a descriptor is none of a directory.
                output.fails(125);
            }
        }
    }
}
