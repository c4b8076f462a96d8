//! Image files, and what stands beside them in a repository.

use super::*;

#[test]
fn a_file_that_is_no_image_is_refused() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
            (
                "fifo",
                Box::new(|path| drop(Output::of(Command::new("mkfifo").arg(path)).succeeds())),
            ),
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
            (
                "sparse",
                Box::new(|path| {
                    // All but the first bytes are a hole, and the size is more than any disk's.
                    fs::write(path, &good[..96]).unwrap();
                    fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
                }),
            ),
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
}

#[test]
fn a_forged_index_names_no_file_outside_of_the_repository() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
}

#[test]
fn hostile_metadata_is_refused_or_harmless() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
fn an_image_that_is_replaced_stays_what_running_containers_see() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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

#[test]
fn an_image_that_changes_while_it_is_mounted_harms_nobody_else() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let image = installation.repository(alice).join("images/load/library/bb/latest.squashfs");
        let good = fs::read(&image).unwrap();
        for change in ["garbage", "truncated", "empty"] {
            let fifo = installation.path("home/alice").join(change);
            Output::of(Command::new("mkfifo").arg("-m666").arg(&fifo)).succeeds();
            let script = "cat /go; for f in /bin/* /etc/*; do cat $f >/dev/null; done; ls -lR /; \
                          exit 3";
            let args = ["run", &bind(&fifo, "/go"), IMAGE, "sh", "-c", script];
            let mut command = installation.sarus_command(alice, &args);
            let mut engine = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let waits = || processes_of(alice.uid).iter().any(|(_, line)| line == "cat /go");
            wait_until("it runs", waits);
            match change {
                "garbage" => fs::write(&image, vec![0xa5; good.len()]).unwrap(),
                "truncated" => fs::write(&image, &good[..4096]).unwrap(),
                _ => fs::write(&image, "").unwrap(),
            }
            Output::of(Command::new("sh").args(["-c", "echo 1 >/proc/sys/vm/drop_caches"]));
            fs::write(&fifo, "").unwrap();
            engine.wait().unwrap();
            run(&installation, &[IMAGE, "true"]).fails(125);
            fs::write(&image, &good).unwrap();
            run(&installation, &[IMAGE, "true"]).succeeds();
        }
    }
}

#[test]
fn names_lead_nowhere_but_into_the_own_repository() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let (alice, bob) = (&installation.alice, &installation.bob);
        installation.load(bob, &Image::busybox(), "bobs");
        let long = "x".repeat(300);
        let home = installation.path("home");
        for name in [
            "../bob/.sarus/images/load/library/bobs",
            "load/../../../../bob/.sarus/images/load/library/bobs",
            "load/library/../../../../../bob/.sarus/images/load/library/bobs:latest",
            &format!("{}/bob/.sarus/images/load/library/bobs", home.display()),
            "load/library/bobs",
            "load//library/bb",
            "load/library/bb:../bb",
            "load/library/bb:",
            "load/library/bb:a/b",
            "load/library/b\nb",
            "load/library/bb\ncreated: now",
            "load/library/\"bb\"",
            "load/library/'bb'",
            "load/library/bb;true",
            "load/library/bb\u{1b}[2J",
            ".",
            "..",
            "/",
            "",
            &long,
            &format!("load/library/bb:{long}"),
        ] {
            let output = run(&installation, &[name, "true"]);
            let text = output.fails(125);
            assert!(text.starts_with("sarus: "), "{name:?}: {text}");
            assert!(!text.contains("panicked") && !text.contains('\u{1b}'), "{name:?}: {text}");
            let remove = installation.sarus(alice, &["rmi", name]);
            assert_eq!(remove.status, 1, "{name:?}: {remove}");
        }
        installation.sarus(bob, &["run", "load/library/bobs", "true"]).succeeds();
        // A name of a user that is a path.
        let passwd = installation.prefix().join("etc/passwd");
        let text = fs::read_to_string(&passwd).unwrap();
        for name in ["../home/bob", "bob/../bob", "..", "", "bob\tx"] {
            fs::write(&passwd, text.replace("alice:", &format!("{name}:"))).unwrap();
            let output = run(&installation, &["load/library/bobs", "true"]);
            assert!(output.clone().fails(125).starts_with("sarus: "), "{name:?}: {output}");
        }
    }
}
