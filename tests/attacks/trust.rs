//! Files and directories that root believes.

use super::*;

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
        let installation = Installation::with_busybox(Runtime::Runc);
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

/// A site may close the file to users, for the passwords that stand in the environment of hooks, say.
#[test]
fn no_value_of_a_configuration_is_told_to_who_may_not_read_it() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let config = installation.config_file();
    let good = fs::read_to_string(&config).unwrap();
    let faulty = good.replace("\"tmpfs\"", "\"SECRET\"").replace("true", "7357, \"TOKEN\": 1");
    let hooks = r#""OCIHooks": {"prestart": [{"path": "SECRET", "env": ["=SECRET"], "timeout": -7357}]},
        "siteMounts": [{"type": "SECRET", "source": "SECRET", "destination": "/proc/SECRET"}],
        "environment": {"set": {"SECRET=": "1"}}, "maxConcurrentDownloads": 7357,
        "squashfsCompression": "lz4", "squashfsCompressionLevel": 7357,
        "insecureRegistries": ["SECRET/"], "cacheMaxSize": "7357 SECRET", "userMounts": "SECRET",
        "rootfsFolder""#;
    let faulty = faulty.replace("\"rootfsFolder\"", hooks);
    let word = good.replace("true", "SECRET");
    let number = good.replace("true", "7357.7357.");
    let letter = good.replace("true", "SECRET\u{2764}");
    for (text, places) in [(faulty, 14), (word, 1), (number, 1), (letter, 1)] {
        fs::write(&config, text).unwrap();
        for (mode, is_told) in [(0o600, false), (0o644, true)] {
            fs::set_permissions(&config, PermissionsExt::from_mode(mode)).unwrap();
            let output = run(&installation, &[IMAGE, "true"]);
            let shown = output.clone().fails(125);
            for secret in ["SECRET", "7357"] {
                assert!(is_told || !shown.contains(secret), "{mode:o}: {output}");
            }
            assert!(!is_told || shown.contains("SECRET") || shown.contains("7357"), "{output}");
            let told = shown.matches("expected ").count() + shown.matches("no levels").count();
            assert!(told >= places, "{mode:o}: {told} of {places}: {output}");
            let line = format!("{}:2:", config.display());
            assert!(shown.contains(&line), "{output}");
        }
    }
}

/// Root executes by path what it has judged: at the same path of another root directory may lie anything.
#[test]
fn the_runtime_is_the_one_that_was_judged_below_any_root_directory() {
    const IN_ROOT: &str = "mount --rbind / $0 && mount -t tmpfs -o mode=755 tools $0$1 && \
        cp $2 $0$1/runtime && shift 2 && exec chroot $0 \"$@\"";
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let (root, tools) = (installation.path("root"), installation.path("tools"));
        let (outside, escaped) = (tools.join("runtime"), installation.path("tmp/escaped"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&tools).unwrap();
        fs::write(&outside, format!("#!/bin/sh\ntouch {}\n", escaped.display())).unwrap();
        fs::set_permissions(&outside, PermissionsExt::from_mode(0o755)).unwrap();
        let installation = installation.set("runcPath", &format!("{outside:?}"));
        for pid in ["--pid=private", "--pid=host"] {
            let args = ["run", pid, IMAGE, "echo", "inside"];
            let sarus = installation.sarus_command(&installation.alice, &args);
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", IN_ROOT]);
            command.args([&root, &tools, &runtime.path()]);
            command.arg(sarus.get_program()).args(sarus.get_args()).env_clear();
            command.envs(sarus.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let output = Output::of(&mut command);
            assert!(!escaped.exists(), "{runtime:?} {pid}: {output}");
            assert_eq!(output.succeeds(), "inside\n", "{runtime:?} {pid}");
        }
    }
}
