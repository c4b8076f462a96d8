//! Limits, signals and groups that a caller sets for the engine.

use super::*;

#[test]
fn limits_and_masks_of_the_caller_end_in_an_error_or_do_no_harm() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let sarus = installation.prefix().join("bin/sarus");
        // Hard limits can be raised for root's processes where root has CAP_SYS_RESOURCE.
        for setting in [
            "ulimit -n 4",
            "ulimit -n 3",
            "ulimit -n 16",
            "ulimit -f 0",
            "ulimit -t 1",
            "ulimit -v 2000",
            "ulimit -v 100000",
            "ulimit -s 16",
            "ulimit -s 64",
            "ulimit -c unlimited",
            "ulimit -i 0",
            "ulimit -l 0",
            "umask 777",
            "umask 0",
            "renice -n 19 $$ >/dev/null",
        ] {
            let script = format!("{setting} && exec {} run {IMAGE} echo done", sarus.display());
            let start = Instant::now();
            let output = Output::of(&mut installation.as_user(alice, "bash", ["-c", &script]));
            let succeeded = output.status == 0 && output.stdout == "done\n";
            let failed = output.status >= 125 && output.stdout.is_empty();
            assert!(failed || succeeded, "{runtime:?}: {setting}: {output}");
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

/// Limits by the words of `/proc/self/limits`: soft and hard.
fn limit(text: &str, name: &str) -> (String, String) {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

/// All soft: a hard one cannot be raised for root's processes everywhere.
const TIGHT: &str = "ulimit -S -c unlimited -f 4000 -n 777 -s 1024 -t 500 -u 4000 -v 500000; \
                     echo 300 >/proc/self/oom_score_adj; ionice -c 3 -p $$; \
                     chrt --idle -p 0 $$; renice -n 19 $$ >/dev/null;";

/// Scheduling policy, nice value and input/output priority.
fn priority(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let io = Output::of(Command::new("ionice").args(["-p", pid])).succeeds();
    let oom = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    format!("{} {} {} {}", fields[38], fields[16], io.trim(), oom.trim())
}

#[test]
fn the_program_has_the_limits_of_its_caller_and_hooks_and_runtime_have_none_of_them() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let hook = installation.path("hook");
        let text = "#!/bin/sh\ncat /proc/self/limits >$0.limits; cat /proc/self/stat >$0.stat\n";
        fs::write(&hook, text).unwrap();
        fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
        let hooks =
            format!(r#"{{"prestart": [{{"path": "{0}", "args": ["{0}"]}}]}}"#, hook.display());
        let installation = installation.set("OCIHooks", &hooks);
        let alice = &installation.alice;
        let sarus = installation.prefix().join("bin/sarus");
        let outside = installation.path("home/alice/outside");
        for options in ["--pid=host", "--pid=private --init"] {
            let script = format!(
                "{TIGHT} cat /proc/self/limits >{}; exec {} run {options} {IMAGE} sleep 1000",
                outside.display(),
                sarus.display()
            );
            let mut engine = installation.as_user(alice, "bash", ["-c", &script]).spawn().unwrap();
            let program = || {
                let all = processes_of(alice.uid);
                all.iter().find(|(_, line)| line == "sleep 1000").map(|(pid, _)| pid.to_string())
            };
            wait_until("it runs", || program().is_some());
            let program = program().unwrap();
            let what = format!("{runtime:?} {options}");
            let limits = |pid: &str| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            assert_eq!(limits(&program), fs::read_to_string(&outside).unwrap(), "{what}");
            assert_eq!(priority(&program), "5 19 idle 300", "{what}");
            let hooks = fs::read_to_string(installation.path("hook.limits")).unwrap();
            let runtime = children_of(engine.id())[0].to_string();
            for (who, limits) in [("hooks", hooks), ("runtime", limits(&runtime))] {
                let (core, _) = limit(&limits, "Max core file size");
                assert_eq!(core, "0", "{what} {who}: {limits}");
                for name in ["cpu time", "file size", "address space", "data size", "processes"] {
                    let (soft, hard) = limit(&limits, &format!("Max {name}"));
                    assert_eq!(soft, hard, "{what} {who}: {limits}");
                }
                let (files, _) = limit(&limits, "Max open files");
                assert!(files.parse::<u64>().unwrap() >= 1024, "{what} {who}: {limits}");
                let (stack, _) = limit(&limits, "Max stack size");
                assert_eq!(stack, (8 << 20).to_string(), "{what} {who}: {limits}");
            }
            let stat = fs::read_to_string(installation.path("hook.stat")).unwrap();
            let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            assert_eq!((fields[38], fields[16]), ("0", "0"), "{what}");
            engine.kill().unwrap();
            engine.wait().unwrap();
            wait_until("nothing is left", || processes_of(alice.uid).is_empty());
        }
    }
}

/// Programs of the image run as the user before the program itself does: they, and `launch`, which the
/// user could trace, must not have what root's processes have.
#[test]
fn nothing_of_the_users_ever_has_the_priority_of_roots_processes() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let show = "cut -d' ' -f19,41 /proc/self/stat; grep -E 'cpu time' /proc/self/limits";
        let hook = format!("({show}) >/tmp/hook 2>&1");
        let hooks = serde_json::json!({"startContainer": [
            {"path": "/bin/sh", "args": ["sh", "-c", hook]}
        ]});
        let installation = installation.set("OCIHooks", &hooks.to_string());
        let sarus = installation.prefix().join("bin/sarus");
        for pid in ["private", "host"] {
            let script = format!(
                "ulimit -t 500; renice -n 15 $$ >/dev/null; chrt --batch -p 0 $$;
                 exec {} run --pid={pid} {IMAGE} sh -c \"cat /tmp/hook; {show}\"",
                sarus.display()
            );
            let args = ["-c", &script];
            let output = Output::of(&mut installation.as_user(&installation.alice, "bash", args));
            let seen = output.clone().succeeds();
            let lines: Vec<_> = seen.lines().collect();
            assert_eq!(lines.len(), 4, "{runtime:?} {output}");
            assert_eq!(lines[..2], lines[2..], "{runtime:?} {output}");
            assert_eq!(lines[0], "15 3", "{runtime:?} {output}");
            assert!(lines[1].contains(" 500 "), "{runtime:?} {output}");
        }
    }
}

