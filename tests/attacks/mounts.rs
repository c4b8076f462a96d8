//! Mounts: what they show, and where they go.

use super::*;

#[test]
fn a_mount_shows_no_more_than_the_user_may_see() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
        let installation = Installation::with_busybox(runtime);
        let place = installation.prefix().join("var/OCIBundleDir");
        let list = ["ls", "-A", &format!("/host{}", place.display())].map(str::to_owned);
        let mount = bind(Path::new("/"), "/host");
        let args = [&[mount.as_str(), IMAGE], &list.each_ref().map(String::as_str)[..]].concat();
        assert_eq!(run(&installation, &args).succeeds(), "", "{runtime:?}");
    }
}

/// There, the OCI runtime would make device nodes and more in the site's own directory, as root.
#[test]
fn no_link_of_an_image_leads_a_mount_of_the_site_to_the_runtimes_own() {
    for runtime in Runtime::ALL {
        let (installation, site) = with_site_mount(runtime);
        let alice = &installation.alice;
        let before = snapshot(&site);
        let targets = ["/", "/dev", "/dev/pts", "/proc", "/proc/1/cwd", "/sys", ".", "/x/../dev"];
        for (number, target) in targets.iter().enumerate() {
            let name = format!("forged{number}");
            let root = installation.rootfs(&name);
            symlink("/etc", root.join("x")).unwrap();
            symlink(target, root.join("site")).unwrap();
            installation.forge(alice, &root, &name, NO_META);
            let output = run(&installation, &[&format!("load/library/{name}"), "true"]);
            let error = output.fails(125);
            // Some is not there yet, and a link to nowhere is no place for a mount either.
            let why = ["is reserved for the container itself", "cannot create site: File exists"];
            let is_known = why.iter().any(|why| error.contains(why));
            assert!(error.contains("cannot mount the site's") && is_known, "{error}");
            assert_eq!(snapshot(&site), before, "{runtime:?} {target}");
        }
    }
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
            ("/dev/null/x", "reserved"),
            ("/dev/full/x/y", "reserved"),
            ("/dev/pts/0", "reserved"),
            ("/dev/shm/x", "reserved"),
            ("/dev/mqueue/x", "reserved"),
            ("/dev/launch/x", "reserved"),
            ("/todev/null", "reserved"),
            ("/todev/./full//x/", "reserved"),
            ("/opt/sarus/openssh", "reserved"),
            ("/opt/sarus/openssh/etc/userkeys", "reserved"),
            ("/dev/fd", "reserved"),
            ("/dev/fd/0", "reserved"),
            ("/dev/stdin", "reserved"),
            ("/proc", "reserved"),
            ("/proc/sys", "reserved"),
            ("/proc/self/cwd", "reserved"),
            ("/proc/self/root", "reserved"),
            ("/proc/self/root/etc", "reserved"),
            ("/proc/self/fd/0", "reserved"),
            ("/proc/thread-self/root", "reserved"),
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
            ("/a/../etc", "must not contain '..'"),
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
        for allowed in [
            "/dev/infiniband",
            "/todev/x",
            "/o/below",
            "/etcetera",
            "/out/usr",
            "/site/alice",
            "/site/roots",
        ] {
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

/// A directory in place of a device would be what programs find there; below some names, runtimes
/// would go on to work in it.
#[test]
fn a_working_directory_is_not_made_where_the_runtime_works() {
    for runtime in Runtime::ALL {
        let (installation, _) = with_site_mount(runtime);
        for directory in [
            "/dev/full/x",
            "/dev/null/x/y",
            "/dev/null",
            "/dev/launch",
            "/dev/launch/x",
            "/todev/full/x",
            "/todev/tty",
            "/dev/shm/nonsense",
            "/dev/pts/nonsense",
            "/proc/nonsense",
            "/sys/nonsense",
            "/todev/shm/nonsense",
        ] {
            let text = run(&installation, &["-w", directory, IMAGE, "true"]).fails(125);
            assert!(text.contains(&format!("cannot start in {directory}")), "{runtime:?} {text}");
        }
        for (directory, found) in [
            ("/", "/"),
            ("/dev", "/dev"),
            ("/dev/shm", "/dev/shm"),
            ("/dev/pts", "/dev/pts"),
            ("/proc", "/proc"),
            ("/proc/sys/", "/proc/sys"),
            ("/sys/class", "/sys/class"),
            ("/todev", "/dev"),
            ("/dev/made/deep", "/dev/made/deep"),
        ] {
            let shown = run(&installation, &["-w", directory, IMAGE, "pwd", "-P"]).succeeds();
            assert_eq!(shown.trim_end(), found, "{runtime:?} {directory}");
        }
    }
}

/// `"source": "/dev", "destination": "/dev"` had the runtime replace the host's `/dev/ptmx`; another
/// source became full of device files.
#[test]
fn no_mount_of_the_site_covers_what_is_the_containers_own() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let source = installation.path("source");
    fs::create_dir(&source).unwrap();
    let before = snapshot(&source);
    let mut installation = installation;
    for destination in ["/", "/dev", "/dev/.", "/dev//null/", "/dev/pts", "/proc", "/sys/fs"] {
        let mounts = format!(
            r#"[{{"type": "bind", "source": "{}", "destination": "{destination}"}}]"#,
            source.display()
        );
        installation = installation.set("siteMounts", &mounts);
        for runtime in Runtime::ALL {
            installation = installation.runtime(runtime).set("siteMounts", &mounts);
            let text = run(&installation, &[IMAGE, "true"]).fails(125);
            let place = format!("{}:11:", installation.config_file().display());
            let why = "siteMounts[0].destination: expected a path that is not reserved for the \
                       container itself, found ";
            assert!(text.contains(&place) && text.contains(why), "{destination}: {text}");
            let checked = installation.sarus(&installation.alice, &["check"]).stdout;
            assert!(checked.contains(why), "{destination}: {checked}");
            assert_eq!(snapshot(&source), before, "{destination}");
        }
    }
}

#[test]
fn file_systems_of_the_kernel_are_as_closed_as_the_hosts() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        for pid in ["--pid=private", "--pid=host"] {
            let table = run(&installation, &[pid, IMAGE, "cat", "/proc/self/mountinfo"]).succeeds();
            for (place, flags) in [
                ("/proc", &["nosuid", "nodev", "noexec"][..]),
                ("/proc/sys", &["ro"]),
                ("/sys", &["nosuid", "nodev", "noexec", "ro"]),
                ("/dev", &["nosuid"]),
                ("/dev/pts", &["nosuid", "noexec"]),
                ("/dev/shm", &["nosuid", "nodev", "noexec"]),
                ("/dev/mqueue", &["nosuid", "nodev", "noexec"]),
                ("/", &["nosuid", "nodev"]),
            ] {
                let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
                let mount = table.lines().map(fields).rfind(|fields| fields[4] == place);
                let mount =
                    mount.unwrap_or_else(|| panic!("{runtime:?} {pid}: no {place}: {table}"));
                for flag in flags {
                    let has = mount[5].split(',').any(|found| found == *flag);
                    assert!(has, "{runtime:?} {pid}: {place} is not {flag}: {}", mount[5]);
                }
            }
        }
    }
}
