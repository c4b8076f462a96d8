//! The end of a container, and that nothing survives it.

use super::*;

#[test]
fn nothing_survives_a_kill_of_any_process() {
    #[derive(Debug, Clone, Copy)]
    enum Victim {
        Engine,
        Runtime,
        Program,
    }
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        for victim in [Victim::Engine, Victim::Runtime, Victim::Program] {
            let mut engine = installation
                .sarus_command(&installation.alice, &["run", IMAGE, "sleep", "1000"])
                .spawn()
                .unwrap();
            let program = wait_for_program(&installation, "sleep 1000");
            let pid = match victim {
                Victim::Engine => engine.id(),
                Victim::Runtime => parent_of(program),
                Victim::Program => program,
            };
            common::Output::of(std::process::Command::new("kill").args(["-9", &pid.to_string()]))
                .succeeds();
            let status = engine.wait().unwrap();
            assert!(!status.success(), "{victim:?}");
            assert_eq!(status.signal().is_some(), matches!(victim, Victim::Engine), "{victim:?}");
            assert_nothing_is_left(&installation, runtime);
        }
    }
}

fn wait_for_program(installation: &Installation, line: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = processes_of(installation.alice.uid);
        if let Some((pid, _)) = found.iter().find(|(_, command)| command == line) {
            return *pid;
        }
        assert!(Instant::now() < deadline, "{line} does not run: {found:?}");
        sleep(Duration::from_millis(20));
    }
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok()).unwrap()
}

#[test]
fn containers_of_one_image_share_one_loop_device() {
    let installation = with_busybox(Runtime::Crun);
    let ranks: Vec<_> = (0..16)
        .map(|_| {
            let args = ["run", IMAGE, "sleep", "4"];
            installation.sarus_command(&installation.alice, &args).spawn().unwrap()
        })
        .collect();
    let image = installation.repository(&installation.alice).join("images");
    let deadline = Instant::now() + Duration::from_secs(20);
    let running = || {
        let all = processes_of(installation.alice.uid);
        all.iter().filter(|(_, command)| command == "sleep 4").count()
    };
    while running() < 16 {
        assert!(Instant::now() < deadline, "only {} run", running());
        sleep(Duration::from_millis(20));
    }
    let loops = common::loop_devices().into_iter().filter(|(_, file)| file.starts_with(&image));
    assert_eq!(loops.count(), 1);
    for mut rank in ranks {
        assert!(rank.wait().unwrap().success());
    }
    assert_nothing_is_left(&installation, Runtime::Crun);
}

#[test]
fn signals_reach_the_program() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let output = installation.path("home/alice/output");
        let names = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM CONT TSTP WINCH URG RTMIN+3";
        let script = "for s in HUP INT QUIT USR1 USR2 PIPE ALRM TERM CONT TSTP WINCH URG 37; do \
                      trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.02; done";
        for options in [&[][..], &["--init"]] {
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
