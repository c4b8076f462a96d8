//! What a program finds: itself, its root file system, its limits.

use super::*;

#[test]
fn the_program_is_the_user_and_nothing_more() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let status = run(&installation, &[IMAGE, "cat", "/proc/self/status"]);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let uid = alice.uid;
        assert_eq!(field("Uid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(field("Gid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(field("Groups:"), format!("{} {}", alice.groups[0], alice.groups[1]));
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Pid:"), "1");
    }
}

#[test]
fn the_root_file_system_is_writable_for_the_user_and_gone_afterwards() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let script = "echo one > /new && mkdir /etc/dir && rm /etc/os-release && cat /new";
        assert_eq!(run(&installation, &[IMAGE, "sh", "-c", script]), "one\n");
        let shown = run(&installation, &[IMAGE, "sh", "-c", "ls /new; ls /etc/os-release; true"]);
        assert_eq!(shown, "/etc/os-release\n");
        let place = installation.prefix().join("var/OCIBundleDir");
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    }
}

#[test]
fn the_exit_status_is_the_programs_own() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        for (args, status) in [
            (&["sh", "-c", "exit 42"][..], 42),
            (&["false"], 1),
            (&["no-such-program"], 127),
            (&["/no/such/program"], 127),
            (&["/etc/os-release"], 126),
        ] {
            try_run(&installation, &[&[IMAGE], args].concat()).fails(status);
        }
        // Process 1 is safe from its own signals; with --init the program is not process 1.
        let kill = ["--init", IMAGE, "sh", "-c", "kill -9 $$"];
        try_run(&installation, &kill).fails(128 + 9);
        try_run(&installation, &["no/such/image", "true"]).fails(125);
        try_run(&installation, &["--no-such-option", IMAGE, "true"]).fails(125);
    }
}

#[test]
fn the_umask_is_the_callers() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let script = format!("umask 027; exec {} run {IMAGE} sh -c umask", sarus.display());
        let mut command = installation.as_user(&installation.alice, "sh", ["-c", &script]);
        assert_eq!(Output::of(&mut command).succeeds(), "0027\n");
    }
}

#[test]
fn the_processors_are_the_callers() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let args = ["-c", "1", sarus.to_str().unwrap(), "run", IMAGE, "cat", "/proc/self/status"];
        let mut command = installation.as_user(&installation.alice, "taskset", args);
        let status = Output::of(&mut command).succeeds();
        assert!(status.contains("Cpus_allowed_list:\t1\n"), "{status}");
    }
}

#[test]
fn the_files_of_etc_are_the_hosts_and_the_sites() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let etc = installation.prefix().join("etc");
    for (name, source) in [
        ("hosts", "/etc/hosts".into()),
        ("resolv.conf", "/etc/resolv.conf".into()),
        ("passwd", etc.join("passwd")),
        ("group", etc.join("group")),
        ("nsswitch.conf", etc.join("container/nsswitch.conf")),
    ] {
        let shown = run(&installation, &[IMAGE, "cat", &format!("/etc/{name}")]);
        assert_eq!(shown, fs::read_to_string(source).unwrap_or_default(), "{name}");
    }
    assert_eq!(run(&installation, &[IMAGE, "whoami"]), "alice\n");
}

#[test]
fn an_init_process_reaps_and_forwards() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let processes = run(&installation, &["--init", IMAGE, "ps", "-o", "pid,comm"]);
        assert!(processes.contains("    1 init\n"), "{processes}");
        let script = "trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let mut child = installation
            .sarus_command(&installation.alice, &["run", "--init", IMAGE, "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        sleep(Duration::from_secs(1));
        // As the user, who must be able to signal the set-user-id engine.
        let kill = ["-TERM", &child.id().to_string()].map(str::to_owned);
        Output::of(&mut installation.as_user(&installation.alice, "kill", kill)).succeeds();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\ngot TERM\n");
        assert_eq!(output.status.code(), Some(5));
        child = installation.sarus_command(&installation.alice, &["images"]).spawn().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn ramfs_serves_as_well() {
    let installation =
        Installation::with_busybox(Runtime::Runc).set("ramFilesystemType", "\"ramfs\"");
    assert_eq!(run(&installation, &[IMAGE, "sh", "-c", "echo x > /y; cat /y"]), "x\n");
}

#[test]
fn the_engine_needs_to_be_setuid_and_says_so() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let binary = installation.prefix().join("bin/sarusbox");
    fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
    let text = try_run(&installation, &[IMAGE, "true"]).fails(125);
    assert!(text.contains("not installed set-user-id root"), "{text}");
    // What needs no privilege works without.
    assert!(installation.sarus(&installation.alice, &["images"]).succeeds().contains(IMAGE));
}

#[test]
fn a_repository_with_devices_for_files_is_refused_at_once() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let repository = installation.repository(&installation.alice);
    for file in ["images/load/library/bb/latest.meta", "metadata.json"] {
        let file = repository.join(file);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let text = try_run(&installation, &[IMAGE, "true"]).fails(125);
        assert!(text.contains("cannot read") || text.contains("not available"), "{text}");
    }
}

#[test]
fn the_sites_own_init_serves_as_well() {
    for runtime in Runtime::ALL {
        let installation =
            Installation::with_busybox(runtime).set("initPath", "\"/usr/bin/tini-static\"");
        let script = "cat /proc/1/cmdline | tr '\\0' ' '; exit 6";
        let output = try_run(&installation, &["--init", IMAGE, "sh", "-c", script]);
        assert!(output.stdout.starts_with("/dev/init -- sh -c"), "{runtime:?}: {output}");
        output.fails(6);
        let version = run(&installation, &["--init", IMAGE, "/dev/init", "--version"]);
        assert!(version.starts_with("tini version"), "{runtime:?}: {version}");
    }
}
