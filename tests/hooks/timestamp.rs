//! `timestamp_hook` with real runtimes, and what all hooks do with a state that is none.

use crate::support::bundle::Bundle;
use crate::support::{IMAGE, Installation, Output, Runtime, User};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LOGFILE: &str = "TIMESTAMP_HOOK_LOGFILE";

/// An installation whose containers are stamped at every stage that the manual names.
fn with_timestamps(runtime: Runtime) -> Installation {
    let installation = Installation::with_busybox(runtime);
    let path = installation.prefix().join("bin/timestamp_hook");
    let hook = |message: &str| {
        format!(r#"{{"path": {path:?}, "env": ["TIMESTAMP_HOOK_MESSAGE={message}"]}}"#)
    };
    let hooks = format!(
        r#"{{"prestart": [{}, {}], "poststart": [{}], "poststop": [{{"path": {path:?}}}]}}"#,
        hook("After-runc"),
        hook("second hook"),
        hook("started")
    );
    installation.set("OCIHooks", &hooks)
}

fn run_with_log(installation: &Installation, log: &str, args: &[&str]) -> Output {
    let args = [&["run"], args].concat();
    let mut command = installation.sarus_command(&installation.alice, &args);
    Output::of(command.env(LOGFILE, log))
}

#[test]
fn lines_have_the_manuals_format_and_the_order_of_the_stages() {
    for runtime in Runtime::ALL {
        let installation = with_timestamps(runtime);
        let log = installation.path("home/alice/times.log");
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let before = now();
        run_with_log(&installation, log.to_str().unwrap(), &[IMAGE, "true"]).succeeds();
        let text = fs::read_to_string(&log).unwrap();
        let host = Output::of(Command::new("uname").arg("-n")).succeeds();
        let mut last = before;
        let mut messages = vec![];
        for line in text.lines() {
            let [time, place, rest] = line.splitn(3, "] [").collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let time = time.strip_prefix('[').unwrap();
            assert_eq!(time.split_once('.').unwrap().1.len(), 9, "{line}");
            let time: f64 = time.parse().unwrap();
            assert!(last <= time && time <= now(), "{line}");
            last = time;
            let (name, pid) = place.rsplit_once('-').unwrap();
            assert!(name == host.trim() && pid.parse::<u32>().is_ok(), "{line}");
            messages.push(rest.strip_prefix("hook] [INFO] Timestamp hook:").unwrap());
        }
        assert_eq!(messages, [" After-runc", " second hook", " started", ""], "{text}");
        let status = fs::metadata(&log).unwrap();
        assert_eq!((status.uid(), status.gid()), (installation.alice.uid, installation.alice.gid));
        // Without the variable there is no file.
        fs::remove_file(&log).unwrap();
        installation.sarus(&installation.alice, &["run", IMAGE, "true"]).succeeds();
        assert!(!log.exists());
    }
}

#[test]
fn the_file_is_the_users_or_there_is_none() {
    for runtime in Runtime::ALL {
        let installation = with_timestamps(runtime);
        let secret = installation.path("secret");
        fs::write(&secret, "as it was").unwrap();
        let home = installation.path("home/alice");
        symlink(&secret, home.join("link")).unwrap();
        let pipe = home.join("pipe");
        Output::of(Command::new("mkfifo").arg("-m").arg("666").arg(&pipe)).succeeds();
        let begin = Instant::now();
        for (log, why) in [
            (secret.to_str().unwrap(), "Permission denied"),
            (home.join("link").to_str().unwrap(), "Permission denied"),
            ("/etc/new-file-of-alice", "Permission denied"),
            ("relative.log", "the path is not absolute"),
            (pipe.to_str().unwrap(), ""),
            ("/dev/null", "not a regular file"),
            ("/proc/self/fd/2", ""),
            (home.to_str().unwrap(), "Is a directory"),
        ] {
            let text = run_with_log(&installation, log, &[IMAGE, "true"]).fails(125);
            let line = text.lines().next().unwrap();
            let expected = format!("sarus: cannot write a timestamp to {log}: ");
            assert!(line.starts_with(&expected) && line.contains(why), "{runtime:?} {text}");
            // By the hook itself, and not again by who ran it.
            let again = |line: &str| !line.starts_with("sarus: ") && line.contains(&expected[7..]);
            assert!(!text.lines().any(again), "{runtime:?} {text}");
            let line = text.lines().find(|line| line.contains("cannot start")).unwrap();
            assert!(!line.contains(&expected[7..]), "{runtime:?} {text}");
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "a hook waited");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "as it was");
    }
}

