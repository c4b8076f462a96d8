//! Users who trace processes of their containers from outside, as debuggers do.

use super::*;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// Ends soon; the other one, which it leaves behind, never.
const VICTIM: &str = r#"
    #include <string.h>
    #include <sys/prctl.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        prctl(PR_SET_PTRACER, -1);
        if (!strcmp(argv[1], "daemon")) for (;;) pause();
        if (!fork()) execl(argv[0], argv[0], "daemon", NULL);
        sleep(3);
        return 3;
    }"#;

const TRACER: &str = r#"
    #include <stdlib.h>
    #include <sys/ptrace.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        if (ptrace(PTRACE_SEIZE, atoi(argv[1]), 0, 0)) return 99;
        write(1, "seized\n", 7);
        for (;;) pause();
    }"#;

/// Processes of the engine of this installation, root's own too.
fn engines(installation: &Installation) -> usize {
    let sarus = format!("{}/bin/sarus\0run\0", installation.prefix().display());
    let entries = fs::read_dir("/proc").unwrap().map(Result::unwrap);
    let lines = entries.flat_map(|entry| fs::read(entry.path().join("cmdline")));
    lines.filter(|line| String::from_utf8_lossy(line).contains(&sarus)).count()
}

#[test]
fn a_tracer_that_never_waits_holds_nobody_up() {
    for (runtime, pid) in
        Runtime::ALL.into_iter().flat_map(|one| [(one, "--pid=host"), (one, "--pid=private")])
    {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let victim = bind(&installation.compile("victim", VICTIM), "/victim");
        let tracer = installation.compile("tracer", TRACER);
        for name in ["first", "daemon"] {
            let what = format!("{runtime:?} {pid} {name}");
            let args = ["run", pid, &victim, IMAGE, "/victim", "first"];
            let mut engine = installation.sarus_command(alice, &args).spawn().unwrap();
            let number = || {
                let all = processes_of(alice.uid);
                let line = format!("/victim {name}");
                all.iter().find(|(_, other)| *other == line).map(|(pid, _)| pid.to_string())
            };
            wait_until("it runs", || number().is_some());
            let mut command = installation.as_user(alice, &tracer, [number().unwrap()]);
            let mut tracer = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(tracer.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "seized\n", "{what}");
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut ended = None;
            while ended.is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
                ended = engine.try_wait().unwrap();
            }
            let left = engines(&installation);
            assert!(tracer.try_wait().unwrap().is_none(), "{what}");
            tracer.kill().unwrap();
            tracer.wait().unwrap();
            let status = ended.unwrap_or_else(|| engine.wait().unwrap());
            assert!(ended.is_some(), "{what}: held up");
            assert_eq!((status.code(), left), (Some(3), 0), "{what}");
            wait_until("nothing is left", || processes_of(alice.uid).is_empty());
        }
    }
}
