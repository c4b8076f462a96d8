//! OCI hooks of sarus.json: what they get, and what becomes of a run whose hook fails. The NVIDIA
//! Container Toolkit is one of them; a stand-in does here what it does to a container.

use crate::support::{IMAGE, Installation, Output, Runtime};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn run(installation: &Installation, args: &[&str]) -> Output {
    installation.sarus(&installation.alice, &[&["run"], args].concat())
}

/// A hook of root's that is a shell script. It should read its stdin: crun takes a hook that has ended
/// before for one that failed.
fn script(installation: &Installation, name: &str, text: &str) -> PathBuf {
    let path = installation.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn hooks_get_the_state_their_arguments_and_their_own_environment_only() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let record = installation.path("record");
        fs::create_dir(&record).unwrap();
        let hook = script(
            &installation,
            "hook",
            &format!(
                "cat >{0}/$1.state; env >{0}/$1.env; id -u >{0}/$1.uid; echo $0 \"$@\" >{0}/$1.args
                 ls -l /proc/self/fd/ >{0}/$1.fds",
                record.display()
            ),
        );
        let stage = |name: &str| {
            format!(
                r#""{name}": [{{"path": "{0}", "args": ["{0}", "{name}", "a b", ""],
                    "env": ["ONE=1", "TWO=x=y"], "timeout": 10}}]"#,
                hook.display()
            )
        };
        let stages = ["prestart", "createRuntime", "poststart", "poststop"];
        let hooks = format!("{{{}}}", stages.map(stage).join(", "));
        let installation = installation.set("OCIHooks", &hooks);
        let alice = &installation.alice;
        let mut command =
            installation.sarus_command(alice, &["--verbose", "run", IMAGE, "sleep", "0.2"]);
        command.env("SECRET", "of the caller");
        Output::of(&mut command).succeeds();
        for stage in stages {
            let read = |kind: &str| {
                fs::read_to_string(record.join(format!("{stage}.{kind}")))
                    .unwrap_or_else(|error| panic!("{runtime:?} {stage}: {error}"))
            };
            assert_eq!(read("args"), format!("{} {stage} a b \n", hook.display()), "{runtime:?}");
            assert_eq!(read("uid"), "0\n");
            let env = read("env");
            let mut names: Vec<_> = env.lines().filter(|line| !line.starts_with("_=")).collect();
            names.retain(|line| !line.starts_with("PWD=") && !line.starts_with("SHLVL="));
            names.sort_unstable();
            assert_eq!(names, ["ONE=1", "TWO=x=y"], "{runtime:?} {stage}");
            let state = read("state");
            let place = installation.prefix().join("var/OCIBundleDir");
            for part in [
                "\"id\":\"container-",
                &format!("\"bundle\":\"{}\"", place.display()),
                // --verbose is INFO.
                "\"com.hooks.logging.level\":\"1\"",
                "\"com.hooks.logging.stdoutfd\":\"/proc/1/fd/5\"",
                "\"com.hooks.logging.stderrfd\":\"/proc/1/fd/6\"",
            ] {
                let compact = state.replace(": ", ":");
                assert!(compact.contains(part), "{runtime:?} {stage}: {part}: {state}");
            }
            let fds = read("fds");
            assert!(!fds.contains(".squashfs"), "{runtime:?} {stage}: {fds}");
        }
    }
}

#[test]
fn hooks_find_stdout_and_stderr_of_the_engine() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let hook = script(
            &installation,
            "hook",
            "cat >/dev/null; echo OUT >>/proc/1/fd/5; echo ERR >>/proc/1/fd/6",
        );
        let hooks = format!(r#"{{"prestart": [{{"path": "{}"}}]}}"#, hook.display());
        let installation = installation.set("OCIHooks", &hooks);
        let output = run(&installation, &[IMAGE, "echo", "program"]);
        assert_eq!(output.stdout, "OUT\nprogram\n", "{runtime:?}: {output}");
        assert_eq!(output.stderr, "ERR\n", "{runtime:?}");
    }
}