#[test]
fn it_serves_runtimes_without_an_engine() {
    for runtime in Runtime::ALL {
        let installation = Installation::new();
        let log = installation.path("tmp/times.log");
        let hook = installation.prefix().join("bin/timestamp_hook");
        let alice = &installation.alice;
        let bundle = Bundle::busybox(installation.path("bundle"), alice, &["echo", "ran"])
            .env(&format!("{LOGFILE}={}", log.display()))
            .prestart(&hook, &["TIMESTAMP_HOOK_MESSAGE=bare".into()]);
        assert_eq!(bundle.run(runtime).succeeds(), "ran\n");
        assert!(fs::read_to_string(&log).unwrap().ends_with("Timestamp hook: bare\n"));
        assert_eq!(fs::metadata(&log).unwrap().uid(), alice.uid);
    }
}

/// Calls the hook `name` by its setuid link.
fn call(installation: &Installation, user: &User, name: &str, state: &str) -> Output {
    let path = installation.prefix().join("bin").join(name);
    let mut command = installation.as_user(user, path, [""; 0]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It need not read all of it.
    child.stdin.take().unwrap().write_all(state.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    Output {
        command: format!("{name} with {state:.300}"),
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_state_that_is_none_is_an_error() {
    let installation = Installation::new();
    let bundle = installation.path("home/alice/b");
    fs::create_dir(&bundle).unwrap();
    let state = format!(
        r#"{{"ociVersion":"1.0","id":"x","status":"created","pid":1,"bundle":{bundle:?}}}"#
    );
    let root = User::root();
    for (text, why) in [
        (String::new(), "not a state"),
        ("[".repeat(100_000), "nested deeper than 32 levels"),
        ("{}".repeat(1 << 20), "larger than 1048576 bytes"),
        (state.replace("created", "born"), "invalid status 'born'"),
        (state.clone(), "config.json: cannot open"),
    ] {
        let error = call(&installation, &root, "timestamp_hook", &text).fails(1);
        assert!(error.starts_with("sarus: cannot ") && error.contains(why), "{error}");
    }
    let config = bundle.join("config.json");
    Output::of(Command::new("mkfifo").arg(&config)).succeeds();
    let error = call(&installation, &root, "timestamp_hook", &state).fails(1);
    assert!(error.contains("regular file"), "{error}");
    fs::remove_file(&config).unwrap();
    fs::write(&config, "{\"process\": ".repeat(100_000)).unwrap();
    let error = call(&installation, &root, "timestamp_hook", &state).fails(1);
    assert!(error.contains("nested deeper than 32 levels"), "{error}");
}

#[test]
fn a_user_who_calls_a_hook_gains_nothing() {
    let installation = Installation::new();
    let alice = &installation.alice;
    let target = installation.path("home/bob/file");
    let bundle = installation.path("home/alice/b");
    fs::create_dir(&bundle).unwrap();
    let state = format!(
        r#"{{"ociVersion":"1.0","id":"x","status":"created","pid":1,"bundle":{bundle:?}}}"#
    );
    for uid in [0, installation.bob.uid, alice.uid] {
        let config = format!(
            r#"{{"process": {{"user": {{"uid": {uid}, "gid": {uid}}},
                "env": ["{LOGFILE}={}"]}}, "root": {{"path": "rootfs"}}}}"#,
            target.display()
        );
        fs::write(bundle.join("config.json"), config).unwrap();
        call(&installation, alice, "timestamp_hook", &state).fails(1);
        assert!(!target.exists());
    }
}
