//! Process numbers: the container's own, or the host's.

use super::*;

/// What `$$` is inside, and what the engine's parent sees of it.
fn number(installation: &Installation, words: &[&str], variables: &[(&str, &str)]) -> String {
    let args = [&["run"], words, &[IMAGE, "sh", "-c", "echo $$"]].concat();
    let mut command = installation.sarus_command(&installation.alice, &args);
    command.envs(variables.iter().copied());
    Output::of(&mut command).succeeds().trim().to_owned()
}

#[test]
fn a_container_has_numbers_of_its_own_unless_it_is_one_of_several_of_a_job() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        for (words, variables, is_private) in [
            (&[][..], &[][..], true),
            (&[], &[("PMI_SIZE", "1")], true),
            // The shell of an allocation.
            (&[], &[("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "7")], true),
            (&[], &[("PMI_SIZE", "4"), ("PMI_RANK", "1")], false),
            (&[], &[("SLURM_STEP_NUM_TASKS", "8")], false),
            (&["--pid=private"], &[("PMI_SIZE", "4")], true),
            (&["--pid", "host"], &[], false),
        ] {
            let shown = number(&installation, words, variables);
            assert_eq!(shown == "1", is_private, "{runtime:?} {words:?} {variables:?}: {shown}");
        }
        let wrong = installation.sarus(&installation.alice, &["run", "--pid=none", IMAGE, "true"]);
        let text = wrong.fails(125);
        assert!(text.contains("invalid PID namespace 'none'") && text.contains("hint: "), "{text}");
    }
}

/// As before Linux 3.4: prctl(2) does not know PR_SET_CHILD_SUBREAPER.
#[test]
fn without_a_guardian_ranks_have_numbers_of_their_own() {
    // crun cannot do without it either.
    let installation = Installation::with_busybox(Runtime::Runc);
    let old_kernel = installation.refusing(libc::SYS_prctl, 0, libc::PR_SET_CHILD_SUBREAPER as u32);
    let run = |options: &[&str]| {
        let args = [&["run"], options, &[IMAGE, "sh", "-c", "echo $$"]].concat();
        let inner = installation.sarus_command(&installation.alice, &args);
        let mut command = std::process::Command::new(&old_kernel);
        command.arg(inner.get_program()).args(inner.get_args());
        Output::of(command.current_dir(inner.get_current_dir().unwrap()).env("PMI_SIZE", "4"))
    };
    let output = run(&[]);
    assert!(output.stderr.contains("this kernel has no child subreapers"), "{output}");
    assert_eq!(output.succeeds(), "1\n");
    let refused = run(&["--pid=host"]).fails(125);
    assert!(refused.contains("no child subreapers\nhint: use --pid=private"), "{refused}");
}

/// As before Linux 5.3: there are no pidfds.
#[test]
fn without_handles_signals_find_their_processes_all_the_same() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let old_kernel = installation.refusing(libc::SYS_pidfd_open, 1, 0);
        let output = installation.path("home/alice/output");
        let script = "trap 'echo got USR1' USR1; trap 'exit 7' TERM; sleep 1000 & echo ready; \
                      while :; do sleep 0.02; done";
        for pid in ["--pid=host", "--pid=private"] {
            let args = ["run", pid, IMAGE, "sh", "-c", script];
            let inner = installation.sarus_command(&installation.alice, &args);
            let mut command = Command::new(&old_kernel);
            command.arg(inner.get_program()).args(inner.get_args());
            command.current_dir(inner.get_current_dir().unwrap());
            let mut engine = command.stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
            let said = |text: &str| fs::read_to_string(&output).unwrap().contains(text);
            wait_until("it is ready", || said("ready\n"));
            let program = wait_for_program(&installation, "sleep 1000");
            let send = |signal: &str| {
                let kill = [signal.to_owned(), engine.id().to_string()];
                Output::of(&mut installation.as_user(&installation.alice, "/bin/kill", kill))
                    .succeeds();
            };
            let is_stopped = |pid: u32| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                field(&status.unwrap(), "State").starts_with('T')
            };
            send("-USR1");
            wait_until("the signal comes", || said("got USR1\n"));
            send("-TSTP");
            wait_until("all stops", || is_stopped(engine.id()) && is_stopped(program));
            send("-CONT");
            wait_until("all goes on", || !is_stopped(engine.id()) && !is_stopped(program));
            send("-TERM");
            assert_eq!(engine.wait().unwrap().code(), Some(7), "{runtime:?} {pid}");
            assert_nothing_is_left(&installation, runtime);
        }
    }
}