#[test]
fn a_hook_that_fails_is_named_with_what_it_printed_and_nothing_runs() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let good = script(&installation, "good", "cat >/dev/null");
        let bad = script(
            &installation,
            "bad",
            "cat >/dev/null; echo said this; echo and that >&2; exit 7",
        );
        for stage in ["prestart", "createRuntime"] {
            let hooks = format!(
                r#"{{"{stage}": [{{"path": "{}"}}, {{"path": "{}"}}]}}"#,
                good.display(),
                bad.display()
            );
            let installation =
                Installation::set(Installation::with_busybox(runtime), "OCIHooks", &hooks);
            let output = run(&installation, &[IMAGE, "echo", "started"]);
            assert_eq!(output.stdout, "", "{runtime:?} {stage}");
            let text = output.fails(125);
            for word in ["cannot start 'echo'", bad.to_str().unwrap(), "7", "said this", "and that"]
            {
                assert!(text.contains(word), "{runtime:?} {stage}: {word}: {text}");
            }
            assert_eq!(text.lines().count(), 2, "{text}");
        }
    }
}

#[test]
fn a_hook_has_no_more_than_its_time() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let slow = script(&installation, "slow", "exec sleep 1000");
        let hooks = format!(r#"{{"prestart": [{{"path": "{}", "timeout": 1}}]}}"#, slow.display());
        let installation = installation.set("OCIHooks", &hooks);
        let start = Instant::now();
        let text = run(&installation, &[IMAGE, "echo", "started"]).fails(125);
        assert!(text.contains("time") && text.contains(slow.to_str().unwrap()), "{text}");
        assert!(start.elapsed() < Duration::from_secs(10), "{runtime:?}");
    }
}

#[test]
fn a_run_can_be_ended_while_a_hook_works() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        // Its child holds the output open, which some runtimes wait for.
        let slow = script(&installation, "slow", "sleep 1000; true");
        let hooks = format!(r#"{{"prestart": [{{"path": "{}"}}]}}"#, slow.display());
        let installation = installation.set("OCIHooks", &hooks);
        for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            let sarus = installation.prefix().join("bin/sarus");
            let args =
                ["-s", signal, "1", sarus.to_str().unwrap(), "run", IMAGE, "echo", "started"];
            let args = [&["--preserve-status"], &args[..]].concat();
            let start = Instant::now();
            let output =
                Output::of(&mut installation.as_user(&installation.alice, "timeout", args));
            assert_eq!(output.stdout, "", "{runtime:?} {signal}");
            assert_eq!(output.fails(status), "", "{runtime:?} {signal}");
            assert!(start.elapsed() < Duration::from_secs(10), "{runtime:?} {signal}");
        }
    }
}

#[test]
fn a_hook_that_fails_at_the_end_changes_no_status() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let bad = script(&installation, "bad", "exit 7");
        let hooks = format!(r#"{{"poststop": [{{"path": "{}"}}]}}"#, bad.display());
        let installation = installation.set("OCIHooks", &hooks);
        run(&installation, &[IMAGE, "sh", "-c", "exit 3"]).fails(3);
        run(&installation, &[IMAGE, "true"]).succeeds();
    }
}

/// What nvidia-container-cli does: looks up the devices in the container's environment, enters its
/// mount namespace, and binds them below its root.
const TOOLKIT: &str = r#"
test "$1" = prestart || exit 0
state=$(cat)
field() { echo "$state" | sed -n "s/.*\"$1\": *\"*\([^\",}]*\).*/\1/p"; }
pid=$(field pid)
bundle=$(field bundle)
devices=$(sed -n 's/.*"NVIDIA_VISIBLE_DEVICES=\([^"]*\)".*/\1/p' "$bundle/config.json")
test -n "$devices" || exit 0
for device in $(echo "$devices" | tr , ' '); do
    nsenter --target "$pid" --mount sh -c "touch $bundle/rootfs/dev/nvidia$device &&
        mount --bind /dev/zero $bundle/rootfs/dev/nvidia$device" || exit 1
done"#;

