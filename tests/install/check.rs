//! `sarus check`: what it finds, and what it keeps to itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::pty::Shell;
use crate::support::pull::{behind, in_namespace};
use crate::support::registry::Registry;
use crate::support::{Installation, Output, Runtime, User, binary};

/// What ordinary users are told.
fn check(installation: &Installation) -> Output {
    installation.sarus(&installation.alice, &["check"])
}

fn set_mode(path: std::path::PathBuf, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Insists on a line of this status with these words, and on the exit status that goes with it.
#[track_caller]
fn assert_found(output: &Output, status: &str, words: &str) {
    let found = |line: &str| line.starts_with(status) && line.contains(words);
    assert!(output.stdout.lines().any(found), "no {status} with {words:?}: {output}");
    assert_eq!(output.status, i32::from(output.stdout.contains("\nerror ")), "{output}");
}

#[test]
fn a_good_installation_has_neither_errors_nor_warnings() {
    let installation = Installation::new().runtime(Runtime::Crun);
    set_mode(installation.path("central"), 0o755);
    for user in [&installation.alice, &User::root()] {
        let output = installation.sarus(user, &["check"]);
        assert!(output.stdout.lines().count() > 10, "{output}");
        for line in output.clone().succeeds().lines() {
            assert!(line.starts_with("ok  "), "{output}");
        }
    }
}

#[test]
fn runtimes_are_known_by_what_they_say_and_old_ones_are_named() {
    let installation = Installation::new();
    let program = installation.path("runc");
    let installation = installation.set("runcPath", &format!("\"{}\"", program.display()));
    for (answer, status, words) in [
        ("runc version 1.1.5", "warning", "older than the fixes of CVE-2025-31133"),
        ("runc version 1.3.2", "warning", "says that it is runc 1.3.2"),
        ("runc version 1.3.3", "ok", "is runc 1.3.3"),
        ("crun version 1.8.1", "ok", "is crun 1.8.1"),
        ("youki version 0.5.0", "warning", "neither runc nor crun"),
    ] {
        fs::write(&program, format!("#!/bin/sh\necho {answer}\n")).unwrap();
        set_mode(program.clone(), 0o755);
        for user in [&installation.alice, &User::root()] {
            assert_found(&installation.sarus(user, &["check"]), status, words);
        }
    }
    for (script, why) in [("exit 3", "it ended with"), ("yes", "longer than 4096 bytes")] {
        fs::write(&program, format!("#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")).unwrap();
        assert_found(&installation.sarus(&installation.alice, &["check"]), "error", why);
    }
}

#[test]
fn faults_of_the_configuration_are_named_with_what_to_do() {
    let cases = [
        ("securityChecks", "false", "warning", "users may become root"),
        ("nonsense", "1", "warning", "nonsense: unknown key"),
        ("runcPath", "\"/nonsense/runc\"", "error", "runcPath: cannot open /nonsense/runc"),
        ("runcPath", "\"/etc/passwd\"", "error", "not executable"),
        ("initPath", "\"/nonsense/init\"", "error", "initPath: cannot open"),
        ("tempDir", "\"/proc\"", "error", "tempDir: /proc is not writable"),
        (
            "tempDir",
            "\"/nonsense\"",
            "error",
            "tempDir: cannot use the temporary directory /nonsense",
        ),
        ("localRepositoryBaseDir", "\"/proc\"", "error", "images: /proc is not writable"),
        ("OCIBundleDir", "\"/tmp\"", "error", "OCIBundleDir: cannot trust /tmp"),
        ("ramFilesystemType", "\"ext4\"", "error", "ramFilesystemType: expected"),
        ("OCIHooks", r#"{"prestart": [{"path": "/nonsense"}]}"#, "error", "prestart: cannot open"),
        (
            "centralizedRepositoryDir",
            "\"/tmp\"",
            "warning",
            "centralizedRepositoryDir: cannot trust",
        ),
        ("centralizedRepositoryDir", "\"/nonsense\"", "ok", "will be made by the first image"),
    ];
    for (key, value, status, words) in cases {
        let output = check(&Installation::new().set(key, value));
        assert_found(&output, status, words);
    }
    // Nothing is called safe that was not looked at.
    let unchecked = check(&Installation::new().set("securityChecks", "false"));
    assert!(!unchecked.stdout.contains("safe from others"), "{unchecked}");
    let shared = check(&Installation::new().set("OCIBundleDir", "\"/tmp\""));
    assert!(shared.stdout.contains("hint: every user can write in /tmp"), "{shared}");
    let ssh = Installation::new();
    let hook = ssh.prefix().join("ssh_hook");
    fs::copy(binary(), &hook).unwrap();
    let ssh = ssh.set("OCIHooks", &format!(r#"{{"prestart": [{{"path": {hook:?}}}]}}"#));
    assert_found(&check(&ssh), "warning", "openssh does not exist, which ssh_hook needs");
    let openssh = ssh.prefix().join("openssh");
    fs::create_dir(&openssh).unwrap();
    set_mode(openssh.clone(), 0o777);
    assert_found(&check(&ssh), "error", "openssh is writable for its group and others");
    set_mode(openssh, 0o755);
    assert_found(&check(&ssh), "ok", "openssh is there, and safe from others");
    let words = r#""args": ["ssh_hook"], "env": ["OPENSSH_DIR=/nonsense/ssh"]"#;
    let elsewhere = format!(r#"{{"prestart": [{{"path": {:?}, {words}}}]}}"#, binary());
    let output = check(&ssh.set("OCIHooks", &elsewhere));
    assert_found(&output, "warning", "/nonsense/ssh does not exist, which ssh_hook needs");
}

#[test]
fn faults_of_the_installation_are_named_with_what_to_do() {
    let installation = Installation::new();
    let prefix = installation.prefix();
    set_mode(prefix.join("bin/sarusbox"), 0o755);
    let output = check(&installation);
    assert_found(&output, "error", "is not setuid root");
    assert!(output.stdout.contains("hint: run configure_installation.sh as root"), "{output}");
    set_mode(prefix.join("bin/sarusbox"), 0o6755);
    assert_found(&check(&installation), "warning", "is setgid, too");
    set_mode(prefix.join("bin/sarusbox"), 0o4755);

    set_mode(prefix.clone(), 0o775);
    let output = check(&installation);
    assert_found(&output, "error", "prefix is writable for its group");
    assert!(output.stdout.contains("hint: chmod go-w"), "{output}");
    set_mode(prefix.clone(), 0o755);

    fs::write(prefix.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    let output = check(&installation);
    assert_found(&output, "error", "etc/passwd does not have this user");
    assert!(output.stdout.contains("configure_installation.sh --users"), "{output}");
}

#[test]
fn a_program_that_cannot_become_root_is_found_out() {
    let installation = Installation::new();
    let command = installation.sarus_command(&installation.alice, &["check"]);
    let output = Output::of(&mut behind(&["setpriv", "--no-new-privs"], &command));
    assert_found(&output, "error", "the kernel ignores the setuid bit");
    let prefix = installation.prefix();
    let nosuid =
        format!("mount --bind {0} {0}; mount -o remount,bind,nosuid {0}", prefix.display());
    let output = Output::of(&mut in_namespace(&nosuid, &command));
    assert_found(&output, "error", "mounted nosuid");
}

/// A kernel without something, as far as files under /proc and /lib/modules tell.
#[test]
fn what_the_kernel_lacks_is_named_with_what_to_do() {
    let installation = Installation::new().set("ramFilesystemType", "\"ramfs\"");
    let command = installation.sarus_command(&installation.alice, &["check"]);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let lists = installation.path("kernel");
    fs::create_dir_all(lists.join("modules").join(&release)).unwrap();
    let options = Output::of(
        std::process::Command::new("sh")
            .args(["-c", "echo CONFIG_SQUASHFS=y | gzip -c >$0/config"])
            .arg(&lists),
    );
    options.succeeds();
    fs::write(lists.join("filesystems"), "nodev\ttmpfs\n").unwrap();
    fs::write(
        lists.join("modules").join(release).join("modules.dep"),
        "kernel/fs/squashfs/squashfs.ko.xz:\nkernel/x.ko: kernel/fs/overlay.ko\n",
    )
    .unwrap();
    let setup = format!(
        "mount --bind {0}/filesystems /proc/filesystems; mount --bind {0}/config /proc/config.gz;
         mount -t overlay overlay -o lowerdir={0}:/usr/lib /usr/lib; mount -t tmpfs none /dev",
        lists.display()
    );
    let output = Output::of(&mut in_namespace(&setup, &command));
    for (status, words) in [
        ("warning", "squashfs is a module that is not loaded"),
        ("error", "this kernel has no overlay"),
        ("error", "this kernel has no loop"),
        ("error", "this kernel has no ramfs"),
        ("error", "squashfs does not read images in zstd"),
    ] {
        assert_found(&output, status, words);
    }
    assert!(output.stdout.contains("hint: modprobe squashfs"), "{output}");
}

#[test]
fn cgroups_that_the_runtime_does_not_take_are_named() {
    let setup = "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified";
    let hybrid = "echo memory >/sys/fs/cgroup/unified/cgroup.controllers";
    for (runtime, setup, words) in [
        (Runtime::Runc, "mount -t tmpfs none /sys/fs/cgroup".to_owned(), "no cgroups are mounted"),
        (Runtime::Crun, format!("{setup}; {hybrid}"), "hybrid cgroup hierarchy"),
    ] {
        let installation = Installation::new().runtime(runtime);
        let command = installation.sarus_command(&installation.alice, &["check"]);
        assert_found(&Output::of(&mut in_namespace(&setup, &command)), "error", words);
    }
}

#[test]
fn what_a_user_may_not_see_is_not_told() {
    let installation = Installation::new().set("tempDir", "\"/secret-of-the-site\"");
    set_mode(installation.config_file(), 0o600);
    let output = check(&installation);
    assert_found(&output, "unknown", "as this user");
    assert!(output.stdout.contains("ask root"), "{output}");
    assert!(!format!("{output}").contains("secret-of-the-site"), "{output}");
    let output = installation.sarus(&User::root(), &["check"]);
    assert_found(&output, "error", "/secret-of-the-site");

    let installation = Installation::new();
    let bundles = installation.prefix().join("var/OCIBundleDir");
    fs::create_dir(bundles.join("hidden-by-the-site")).unwrap();
    set_mode(bundles, 0o700);
    let output = check(&installation);
    assert_found(&output, "unknown", "OCIBundleDir: cannot tell as this user");
    assert!(!output.stdout.contains("hidden"), "{output}");
}

#[test]
fn programs_get_the_same_as_json() {
    let installation = Installation::new().set("nonsense", "1").set("tempDir", "\"/proc\"");
    let text = check(&installation);
    let json = installation.sarus(&installation.alice, &["check", "--json"]);
    assert_eq!((json.status, text.status), (1, 1), "{json}");
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let mut shown = String::new();
    for finding in value.as_array().unwrap() {
        let field = |name: &str| finding[name].as_str();
        let status = field("status").unwrap();
        shown +=
            &format!("{status:<7}  {}: {}\n", field("subject").unwrap(), field("text").unwrap());
        if let Some(advice) = field("advice") {
            shown += &format!("         hint: {advice}\n");
        }
    }
    // What is free changes from one to the other.
    let steady = |text: &str| {
        text.lines().map(|line| line.split(" has ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(steady(&shown), steady(&text.stdout));
}

#[test]
fn registries_are_asked_when_that_is_wanted() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let ask =
        |server: &str| installation.sarus(&installation.alice, &["check", "--registry", server]);
    assert_found(&ask(&registry.address()), "ok", &format!("{} answers", registry.address()));
    assert_eq!(registry.log().last().unwrap().path, "/v2/");
    assert_found(&ask("127.0.0.1:1"), "error", "cannot reach 127.0.0.1:1");
    assert_found(&ask("../x"), "error", "invalid image name");
    let seen = registry.log().len();
    check(&installation).succeeds();
    assert_eq!(registry.log().len(), seen);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let installation = Installation::new();
    let mut shell = Shell::start(&installation, &installation.alice);
    let sarus = installation.prefix().join("bin/sarus");
    let sarus = sarus.display();
    for (line, coloured) in [
        (format!("TERM=xterm {sarus} check"), true),
        (format!("TERM=xterm NO_COLOR= {sarus} check"), true),
        (format!("TERM=xterm NO_COLOR=1 {sarus} check"), false),
        (format!("TERM=dumb {sarus} check"), false),
        (format!("{sarus} check"), false),
        (format!("TERM=xterm {sarus} check | cat"), false),
        (format!("TERM=xterm {sarus} check --json"), false),
    ] {
        let shown = shell.runs(&line);
        assert!(shown.contains("loop devices are available"), "{shown}");
        assert_eq!(shown.contains("\x1b[32mok"), coloured, "{line}: {shown}");
    }
}
