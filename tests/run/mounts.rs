//! Mounts of the user and of the site.

use super::*;

#[test]
fn directories_and_files_are_mounted() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let data = installation.path("home/alice/data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "content").unwrap();
        std::os::unix::fs::chown(&data, Some(installation.alice.uid), None).unwrap();
        let mount = |destination: &str, more: &str| {
            format!("--mount=type=bind,source={},destination={destination}{more}", data.display())
        };
        let shown = run(&installation, &[&mount("/a/b", ""), IMAGE, "cat", "/a/b/file"]);
        assert_eq!(shown, "content");
        run(&installation, &[&mount("/etc/x", ""), IMAGE, "touch", "/etc/x/written"]);
        assert_eq!(fs::metadata(data.join("written")).unwrap().uid(), installation.alice.uid);
        let readonly = mount("/x", ",readonly");
        let text = try_run(&installation, &[&readonly, IMAGE, "touch", "/x/y"]).fails(1);
        assert!(text.contains("Read-only file system"), "{text}");
        let file = format!("--mount=dst=/over/file,src={}/file,type=bind", data.display());
        assert_eq!(run(&installation, &[&file, IMAGE, "cat", "/over/file"]), "content");
    }
}

#[test]
fn site_mounts_are_there_and_the_site_can_forbid_destinations() {
    let installation = Installation::new();
    let shared = installation.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "site").unwrap();
    let site = format!(
        r#"[{{"type": "bind", "source": "{}", "destination": "/scratch", "flags": {{"readonly": ""}}}}]"#,
        shared.display()
    );
    let installation = installation.set("siteMounts", &site).set(
        "userMounts",
        r#"{"notAllowedPrefixesOfPath": ["/etc", "/var"], "notAllowedPaths": ["/opt"]}"#,
    );
    installation.load(&installation.alice, &Image::busybox(), "bb");
    assert_eq!(run(&installation, &[IMAGE, "cat", "/scratch/file"]), "site");
    try_run(&installation, &[IMAGE, "touch", "/scratch/new"]).fails(1);
    let mount = |destination| format!("--mount=type=bind,src=/usr,dst={destination}");
    for forbidden in ["/etc", "/etc/deep/er", "//etc/./x", "/opt", "/dev", "/proc/1", "/"] {
        let text = try_run(&installation, &[&mount(forbidden), IMAGE, "true"]).fails(125);
        assert!(text.contains("cannot mount type=bind,source=/usr,destination="), "{text}");
    }
    for allowed in ["/etcetera", "/opt/below", "/scratch"] {
        run(&installation, &[&mount(allowed), IMAGE, "ls", &format!("{allowed}/bin")]);
    }
}

#[test]
fn devices_of_the_host_can_be_opened_unless_a_cgroup_above_forbids_it() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        // The number of /dev/fuse, which no OCI runtime allows by itself.
        let shared = installation.path("shared");
        fs::create_dir(&shared).unwrap();
        let node = shared.join("node");
        Output::of(Command::new("mknod").arg("-m666").arg(&node).args(["c", "10", "229"]))
            .succeeds();
        let site = serde_json::json!([{
            "type": "bind", "source": shared, "destination": "/site", "flags": {}
        }]);
        let installation = installation.set("siteMounts", &site.to_string());
        let mount = format!("--mount=type=bind,src={},dst=/node", node.display());
        let script = "exec 3<>/site/node 4<>/node && echo opened";
        let args = ["run", &mount, IMAGE, "sh", "-c", script];
        let run = || installation.sarus_command(&installation.alice, &args);
        assert_eq!(Output::of(&mut run()).succeeds(), "opened\n", "{runtime:?}");
        // As a workload manager confines a job.
        let cgroup = format!("/sys/fs/cgroup/devices/sarus-test-{}", std::process::id());
        let cgroup = Path::new(&cgroup);
        if fs::create_dir(cgroup).is_err() {
            continue;
        }
        let inside = |command: Command| {
            let mut inner = Command::new("sh");
            let join = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", cgroup.display());
            inner.args(["-c", &join, "sh"]).arg(command.get_program()).args(command.get_args());
            Output::of(&mut inner)
        };
        fs::write(cgroup.join("devices.deny"), "c 10:229 rwm").unwrap();
        let denied = inside(run());
        // Not while there is one below.
        wait_until("all is denied", || fs::write(cgroup.join("devices.deny"), "a").is_ok());
        // What runtime and engine need; the latter makes loop devices.
        for numbers in ["c 1:*", "c 5:*", "c 10:200", "c 10:237", "c 136:*", "b 7:*"] {
            fs::write(cgroup.join("devices.allow"), format!("{numbers} rwm")).unwrap();
        }
        for any in ["c *:* m", "b *:* m"] {
            fs::write(cgroup.join("devices.allow"), any).unwrap();
        }
        let not_allowed = inside(run());
        fs::write(cgroup.join("devices.allow"), "c 10:229 rw").unwrap();
        let allowed = inside(run());
        wait_until("the cgroup is empty", || fs::remove_dir(cgroup).is_ok());
        for output in [denied, not_allowed] {
            assert!(output.stderr.contains("/node: Operation not permitted"), "{output}");
        }
        assert_eq!(allowed.succeeds(), "opened\n", "{runtime:?}");
    }
}

