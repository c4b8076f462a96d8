//! Processes and their descriptors.

use super::*;
use crate::support::pty::Shell;

#[test]
fn standard_streams_stay_their_owners() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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

#[test]
fn output_of_a_terminal_is_written_with_the_rights_of_its_user() {
    // An OCI runtime copies as root: docs/security.md.
    let installation = Installation::with_busybox(Runtime::Builtin);
    let file = installation.path("home/alice/out");
    let mut shell = Shell::start(&installation, &installation.alice);
    let sarus = installation.prefix().join("bin/sarus");
    for pid in ["private", "host"] {
        // The kernel takes the set-user-id bit of a file when others than root write to it.
        assert!(shell.runs("touch out; chmod 4755 out; stat -c %a out").contains("4755"));
        let line = format!("{} run -t --pid={pid} {IMAGE} echo words >>out", sarus.display());
        shell.runs(&line);
        assert!(fs::read_to_string(&file).unwrap().contains("words"), "{pid}");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "--pid={pid}: {mode:o}");
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
    no_cgroup_stays_empty();
}

#[test]
fn a_signal_at_any_step_leaves_nothing_behind() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        for signal in ["-KILL", "-TERM", "-STOP", "-SEGV", "-TSTP", "-HUP"] {
            for step in 0..16 {
                let pid = if step % 2 == 0 { "--pid=private" } else { "--pid=host" };
                let args = ["run", "--init", pid, IMAGE, "sleep", "1000"];
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

/// Whoever is hit, by whatever, takes nothing of the others along that could stay.
#[test]
fn a_signal_to_runtime_or_program_leaves_nothing_behind() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        for pid in ["--pid=private", "--pid=host"] {
            for (signal, to_runtime) in
                ["-KILL", "-TERM", "-STOP"].into_iter().flat_map(|s| [(s, true), (s, false)])
            {
                let args = ["run", "--init", pid, IMAGE, "sleep", "1000"];
                let mut command = installation.sarus_command(alice, &args);
                let mut engine = command.stderr(Stdio::null()).spawn().unwrap();
                let program = || {
                    let all = processes_of(alice.uid);
                    all.iter().find(|(_, line)| line == "sleep 1000").map(|(pid, _)| *pid)
                };
                wait_until("it runs", || program().is_some());
                let program = program().unwrap();
                let parent = |pid: u32| -> u32 {
                    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
                    field(&status, "PPid").parse().unwrap()
                };
                let victim = if to_runtime { parent(parent(program)) } else { program };
                Output::of(Command::new("kill").args([signal, &victim.to_string()])).succeeds();
                // The others may need a moment, or the engine is what ends them.
                std::thread::sleep(std::time::Duration::from_millis(100));
                engine.kill().unwrap();
                engine.wait().unwrap();
                let what = format!("{runtime:?} {pid} {signal} {to_runtime}");
                assert_nothing_is_left(&installation, &what);
            }
        }
    }
}

#[test]
fn a_stopped_engine_takes_its_container_along_when_it_is_killed() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        for (signal, pid) in [
            ("-STOP", "--pid=private"),
            ("-TSTP", "--pid=private"),
            ("-STOP", "--pid=host"),
            ("-TSTP", "--pid=host"),
        ] {
            let args = ["run", pid, IMAGE, "sleep", "1000"];
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
            let stops = || state(program().unwrap()).starts_with('T');
            match signal {
                "-TSTP" => wait_until("the program stops", stops),
                _ => assert!(!stops(), "{runtime:?}"),
            }
            kill(&installation, "-KILL", engine.id()).succeeds();
            engine.wait().unwrap();
            assert_nothing_is_left(&installation, signal);
        }
    }
}

#[test]
fn the_engine_cannot_be_traced_nor_dumped() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
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
        for setup in [
            "true".to_owned(),
            format!("mount --bind {} {}/etc", forged.display(), prefix.display()),
        ] {
            let script = format!("{setup} && exec {} run {IMAGE} id", sarus.display());
            let args = ["--user", "--map-root-user", "--mount", "sh", "-c", &script];
            let output = Output::of(&mut installation.as_user(alice, "unshare", args));
            assert_eq!(output.stdout, "", "{output}");
            assert!(output.clone().fails(125).contains("cannot trust"), "{output}");
        }
    }
}

