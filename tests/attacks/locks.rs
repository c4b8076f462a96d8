//! Locks that users take, or keep by stopping what has them: nobody else is held up.

use super::*;
use crate::common::pty::Shell;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

/// Whether process `pid` is stopped and holds an flock(2) of `/dev/loop-control`, as proc(5) tells of
/// `/proc/locks`.
fn is_stopped_with_lock(pid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if !field(&status, "State").starts_with('T') {
        return None;
    }
    let inode = format!(":{}", fs::metadata("/dev/loop-control").unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    Some(locks.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [.., owner, file, _, _] = fields[..] else { return false };
        fields.contains(&"FLOCK") && owner == pid.to_string() && file.ends_with(&inode)
    }))
}

/// A process of a user's. With it, all of that user's processes end: what was stopped does not by
/// itself.
struct Attack(std::process::Child, u32);

impl Drop for Attack {
    fn drop(&mut self) {
        for (pid, _) in processes_of(self.1) {
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().ok();
        }
        self.0.wait().ok();
    }
}

/// A user could keep the lock for as long as the machine is up; the start of every container waited.
#[test]
fn no_stopped_engine_has_the_lock_of_loop_devices() {
    const TRIES: u32 = 400;
    // Starts an engine, waits a little longer each time, and stops it.
    let script = r#"
        tries=$1 n=0
        while [ $n -lt $tries ]; do
            "$3" run "$4" true >/dev/null 2>&1 &
            i=0; while [ $i -lt $((n * 8000 / tries)) ]; do i=$((i + 1)); done
            kill -"$2" $! 2>/dev/null
            echo $!; read -r _
            kill -KILL $! 2>/dev/null; wait $! 2>/dev/null
            n=$((n + 1))
        done"#;
    let installation = Installation::with_busybox(Runtime::Runc);
    let sarus = installation.prefix().join("bin/sarus");
    for signal in ["STOP", "TSTP"] {
        let args = ["-c", script, "sh", &TRIES.to_string(), signal, sarus.to_str().unwrap(), IMAGE];
        let mut attack = installation.as_user(&installation.alice, "sh", args);
        let attack = attack.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut attack = Attack(attack, installation.alice.uid);
        let mut go_on = attack.0.stdin.take().unwrap();
        let mut stopped = 0;
        for engine in BufReader::new(attack.0.stdout.take().unwrap()).lines() {
            let engine = engine.unwrap().parse().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            let has_lock = is_stopped_with_lock(engine);
            stopped += u32::from(has_lock.is_some());
            assert_ne!(has_lock, Some(true), "after {stopped} times {signal}");
            go_on.write_all(b"\n").unwrap();
        }
        drop(attack);
        assert!(stopped > TRIES / 10, "only {stopped} were stopped by {signal}");
        assert_nothing_is_left(&installation);
    }
}

/// The kernel asks for no permission when it sends SIGTSTP for Ctrl-Z.
#[test]
fn no_engine_that_is_stopped_from_its_terminal_has_the_lock_of_loop_devices() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let sarus = installation.prefix().join("bin/sarus");
    let mut shell = Shell::start(&installation, &installation.alice);
    let mut stopped = 0;
    for n in 0..200 {
        shell.types(&format!("{} run {IMAGE} true\n", sarus.display()));
        std::thread::sleep(Duration::from_micros(1000 + 30 * n));
        shell.types("\u{1a}\n").wait_for("READY> ");
        std::thread::sleep(Duration::from_millis(5));
        for (engine, line) in processes_of(installation.alice.uid) {
            if line.contains("bin/sarus run") {
                let has_lock = is_stopped_with_lock(engine);
                stopped += u32::from(has_lock.is_some());
                assert_ne!(has_lock, Some(true), "after {stopped} times Ctrl-Z");
            }
        }
        shell.runs("kill -KILL %% 2>/dev/null; wait 2>/dev/null");
    }
    assert!(stopped > 10, "only {stopped} were stopped");
    assert_nothing_is_left(&installation);
}

fn assert_nothing_is_left(installation: &Installation) {
    let images = installation.repository(&installation.alice);
    let is_ours = |(_, file): &(_, PathBuf)| file.starts_with(&images);
    wait_until("no device", || !loop_devices().iter().any(is_ours));
}
