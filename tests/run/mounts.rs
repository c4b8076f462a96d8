//! Mounts of the user and of the site.

use super::*;

#[test]
fn directories_and_files_are_mounted() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
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
        assert!(text.contains("cannot mount /usr on"), "{text}");
    }
    for allowed in ["/etcetera", "/opt/below", "/scratch"] {
        run(&installation, &[&mount(allowed), IMAGE, "ls", &format!("{allowed}/bin")]);
    }
}

#[test]
fn a_hundred_mounts_leave_nothing_behind_either() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let mounts: Vec<_> =
            (0..100).map(|n| format!("--mount=type=bind,source=/usr,destination=/m/{n}")).collect();
        let mut args: Vec<_> = mounts.iter().map(String::as_str).collect();
        args.extend([IMAGE, "ls", "/m/99/bin"]);
        assert!(!run(&installation, &args).is_empty());
        assert_nothing_is_left(&installation, runtime);
    }
}
