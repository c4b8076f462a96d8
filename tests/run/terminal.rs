//! Terminals and job control: a person at a keyboard, with `-t` and without.

use crate::support::hostile::{field, wait_until};
use crate::support::pty::Shell;
use crate::support::{IMAGE, Installation, Output, Runtime, loop_devices, processes_of};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn sarus(installation: &Installation) -> String {
    installation.prefix().join("bin/sarus").display().to_string()
}

/// The states of alice's processes but the shell: `T` is stopped.
fn states(installation: &Installation) -> Vec<(u32, String, String)> {
    let mut states = vec![];
    for (pid, line) in processes_of(installation.alice.uid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if !line.starts_with("bash") {
            states.push((pid, line, field(&status, "State")));
        }
    }
    states
}

fn are_stopped(installation: &Installation) -> bool {
    let states = states(installation);
    states.len() >= 2 && states.iter().all(|(_, _, state)| state.starts_with('T'))
}

fn engine(installation: &Installation) -> String {
    let states = states(installation);
    let engine = states.iter().find(|(_, line, _)| line.contains("sarus run")).unwrap();
    engine.0.to_string()
}

fn assert_nothing_is_left(installation: &Installation) {
    wait_until("nothing is left", || states(installation).is_empty());
    let images = installation.repository(&installation.alice);
    let is_ours = |(_, file): &(_, PathBuf)| file.starts_with(&images);
    wait_until("no device is left", || !loop_devices().iter().any(is_ours));
}

fn kill(signal: &str, pid: &str) {
    Output::of(Command::new("kill").args([signal, pid])).succeeds();
}

#[test]
fn ctrl_z_stops_the_container_and_fg_continues_it() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        for options in ["", "--init", "--pid=host", "--pid=host --init"] {
            let script = "trap \"echo STOPPING\" TSTP; \
                          while :; do echo tick; sleep 0.1; done";
            let line = format!("{} run {options} {IMAGE} sh -c '{script}'\n", sarus(&installation));
            shell.types(&line).wait_for("tick\r\ntick");
            shell.types("\x1a").wait_for("READY> ");
            wait_until("all are stopped", || are_stopped(&installation));
            // The shell has its terminal.
            assert!(shell.runs("echo $((6 * 7))").contains("42"));
            shell.types("fg\n").wait_for("tick\r\ntick");
            // In the background too.
            shell.types("\x1a").wait_for("READY> ");
            shell.types("bg\n").wait_for("tick\r\ntick");
            shell.types("kill -TSTP %1\n");
            wait_until("all are stopped", || are_stopped(&installation));
            // One that is stopped can be ended.
            shell.types("kill -KILL %1; fg\n").wait_for("Killed");
            assert_nothing_is_left(&installation);
        }
    }
}

/// Ctrl-Z would leave behind who was born while the others were looked for.
#[test]
fn who_forks_is_stopped_too() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        for options in ["", "--pid=host"] {
            let script = "for n in 1 2 3; do while :; do (:); done & done; echo forking; wait";
            let line = format!("{} run {options} {IMAGE} sh -c '{script}'\n", sarus(&installation));
            shell.types(&line).wait_for("forking\r\n");
            shell.types("\x1a").wait_for("READY> ");
            let are_stopped =
                || states(&installation).iter().all(|(_, _, state)| state.starts_with(['T', 'Z']));
            wait_until("all are stopped", are_stopped);
            // And stay so: else it was a moment between two of them.
            let before = states(&installation);
            std::thread::sleep(std::time::Duration::from_millis(200));
            assert_eq!(states(&installation), before, "{runtime:?} {options}");
            shell.types("kill -KILL %1; fg\n").wait_for("Killed");
            assert_nothing_is_left(&installation);
        }
    }
}