#[test]
fn a_hundred_mounts_leave_nothing_behind_either() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mounts: Vec<_> =
            (0..100).map(|n| format!("--mount=type=bind,source=/usr,destination=/m/{n}")).collect();
        let mut args: Vec<_> = mounts.iter().map(String::as_str).collect();
        args.extend([IMAGE, "ls", "/m/99/bin"]);
        assert!(!run(&installation, &args).is_empty());
        assert_nothing_is_left(&installation, runtime);
    }
}

#[test]
fn sources_are_reached_with_the_users_groups() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let place = installation.path("shared");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("file"), "of the group").unwrap();
        let mount = format!("--mount=type=bind,src={},dst=/m", place.display());
        // Closed to all but a group, then another one, then to root's alone. As on a file server
        // that knows no root, it must be alice's own rights that count.
        for (group, seen) in [(alice.gid, true), (alice.groups[1], true), (0, false)] {
            std::os::unix::fs::chown(&place, None, Some(group)).unwrap();
            fs::set_permissions(&place, PermissionsExt::from_mode(0o750)).unwrap();
            let output = try_run(&installation, &[&mount, IMAGE, "cat", "/m/file"]);
            assert_eq!(output.stdout == "of the group", seen, "{runtime:?} {group}: {output}");
            assert_eq!(output.stderr.contains("Permission denied"), !seen, "{output}");
        }
    }
}

#[test]
fn mounts_lie_over_directories_files_and_other_mounts() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let home = installation.path("home/alice");
        for name in ["one", "two"] {
            fs::create_dir_all(home.join(name).join("sub")).unwrap();
            fs::write(home.join(name).join("file"), name).unwrap();
        }
        let mount = |source: &str, destination: &str| {
            let source = home.join(source);
            format!("--mount=target={destination},type=bind,source={}", source.display())
        };
        let (one, two) = (mount("one", "/etc"), mount("two", "/etc/sub"));
        let shown = run(&installation, &[&one, &two, IMAGE, "cat", "/etc/file", "/etc/sub/file"]);
        assert_eq!(shown, "onetwo", "{runtime:?}");
        // The last one wins.
        let (one, two) = (mount("one", "/usr"), mount("two", "/usr"));
        assert_eq!(run(&installation, &[&one, &two, IMAGE, "cat", "/usr/file"]), "two");
        let file = mount("one/../two/file", "/etc/passwd");
        assert_eq!(run(&installation, &[&file, IMAGE, "cat", "/etc/passwd"]), "two");
        for (source, destination, why) in [
            ("one/file", "/etc", "the destination is a directory, the source is not"),
            ("one", "/etc/passwd", "the source is a directory, the destination is not"),
            ("one", "/etc/passwd/x", "Not a directory"),
            ("none", "/m", "No such file or directory"),
        ] {
            let text = try_run(&installation, &[&mount(source, destination), IMAGE, "true"]);
            let text = text.fails(125);
            assert!(text.contains(why), "{runtime:?}: {text}");
            let (source, one_line) = (home.join(source), text.lines().count() == 1);
            let request = format!(
                "cannot mount type=bind,source={},destination={destination}: ",
                source.display()
            );
            assert!(text.contains(&request) && one_line, "{runtime:?}: {text}");
        }
    }
}