#[test]
fn what_a_program_leaves_behind_among_the_hosts_processes_ends_with_it() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let script = "for n in 1 2 3; do sh -c 'setsid sh -c \"sleep 1000 & sleep 1000\" &'; done; \
                      sleep 0.1; exit 3";
        for options in [&[][..], &["--init"]] {
            let args = [&["run", "--pid=host"], options, &[IMAGE, "sh", "-c", script]].concat();
            installation.sarus(&installation.alice, &args).fails(3);
            // Not a moment later.
            let left = processes_of(installation.alice.uid);
            assert!(left.is_empty(), "{runtime:?} {options:?}: {left:?}");
            assert_nothing_is_left(&installation, runtime);
        }
    }
}

/// A chain of processes, each of which ends as soon as it has made the next.
#[test]
fn nobody_outruns_the_guardian() {
    let source = r#"
        #include <unistd.h>
        int main(void) { setsid(); for (;;) if (fork()) _exit(0); }"#;
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let chain = installation.compile("chain", source);
        let mount = format!("--mount=type=bind,src={},dst=/chain", chain.display());
        let script = "/chain & sleep 0.2; exit 3";
        let args = ["run", "--pid=host", &mount, IMAGE, "sh", "-c", script];
        installation.sarus(&installation.alice, &args).fails(3);
        assert_nothing_is_left(&installation, runtime);
    }
}

/// A new mount of proc would show what the host's own hides.
#[test]
fn processes_that_the_host_hides_stay_hidden() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let script = "ls -d /proc/[0-9]* | wc -l; ls -d /proc/1 2>/dev/null; true";
        let run = [sarus.to_str().unwrap(), "run", "--pid=host", IMAGE, "sh", "-c", script];
        let as_alice = installation.as_user(&installation.alice, run[0], &run[1..]);
        let shown = Output::of(&mut installation.as_user(&installation.alice, run[0], &run[1..]));
        assert!(shown.succeeds().contains("/proc/1\n"));
        let mut hidden = std::process::Command::new("unshare");
        hidden.args([
            "--mount",
            "sh",
            "-c",
            "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"",
        ]);
        hidden.arg("sh").arg(as_alice.get_program()).args(as_alice.get_args());
        hidden.envs(as_alice.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let shown = Output::of(&mut hidden).succeeds();
        let count: usize = shown.lines().next().unwrap().trim().parse().unwrap();
        assert!(!shown.contains("/proc/1\n") && count < 8, "{runtime:?}: {shown}");
    }
}

/// The one that ends everything must not be at the mercy of those whom it ends.
#[test]
fn the_guardian_is_roots() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let script = format!(
            "ulimit -S -t 900 -v 9000000; echo 500 >/proc/self/oom_score_adj; \
             exec {} run --pid=host {IMAGE} sleep 1000",
            sarus.display()
        );
        let words = ["-c".to_owned(), script];
        let mut engine = installation.as_user(&installation.alice, "/bin/bash", words);
        let mut engine = engine.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let program = wait_for_program(&installation, "sleep 1000");
        let guardian = parent_of(parent_of(program));
        assert_eq!(parent_of(guardian), engine.id(), "{runtime:?}");
        let status = fs::read_to_string(format!("/proc/{guardian}/status")).unwrap();
        assert!(status.contains("Uid:\t0\t0\t0\t0\n"), "{status}");
        // A reader of the program's output does not wait for it. Nobody waits for the end of a file.
        for entry in fs::read_dir(format!("/proc/{guardian}/fd")).unwrap() {
            let file = fs::read_link(entry.unwrap().path()).unwrap();
            let is_closed_last = file == Path::new("anon_inode:[pidfd]") || file.is_absolute();
            assert!(is_closed_last, "{runtime:?} {file:?}");
        }
        // Nor may limits of theirs have the kernel end it: their program has them still.
        let limits =
            |pid| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap().replace(' ', "");
        for limit in ["cputimeunlimitedunlimited", "addressspaceunlimitedunlimited"] {
            assert!(limits(guardian).contains(limit), "{}", limits(guardian));
            assert!(!limits(program).contains(limit), "{}", limits(program));
        }
        let score = |pid| {
            fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned()
        };
        // In some containers and virtual machines, root lacks CAP_SYS_RESOURCE.
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let rights = u64::from_str_radix(&field(&own, "CapEff"), 16).unwrap();
        let lowest = if rights & 1 << 24 == 0 { "0" } else { "-1000" };
        assert_eq!((score(guardian).as_str(), score(program).as_str()), (lowest, "500"));
        let kill = ["-KILL".to_owned(), guardian.to_string()];
        let refused = Output::of(&mut installation.as_user(&installation.alice, "/bin/kill", kill));
        assert!(refused.fails(1).contains("not permitted"));
        engine.kill().unwrap();
        engine.wait().unwrap();
        assert_nothing_is_left(&installation, runtime);
    }
}