/// Who gives up a start has the engine end all that came of it, as root. What the caller has had
/// before is none of that, nor is anyone in its process group.
#[test]
fn a_start_that_is_given_up_ends_nobody_else() {
    let source = r#"
        #include <signal.h>
        #include <stdlib.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            // A child in another mount namespace and in root's process group.
            if (!fork()) execl(argv[1], "sarus", "run", argv[2], "sleep", "1000", NULL);
            usleep(300000);
            setpgid(0, 0);
            pid_t engine = getpid();
            if (!fork()) {
                // A signal may come while a runtime does not listen: then the next one is not lost.
                for (usleep(atoi(argv[3])); getppid() == engine; sleep(1)) kill(engine, SIGTERM);
                _exit(0);
            }
            execl(argv[1], "sarus", "run", "--pid=host", argv[2], "sleep", "2000", NULL);
            return 99;
        }"#;
    let installation = Installation::with_busybox(Runtime::Runc);
    let alice = &installation.alice;
    let attack = installation.compile("attack", source);
    let sarus = installation.prefix().join("bin/sarus").display().to_string();
    let number = installation.path("number");
    for delay in (2..=40).step_by(8) {
        let attack =
            installation.as_user(alice, &attack, [&sarus, IMAGE, &format!("{}", delay * 1000)]);
        // Someone of root's in the same session.
        let script = "sleep 7777 >/dev/null 2>&1 & echo $! >\"$0\"; \"$@\"";
        let mut root = Command::new("setsid");
        root.args(["--wait", "sh", "-c", script]).arg(&number);
        root.arg(attack.get_program()).args(attack.get_args());
        root.stdout(Stdio::null()).stderr(Stdio::null());
        root.current_dir(attack.get_current_dir().unwrap()).status().unwrap();
        let number = fs::read_to_string(&number).unwrap();
        let line = fs::read_to_string(format!("/proc/{}/cmdline", number.trim()));
        assert!(line.is_ok_and(|line| line.contains("7777")), "root's own was killed: {delay} ms");
        Output::of(Command::new("kill").arg(number.trim())).succeeds();
        let left = processes_of(alice.uid);
        assert!(left.iter().any(|(_, line)| line == "sleep 1000"), "{delay} ms: {left:?}");
        assert!(!left.iter().any(|(_, line)| line == "sleep 2000"), "{delay} ms: {left:?}");
        for (pid, line) in left {
            if line.contains("sarus run") {
                kill(&installation, "-KILL", pid);
            }
        }
        assert_nothing_is_left(&installation, &format!("{delay} ms"));
    }
}

/// As slurmstepd does it: a task of the user's lives in a session and a group of root's until it makes
/// its own, and what it has left there comes from before the engine.
#[test]
fn nothing_of_roots_is_signalled_when_a_start_is_given_up_in_its_session() {
    let source = r#"
        #define _GNU_SOURCE
        #include <sched.h>
        #include <signal.h>
        #include <stdlib.h>
        #include <sys/prctl.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            // In root's session and group, and in a mount namespace of its own.
            for (int orphan = 0; orphan < 2; orphan++)
                if (!fork()) {
                    if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) return 98;
                    if (orphan && fork()) { usleep(300000); _exit(0); }
                    execlp("sleep", "sleep", orphan ? "3001" : "3000", NULL);
                }
            usleep(200000);
            setsid();
            pid_t engine = getpid();
            if (!fork()) {
                // A signal may come while a runtime does not listen: then the next one is not lost.
                for (usleep(atoi(argv[3])); getppid() == engine; sleep(1)) kill(engine, SIGTERM);
                _exit(0);
            }
            execl(argv[1], "sarus", "run", "--pid=host", argv[2], "sleep", "2000", NULL);
            return 99;
        }"#;
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let attack = installation.compile("attack", source);
        let sarus = installation.prefix().join("bin/sarus").display().to_string();
        let report = installation.path("report");
        for delay in [5, 20, 40, 60, 90, 120, 400] {
            fs::remove_file(&report).ok();
            let task =
                installation.as_user(alice, &attack, [&sarus, IMAGE, &format!("{}", delay * 1000)]);
            // The session's leader lives on, and says so.
            let script = "trap '' CONT; \"$@\" & wait $!; kill -0 $$ && echo alive >\"$0\"";
            let mut root = Command::new("setsid");
            root.args(["--wait", "sh", "-c", script]).arg(&report);
            root.arg(task.get_program()).args(task.get_args());
            root.stdout(Stdio::null()).stderr(Stdio::null());
            root.current_dir(task.get_current_dir().unwrap()).status().unwrap();
            let said = fs::read_to_string(&report).unwrap_or_default();
            assert_eq!(said, "alive\n", "{runtime:?}: root's leader was ended: {delay} ms");
            let left = processes_of(alice.uid);
            let lives = |words: &str| left.iter().any(|(_, line)| line == words);
            assert!(lives("sleep 3000") && lives("sleep 3001"), "{delay} ms: {left:?}");
            assert!(!lives("sleep 2000"), "{delay} ms: {left:?}");
            for (pid, _) in left {
                kill(&installation, "-KILL", pid);
            }
            assert_nothing_is_left(&installation, &format!("{delay} ms"));
        }
    }
}
