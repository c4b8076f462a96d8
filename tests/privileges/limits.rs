//! Limits, signals and groups that a caller sets for the engine.

use super::*;

#[test]
fn limits_and_masks_of_the_caller_end_in_an_error_or_do_no_harm() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let sarus = installation.prefix().join("bin/sarus");
        for (setting, may_succeed) in [
            ("ulimit -n 4", false),
            ("ulimit -n 3", false),
            ("ulimit -f 0", false),
            ("ulimit -v 2000", false),
            ("ulimit -s 16", true),
            ("ulimit -c unlimited", true),
            ("ulimit -i 0", true),
            ("ulimit -l 0", true),
            ("umask 777", true),
            ("umask 0", true),
            ("renice -n 19 $$ >/dev/null", true),
        ] {
            let script = format!("{setting} && exec {} run {IMAGE} echo done", sarus.display());
            let start = Instant::now();
            let output = Output::of(&mut installation.as_user(alice, "bash", ["-c", &script]));
            let succeeded = output.status == 0 && output.stdout == "done\n";
            let failed = output.status >= 125 && output.stdout.is_empty();
            assert!(failed || (may_succeed && succeeded), "{runtime:?}: {setting}: {output}");
            assert!(!output.stderr.contains("panicked"), "{output}");
            assert!(start.elapsed() < Duration::from_secs(20), "{setting}");
        }
        wait_until("nothing is left", || processes_of(alice.uid).is_empty());
        assert_eq!(
            fs::read_dir(installation.prefix().join("var/OCIBundleDir")).unwrap().count(),
            0
        );
    }
}

#[test]
fn ignored_and_blocked_signals_make_nobody_wait() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let alice = &installation.alice;
    let sarus = installation.prefix().join("bin/sarus");
    let init = installation.prefix().join("bin/init");
    for option in ["--ignore-signal", "--block-signal"] {
        let run = [option, sarus.to_str().unwrap(), "run", IMAGE, "sh", "-c", "exit 7"];
        let init = [option, init.to_str().unwrap(), "sh", "-c", "exit 7"];
        for args in [&run[..], &init] {
            let args = [&["--kill-after=1", "15", "env"], args].concat();
            Output::of(&mut installation.as_user(alice, "timeout", args)).fails(7);
        }
    }
}

#[test]
fn the_group_of_root_is_not_kept_by_a_set_group_id_program() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let alice = &installation.alice;
    let binary = installation.prefix().join("bin/sarusbox");
    fs::set_permissions(&binary, PermissionsExt::from_mode(0o6755)).unwrap();
    let secret = installation.path("of-the-group/file");
    fs::create_dir(secret.parent().unwrap()).unwrap();
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(secret.parent().unwrap(), PermissionsExt::from_mode(0o750)).unwrap();
    let mount = format!("--mount=type=bind,src={},dst=/x", secret.display());
    let text = installation.sarus(alice, &["run", &mount, IMAGE, "cat", "/x"]).fails(125);
    assert!(text.contains("Permission denied"), "{text}");
    let command = installation.sarus_command(alice, &["images"]);
    assert_powerless(&status_at_first_word(command, Stdio::null()), alice, "images");
    installation.sarus(alice, &["run", IMAGE, "true"]).succeeds();
}

#[test]
fn the_engine_stays_the_users_and_the_runtime_is_roots() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let (alice, bob) = (&installation.alice, &installation.bob);
        let script = "for s in TERM INT HUP USR1; do trap \"echo $s\" $s; done; echo ready; \
                      while [ ! -e /tmp/end ]; do sleep 0.05; done";
        let output = installation.path("home/alice/output");
        let mut engine = installation
            .sarus_command(alice, &["run", "--init", IMAGE, "sh", "-c", script])
            .stdout(fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let said = |word: &str| fs::read_to_string(&output).unwrap().contains(word);
        wait_until("the program runs", || said("ready"));
        let status = fs::read_to_string(format!("/proc/{}/status", engine.id())).unwrap();
        let uid = alice.uid;
        assert_eq!(field(&status, "Uid"), format!("{uid} 0 0 0"), "{runtime:?}");
        assert_eq!(field(&status, "Gid"), format!("{uid} {uid} {uid} {uid}"));
        // Nobody but root may look into it.
        assert_eq!(fs::metadata(format!("/proc/{}/mem", engine.id())).unwrap().uid(), 0);
        for child in children_of(engine.id()) {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
            assert_eq!(field(&status, "Uid"), "0 0 0 0", "{status}");
            assert_eq!(field(&status, "Gid"), "0 0 0 0", "{status}");
        }
        let kill = |user: &User, signal: &str| {
            Output::of(&mut installation.as_user(user, "kill", [signal, &engine.id().to_string()]))
        };
        for name in ["TERM", "INT", "HUP", "USR1"] {
            kill(bob, &format!("-{name}")).fails(1);
            kill(alice, &format!("-{name}")).succeeds();
            wait_until(name, || said(name));
        }
        kill(bob, "-KILL").fails(1);
        kill(alice, "-KILL").succeeds();
        engine.wait().unwrap();
        wait_until("nothing is left", || processes_of(alice.uid).is_empty());
        let images = installation.repository(alice);
        let is_ours = |(_, file): &(_, PathBuf)| file.starts_with(&images);
        wait_until("no device is left", || !loop_devices().iter().any(is_ours));
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap();
    let children: Vec<_> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(!children.is_empty());
    children
}

#[test]
fn an_engine_that_its_user_stops_holds_nobody_up() {
    let installation = Installation::with_busybox(Runtime::Runc);
    // As one that was stopped while it looked for a loop device.
    let mut holder = Command::new("flock")
        .args(["--no-fork", "/dev/loop-control", "sleep", "1000"])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    installation.sarus(&installation.alice, &["run", IMAGE, "true"]).succeeds();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    holder.kill().unwrap();
    holder.wait().unwrap();
}