/// As all that reads from a terminal: what is typed there is the shell's.
#[test]
fn a_container_with_a_terminal_waits_in_the_background() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        let before = shell.modes();
        for options in ["-t", "-t --pid=host"] {
            let script = "while read -r word; do echo \"<$word>\"; done";
            let line = format!("{} run {options} {IMAGE} sh -c '{script}'", sarus(&installation));
            shell.types(&format!("{line} &\n")).wait_for("READY> ");
            wait_until("the engine is stopped", || {
                let states = states(&installation);
                states.len() == 1 && states[0].2.starts_with('T')
            });
            assert!(shell.runs("echo $((6 * 7))").contains("42"));
            shell.types("fg\n").wait_for("sarus run");
            shell.types("one\n").wait_for("<one>");

            kill("-TSTP", &engine(&installation));
            shell.wait_for("READY> ");
            shell.types("bg\n").wait_for("READY> ");
            wait_until("all are stopped", || are_stopped(&installation));
            assert!(shell.runs("echo $((7 * 7))").contains("49"));
            shell.types("fg\n").wait_for("sarus run");
            shell.types("two\n").wait_for("<two>");

            // Nor can the runtime work: it is ended.
            kill("-TSTP", &engine(&installation));
            shell.wait_for("READY> ");
            let wait = "while kill -0 %1 2>/dev/null; do sleep 0.1; done";
            shell.types(&format!("kill %1; {wait}\n")).wait_for("Exit 143");
            shell.wait_for("READY> ");
            assert_nothing_is_left(&installation);
            assert_eq!(shell.modes(), before, "{runtime:?} {options}");
        }
    }
}

/// It was asked for a moment to prepare, and takes it to end.
#[test]
fn a_program_may_end_when_it_is_to_stop() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        for options in ["", "--init", "--pid=host"] {
            let script = "trap \"exit 5\" TSTP; while :; do echo tick; sleep 0.01; done";
            let line = format!("{} run {options} {IMAGE} sh -c '{script}'\n", sarus(&installation));
            shell.types(&line).wait_for("tick\r\ntick");
            shell.types("\x1a").wait_for("READY> ");
            shell.types("fg; echo status $?\n").wait_for("status 5");
            assert_nothing_is_left(&installation);
        }
    }
}

/// A workload manager may change its mind.
#[test]
fn who_is_continued_at_once_goes_on() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        for options in ["", "--pid=host"] {
            let script = "while :; do echo tick; sleep 0.1; done";
            let line = format!("{} run {options} {IMAGE} sh -c '{script}'\n", sarus(&installation));
            shell.types(&line).wait_for("tick\r\ntick");
            let engine = engine(&installation);
            for _ in 0..5 {
                kill("-TSTP", &engine);
                kill("-CONT", &engine);
                shell.types("").wait_for("tick\r\ntick\r\ntick");
            }
            shell.types("\x03").wait_for("READY> ");
            assert_nothing_is_left(&installation);
        }
    }
}

/// As under `srun --pty` and `ssh -t`: nobody is there who could continue it.
#[test]
fn ctrl_z_is_nothing_where_no_shell_is() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        for options in ["", "--pid=host"] {
            let script = "while :; do echo tick; sleep 0.1; done";
            let line =
                format!("exec {} run {options} {IMAGE} sh -c '{script}'", sarus(&installation));
            shell.types(&format!("script -qec \"{}\" /dev/null\n", line.replace('"', "\\\"")));
            shell.wait_for("tick\r\ntick");
            shell.types("\x1a").wait_for("tick\r\ntick\r\ntick");
            shell.types("\x03").wait_for("READY> ");
            assert_nothing_is_left(&installation);
        }
    }
}

#[test]
fn ctrl_c_reaches_the_program() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        for options in ["", "--init", "-t", "-t --init"] {
            let script = "trap \"echo GOT INT; exit 9\" INT; \
                          while :; do echo tick; sleep 0.1; done";
            let line = format!("{} run {options} {IMAGE} sh -c '{script}'\n", sarus(&installation));
            shell.types(&line).wait_for("tick\r\ntick");
            shell.types("\x03").wait_for("GOT INT");
            shell.wait_for("READY> ");
            assert!(shell.runs("echo status $?").contains("status 9"), "{options}");
            assert_nothing_is_left(&installation);
        }
    }
}