#[test]
fn the_nvidia_toolkit_gives_the_chosen_devices() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let toolkit = script(&installation, "nvidia-container-toolkit", TOOLKIT);
        // As the manual configures it.
        let hooks = format!(
            r#"{{"prestart": [{{"path": "{0}", "args": ["{0}", "prestart"],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}}]}}"#,
            toolkit.display()
        );
        let installation = installation.set("OCIHooks", &hooks);
        let alice = &installation.alice;
        let script = "ls /dev | grep nvidia | xargs echo; echo $CUDA_VISIBLE_DEVICES; \
                      for d in /dev/nvidia?; do head -c 4 $d | od -An -tx1; done";
        let with = |devices: Option<&str>| {
            let mut command =
                installation.sarus_command(alice, &["run", IMAGE, "sh", "-c", script]);
            if let Some(devices) = devices {
                command.env("CUDA_VISIBLE_DEVICES", devices);
            }
            Output::of(&mut command)
        };
        let zeroes = " 00 00 00 00\n";
        let expected = format!("nvidia1 nvidia3\n1,0\n{zeroes}{zeroes}");
        assert_eq!(with(Some("3,1")).succeeds(), expected, "{runtime:?}");
        for none in [None, Some("NoDevFiles")] {
            assert!(with(none).stdout.starts_with("\n\n"), "{runtime:?} {none:?}");
        }
    }
}

/// The OCI specification has them found and executed in the container. The image is the user's, so
/// root must have no part in it.
#[test]
fn start_container_hooks_are_programs_of_the_image_and_run_as_the_user() {
    for runtime in Runtime::ALL {
        // A program of the host at the same path must not be looked at, nor run.
        let installation = Installation::with_busybox(runtime);
        let own = script(&installation, "own", "touch $0.ran");
        chown(&own, Some(installation.alice.uid), None).unwrap();
        let root = installation.rootfs("rootfs");
        let inside = root.join(own.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::write(
            &inside,
            "#!/bin/sh\ncat >/dev/null\nid -u >/tmp/id; grep Cap /proc/self/status >>/tmp/id\n",
        )
        .unwrap();
        fs::set_permissions(&inside, PermissionsExt::from_mode(0o755)).unwrap();
        installation.forge(&installation.alice, &root, "with", "{}");
        let hooks = |path: &str, args: &str| {
            format!(r#"{{"startContainer": [{{"path": "{path}", "args": {args}, "timeout": 1}}]}}"#)
        };
        let own = own.to_str().unwrap();
        let installation = installation.set("OCIHooks", &hooks(own, "[]"));
        let shown = run(&installation, &["load/library/with", "cat", "/tmp/id"]).succeeds();
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some(installation.alice.uid.to_string().as_str()), "{runtime:?}");
        assert_eq!(lines.clone().count(), 5, "{shown}");
        assert!(lines.all(|line| line.ends_with("\t0000000000000000")), "{shown}");
        let checked = installation.sarus(&installation.alice, &["check"]).stdout;
        assert!(
            checked.contains("startContainer: ") && checked.contains("runs as the user"),
            "{checked}"
        );
        // One that is missing, fails, or takes too long.
        let mut installation = installation;
        for (path, args) in [
            (own, "[]"),
            ("/bin/sh", r#"["sh", "-c", "cat >/dev/null; echo said this >&2; exit 7"]"#),
            ("/bin/sleep", r#"["sleep", "30"]"#),
        ] {
            installation = installation.set("OCIHooks", &hooks(path, args));
            let output = run(&installation, &[IMAGE, "echo", "started"]);
            assert_eq!(output.stdout, "", "{runtime:?} {path}");
            let text = output.fails(125);
            assert!(text.contains("cannot start 'echo' in the container"), "{runtime:?} {text}");
            assert!(text.contains("startContainer") && text.contains(path), "{runtime:?} {text}");
            assert_eq!(text.lines().count(), 2, "{text}");
        }
        assert!(!std::path::Path::new(&format!("{own}.ran")).exists());
    }
    // What another runtime does is not known.
    let installation = Installation::with_busybox(Runtime::Runc);
    let runc = Runtime::Runc.path();
    let text = format!("[ $1 != --version ] || exec echo other; exec {} \"$@\"", runc.display());
    let other = script(&installation, "other", &text);
    let hooks = r#"{"startContainer": [{"path": "/bin/true"}]}"#;
    let installation = installation.set("runcPath", &format!("{other:?}")).set("OCIHooks", hooks);
    let text = run(&installation, &[IMAGE, "true"]).fails(125);
    assert!(text.contains("cannot use the startContainer hook /bin/true"), "{text}");
    let checked = installation.sarus(&installation.alice, &["check"]).fails(1);
    drop(checked);
}
