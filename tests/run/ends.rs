//! The end of a container, and that nothing survives it.

use super::*;

#[test]
fn nothing_survives_a_kill_of_any_process() {
    #[derive(Debug, Clone, Copy)]
    enum Victim {
        Engine,
        Guardian,
        Runtime,
        Program,
    }
    let private = [Victim::Engine, Victim::Runtime, Victim::Program];
    let host = [Victim::Engine, Victim::Guardian, Victim::Runtime, Victim::Program];
    // A daemon, too, which is nobody's child any more.
    let script = "sh -c 'setsid sleep 1001 &'; exec sleep 1000";
    for (runtime, pid, victims) in Runtime::ALL
        .into_iter()
        .flat_map(|runtime| [(runtime, "private", &private[..]), (runtime, "host", &host)])
    {
        let installation = Installation::with_busybox(runtime);
        for victim in victims {
            let pid = format!("--pid={pid}");
            let mut engine = installation
                .sarus_command(&installation.alice, &["run", &pid, IMAGE, "sh", "-c", script])
                .spawn()
                .unwrap();
            wait_for_program(&installation, "sleep 1001");
            let program = wait_for_program(&installation, "sleep 1000");
            let pid = match victim {
                Victim::Engine => engine.id(),
                Victim::Guardian => parent_of(parent_of(program)),
                Victim::Runtime => parent_of(program),
                Victim::Program => program,
            };
            Output::of(Command::new("kill").args(["-9", &pid.to_string()])).succeeds();
            let status = engine.wait().unwrap();
            assert!(!status.success(), "{victim:?}");
            assert_eq!(status.signal().is_some(), matches!(victim, Victim::Engine), "{victim:?}");
            assert_nothing_is_left(&installation, runtime);
        }
    }
}

#[test]
fn containers_of_one_image_share_one_loop_device() {
    let installation = Installation::with_busybox(Runtime::Crun);
    let ranks: Vec<_> = (0..16)
        .map(|_| {
            let mut rank = installation.sarus_command(&installation.alice, &["run", IMAGE, "cat"]);
            rank.stdin(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let image = installation.repository(&installation.alice).join("images");
    let deadline = Instant::now() + Duration::from_secs(60);
    let running = || {
        let all = processes_of(installation.alice.uid);
        all.iter().filter(|(_, command)| command == "cat").count()
    };
    while running() < 16 {
        assert!(Instant::now() < deadline, "only {} run", running());
        sleep(Duration::from_millis(20));
    }
    let loops = loop_devices().into_iter().filter(|(_, file)| file.starts_with(&image));
    assert_eq!(loops.count(), 1);
    for mut rank in ranks {
        // At the end of its input, each ends.
        drop(rank.stdin.take());
        assert!(rank.wait().unwrap().success());
    }
    assert_nothing_is_left(&installation, Runtime::Crun);
}

/// As with nohup(1), and in the background of a shell without job control.
#[test]
fn what_the_caller_ignores_is_ignored() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        for pid in ["private", "host"] {
            let script = format!(
                "trap '' HUP INT QUIT; \
                 exec {} run --pid={pid} {IMAGE} sh -c 'sleep 1 && echo done'",
                sarus.display()
            );
            let mut command = installation.as_user(&installation.alice, "sh", ["-c", &script]);
            let engine = command.stdout(Stdio::piped()).spawn().unwrap();
            wait_for_program(&installation, "sleep 1");
            for signal in ["-HUP", "-INT", "-QUIT"] {
                let kill = [signal.to_owned(), engine.id().to_string()];
                Output::of(Command::new("kill").args(kill)).succeeds();
            }
            let output = engine.wait_with_output().unwrap();
            assert_eq!(output.stdout, b"done\n", "{runtime:?} {pid}");
            assert!(output.status.success(), "{runtime:?} {pid}");
        }
    }
}

#[test]
fn signals_reach_the_program() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let output = installation.path("home/alice/output");
        let names = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM CONT TSTP WINCH URG RTMIN+3";
        let script = "for s in HUP INT QUIT USR1 USR2 PIPE ALRM TERM CONT TSTP WINCH URG 37; do \
                      trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.02; done";
        for options in [&[][..], &["--init"], &["--pid=host"], &["--pid=host", "--init"]] {
            let args = [&["run"], options, &[IMAGE, "sh", "-c", script]].concat();
            let mut engine = installation
                .sarus_command(&installation.alice, &args)
                .stdout(fs::File::create(&output).unwrap())
                .stderr(fs::File::create(installation.path("home/alice/errors")).unwrap())
                .spawn()
                .unwrap();
            let said = |text: &str| fs::read_to_string(&output).unwrap().contains(text);
            wait_until("it is ready", || said("ready\n"));
            for name in names.split(' ') {
                let kill = [format!("-{name}"), engine.id().to_string()];
                Output::of(&mut installation.as_user(&installation.alice, "/bin/kill", kill))
                    .succeeds();
                let shown = if name == "RTMIN+3" { "37" } else { name };
                // What stops is continued, and then tells.
                if name == "TSTP" {
                    let state = || {
                        let status = fs::read_to_string(format!("/proc/{}/status", engine.id()));
                        field(&status.unwrap(), "State")
                    };
                    wait_until("it stops", || state().starts_with('T'));
                    let kill = ["-CONT".to_owned(), engine.id().to_string()];
                    Output::of(&mut installation.as_user(&installation.alice, "/bin/kill", kill))
                        .succeeds();
                }
                let what = format!("{runtime:?} {options:?} {name}");
                wait_until(&what, || said(&format!("got {shown}\n")));
            }
            engine.kill().unwrap();
            engine.wait().unwrap();
            assert_nothing_is_left(&installation, runtime);
        }
    }
}