#[test]
fn a_terminal_inside_has_size_and_job_control() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        shell.resize(33, 77);
        let line = format!("{} run -t {IMAGE} env PS1=I'N> ' sh", sarus(&installation));
        shell.types(&format!("{line}\n")).wait_for("IN> ");
        let mut inside = |line: &str, text: &str| {
            shell.types(&format!("{line}\n")).wait_for(text);
            shell.resize(44, 88);
        };
        inside("stty size; tty; test -t 1 && echo terminal", "33 77\r\n/dev/pts/0\r\nterminal");
        inside("sleep 0.5; stty size", "44 88");
        shell.types("sleep 1000\n");
        wait_until("it runs", || {
            states(&installation).iter().any(|(_, line, _)| line == "sleep 1000")
        });
        shell.types("\x1a").wait_for("Stopped");
        assert!(!are_stopped(&installation), "the engine is stopped too");
        shell.types("fg\n").wait_for("sleep 1000");
        shell.types("\x03").wait_for("IN> ");
        shell.types("exit 5\n").wait_for("READY> ");
        assert!(shell.runs("echo status $?").contains("status 5"));
        assert_nothing_is_left(&installation);
    }
}

#[test]
fn the_terminal_is_what_it_was_after_any_end() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        let before = shell.modes();
        assert!(before.contains(" icanon"), "{before}");
        let line = format!("{} run -t {IMAGE} env PS1=I'N> ' sh\n", sarus(&installation));
        for end in ["exit", "engine", "runtime", "suspend"] {
            shell.types(&line).wait_for("IN> ");
            let engine = engine(&installation);
            match end {
                "exit" => {
                    shell.types("exit\n").wait_for("READY> ");
                }
                "engine" => {
                    kill("-KILL", &engine);
                    shell.wait_for("READY> ");
                }
                "runtime" => {
                    let children = format!("/proc/{engine}/task/{engine}/children");
                    let children = fs::read_to_string(children).unwrap();
                    let is_runtime = |child: &&str| {
                        let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap();
                        ["runc\n", "crun\n"].contains(&&*name)
                    };
                    kill("-KILL", children.split_whitespace().find(is_runtime).unwrap());
                    shell.wait_for("READY> ");
                }
                _ => {
                    kill("-TSTP", &engine);
                    shell.wait_for("READY> ");
                    wait_until("all are stopped", || are_stopped(&installation));
                    assert_eq!(shell.modes(), before);
                    // What is typed meanwhile is the shell's.
                    assert!(shell.runs("echo $((6 * 7))").contains("42"));
                    shell.types("fg\n").wait_for("sarus run");
                    shell.types("\necho $((5 * 5))\n").wait_for("25");
                    shell.types("exit\n").wait_for("READY> ");
                }
            }
            assert_nothing_is_left(&installation);
            assert_eq!(shell.modes(), before, "{runtime:?} {end}");
        }
    }
}

/// While the container is suspended, others change its modes, and keep what they set.
#[test]
fn the_end_of_a_suspended_container_leaves_the_terminal_to_others() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let mut shell = Shell::start(&installation, &installation.alice);
        let line = format!("{} run -t {IMAGE} env PS1=I'N> ' sh\n", sarus(&installation));
        for signal in ["-KILL", "-TERM"] {
            shell.runs("stty sane");
            shell.types(&line).wait_for("IN> ");
            let engine = engine(&installation);
            kill("-TSTP", &engine);
            shell.wait_for("READY> ");
            // Not at its prompt: there a shell has modes of its own.
            shell
                .types("stty -echoctl; echo S''ET; sleep 1; stty -a; echo E''ND\n")
                .wait_for("SET\r\n");
            kill(signal, &engine);
            if signal == "-TERM" {
                kill("-CONT", &engine);
            }
            let shown = shell.wait_for("END\r\n");
            let (_, modes) = shown.split_once("SET\r\n").unwrap();
            assert!(modes.contains("-echoctl"), "{runtime:?} {signal}: {shown}");
            assert_nothing_is_left(&installation);
        }
    }
}

#[test]
fn a_terminal_is_not_made_from_a_pipe() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let text = installation.sarus(&installation.alice, &["run", "-t", IMAGE, "true"]).fails(125);
    assert_eq!(
        text,
        "sarus: cannot give the container a terminal: stdin is not a terminal\n\
         hint: omit -t, or start it on a terminal, as with 'srun --pty'\n"
    );
}