#[test]
fn signals_that_the_caller_ignores_are_ignored_by_the_program() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        for options in ["", "--init", "--pid=host"] {
            let script = format!(
                "trap '' USR1 HUP TERM; grep SigIgn /proc/self/status;
                 exec {} run {options} {IMAGE} grep SigIgn /proc/self/status",
                sarus.display()
            );
            let args = ["-c", &script];
            let output = Output::of(&mut installation.as_user(&installation.alice, "bash", args));
            let seen = output.succeeds();
            let lines: Vec<_> = seen.lines().collect();
            assert_eq!(lines[0], lines[1], "{runtime:?} {options}");
        }
    }
}

/// Waits of root's processes are as long as the caller says, within minutes, unless that is undone.
#[test]
fn no_timer_slack_of_the_callers_keeps_root_from_ending_a_container() {
    let source = r#"
        #include <sys/prctl.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            prctl(PR_SET_TIMERSLACK, 60000000000UL, 0, 0, 0);
            return execv(argv[1], argv + 1);
        }"#;
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let slack = installation.compile("slack", source);
        let sarus = installation.prefix().join("bin/sarus");
        let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait";
        let args = [sarus.to_str().unwrap(), "run", "--pid=host", IMAGE, "sh", "-c", script];
        let mut engine = installation.as_user(alice, &slack, args).spawn().unwrap();
        let sleeps =
            || processes_of(alice.uid).iter().filter(|(_, line)| line == "sleep 1000").count();
        wait_until("it runs", || sleeps() == 8);
        engine.kill().unwrap();
        engine.wait().unwrap();
        // Within the patience of the test, which is a third of the slack.
        wait_until("nothing is left", || processes_of(alice.uid).is_empty());
        let images = installation.repository(alice);
        let is_ours = |(_, file): &(PathBuf, PathBuf)| file.starts_with(&images);
        wait_until("no device is left", || !loop_devices().iter().any(is_ours));
    }
}

/// The kernel starts set-user-id programs with a stack of 8 MiB at most.
#[test]
fn the_stack_is_as_large_as_the_callers() {
    let hard = Output::of(Command::new("bash").args(["-c", "ulimit -Hs"])).succeeds();
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        for stack in [hard.trim(), "1000000", "8192", "4096"] {
            // Not executed in place of the shell.
            let run = format!("{} run {IMAGE} sh -c 'ulimit -s'", sarus.display());
            let script = format!("ulimit -Ss {stack}; {run}; exit $?");
            let mut command = installation.as_user(&installation.alice, "bash", ["-c", &script]);
            assert_eq!(Output::of(&mut command).succeeds().trim(), stack, "{runtime:?}");
        }
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
