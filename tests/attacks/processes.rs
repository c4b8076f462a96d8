//! Processes and their descriptors.

use super::*;

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

/// Sends a signal as alice, who owns the engine.
fn kill(installation: &Installation, signal: &str, pid: u32) -> Output {
    Output::of(&mut installation.as_user(&installation.alice, "kill", [signal, &pid.to_string()]))
}

fn assert_nothing_is_left(installation: &Installation, what: &str) {
    let uid = installation.alice.uid;
    wait_until(&format!("{what}: no process"), || processes_of(uid).is_empty());
    let images = installation.repository(&installation.alice);
    let is_ours = |(_, file): &(_, PathBuf)| file.starts_with(&images);
    wait_until(&format!("{what}: no device"), || !loop_devices().iter().any(is_ours));
}

#[test]
fn a_signal_at_any_step_leaves_nothing_behind() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        for signal in ["-KILL", "-TERM", "-STOP", "-SEGV", "-TSTP", "-HUP"] {
            for step in 0..16 {
                let args = ["run", "--init", IMAGE, "sleep", "1000"];
                let mut command = installation.sarus_command(alice, &args);
                command.stderr(Stdio::null());
                let mut engine = command.spawn().unwrap();
                // setpriv, the engine's own steps, then those of the runtime.
                std::thread::sleep(std::time::Duration::from_micros(1500 + 2000 * step));
                kill(&installation, signal, engine.id());
                let what = format!("{runtime:?} {signal} {step}");
                if matches!(signal, "-STOP" | "-TSTP") {
                    kill(&installation, "-CONT", engine.id());
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    kill(&installation, "-KILL", engine.id());
                }
                // A signal that came while the runtime did not listen yet may be lost: then the
                // next one is not.
                wait_until(&what, || {
                    let ended = engine.try_wait().unwrap().is_some();
                    if !ended {
                        kill(&installation, "-TERM", engine.id());
                    }
                    ended
                });
            }
            assert_nothing_is_left(&installation, signal);
        }
    }
}

#[test]
fn a_stopped_engine_takes_its_container_along_when_it_is_killed() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        for signal in ["-STOP", "-TSTP"] {
            let args = ["run", IMAGE, "sleep", "1000"];
            let mut engine = installation.sarus_command(alice, &args).spawn().unwrap();
            let program = || {
                let all = processes_of(alice.uid);
                all.iter().find(|(_, line)| line == "sleep 1000").map(|(pid, _)| *pid)
            };
            wait_until("it runs", || program().is_some());
            let state = |pid: u32| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                field(&status.unwrap_or_default(), "State")
            };
            kill(&installation, signal, engine.id()).succeeds();
            wait_until("the engine stops", || state(engine.id()).starts_with('T'));
            // SIGSTOP tells nobody; SIGTSTP is passed on.
            let stops = state(program().unwrap()).starts_with('T');
            assert_eq!(stops, signal == "-TSTP", "{runtime:?}");
            kill(&installation, "-KILL", engine.id()).succeeds();
            engine.wait().unwrap();
            assert_nothing_is_left(&installation, signal);
        }
    }
}

#[test]
fn the_engine_cannot_be_traced_nor_dumped() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        let sarus = installation.prefix().join("bin/sarus");
        // What is traced by a user is not set-user-id.
        let traced = ["-f", "-o", "/dev/null", sarus.to_str().unwrap(), "run", IMAGE, "true"];
        let output = Output::of(&mut installation.as_user(alice, "strace", traced));
        assert!(output.clone().fails(125).contains("not installed set-user-id root"), "{output}");

        let script =
            format!("ulimit -c unlimited; exec {} run {IMAGE} sleep 1000", sarus.display());
        let mut engine = installation.as_user(alice, "bash", ["-c", &script]).spawn().unwrap();
        let runs = || processes_of(alice.uid).iter().any(|(_, line)| line == "sleep 1000");
        wait_until("it runs", runs);
        let id = engine.id().to_string();
        let attach = ["5", "strace", "-o", "/dev/null", "-p", &id];
        let output = Output::of(&mut installation.as_user(alice, "timeout", attach));
        assert!(output.stderr.contains("not permitted"), "{output}");
        for file in ["mem", "environ", "maps", "fd", "root", "cwd"] {
            let path = format!("/proc/{id}/{file}");
            let script = format!("cat {path} 2>&1 || ls {path}/ 2>&1");
            let output = Output::of(&mut installation.as_user(alice, "sh", ["-c", &script]));
            assert!(output.stdout.contains("Permission denied"), "{file}: {output}");
        }
        // The first one is taken for a fault of its own, which would come again at once.
        wait_until("it ends", || {
            kill(&installation, "-SEGV", engine.id());
            engine.try_wait().unwrap().is_some()
        });
        assert!(!engine.wait().unwrap().success());
        let home = fs::read_dir(installation.path("home/alice")).unwrap();
        let names: Vec<_> = home.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("core")), "{names:?}");
        assert_nothing_is_left(&installation, "dumped");
    }
}

/// In a user namespace of her own alice is root, and can mount: there the engine is no more than
/// she is.
#[test]
fn root_of_a_user_namespace_is_nobody() {
    let installation = with_busybox(Runtime::Runc);
    let alice = &installation.alice;
    let forged = installation.path("home/alice/etc");
    fs::create_dir(&forged).unwrap();
    let config = fs::read_to_string(installation.config_file()).unwrap();
    fs::write(forged.join("sarus.json"), config).unwrap();
    for file in [&forged, &forged.join("sarus.json")] {
        give(file, alice);
    }
    let prefix = installation.prefix();
    let sarus = prefix.join("bin/sarus");
    for setup in
        ["true".to_owned(), format!("mount --bind {} {}/etc", forged.display(), prefix.display())]
    {
        let script = format!("{setup} && exec {} run {IMAGE} id", sarus.display());
        let args = ["--user", "--map-root-user", "--mount", "sh", "-c", &script];
        let output = Output::of(&mut installation.as_user(alice, "unshare", args));
        assert_eq!(output.stdout, "", "{output}");
        assert!(output.clone().fails(125).contains("cannot trust"), "{output}");
    }
}
