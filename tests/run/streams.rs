//! stdin, stdout, stderr, and the descriptor for PMI.

use super::*;

#[test]
fn stdin_stdout_and_stderr_are_the_callers_own() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let input = installation.path("input");
        fs::write(&input, &bytes).unwrap();
        let mut command = installation
            .sarus_command(&installation.alice, &["run", IMAGE, "sh", "-c", "cat; echo E >&2"]);
        let output = command.stdin(fs::File::open(input).unwrap()).output().unwrap();
        assert!(output.stdout == bytes, "stdout differs from stdin");
        assert_eq!(output.stderr, b"E\n");
    }
}

#[test]
fn files_pipes_and_sockets_are_inherited_as_they_are() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        fs::write(installation.path("home/alice/input"), "one\ntwo\nthree\n").unwrap();
        let shell = |script: &str| {
            let run = format!("{} run {IMAGE}", sarus.display());
            let script = script.replace("RUN", &run);
            Output::of(&mut installation.as_user(&installation.alice, "bash", ["-c", &script]))
        };
        // The very same files, opened once.
        let same = "for fd in 0 1 2; do stat -L -c %d:%i /proc/self/fd/$fd; done >ids; \
                    RUN sh -c 'for fd in 0 1 2; do stat -L -c %d:%i /proc/self/fd/$fd; done'";
        let shown = shell(&format!("exec <input 2>err; {{ {same}; }} >out; cat out")).succeeds();
        let ids = fs::read_to_string(installation.path("home/alice/ids")).unwrap();
        let ids: Vec<_> = ids.lines().collect();
        assert_eq!(shown.lines().next(), Some(ids[0]), "{runtime:?}");
        assert_eq!(shown.lines().nth(2), Some(ids[2]), "{runtime:?}");
        // Nobody reads ahead: what the program leaves is there for the next.
        let shown = shell("{ RUN sh -c 'read line; echo got $line'; cat; } <input").succeeds();
        assert_eq!(shown, "got one\ntwo\nthree\n", "{runtime:?}");
        // Written at the file's end, not over it.
        let shown = shell("exec >out; echo first; RUN echo second; echo third; cat out >&2");
        assert_eq!(shown.stderr, "first\nsecond\nthird\n", "{runtime:?}");
        // The reader of a pipe that goes away is noticed.
        let shown = shell("RUN yes | head -n 2; echo ${PIPESTATUS[0]}").succeeds();
        // No signal ends process 1.
        assert_eq!(shown, "y\ny\n1\n", "{runtime:?}");
        for (closed, expected) in [("<&-", "read 0\n"), (">&-", ""), ("2>&-", "read 0\n")] {
            let shown = shell(&format!("RUN sh -c 'cat; echo read $?' {closed}"));
            assert_eq!(shown.stdout, expected, "{runtime:?} {closed}: {shown}");
        }
        // A program in the background of the container holds them, and nothing else does.
        let start = Instant::now();
        shell("RUN sleep 5 >/dev/null 2>&1 </dev/null & sleep 0.1; kill -9 $!").succeeds();
        assert!(start.elapsed() < Duration::from_secs(4), "{runtime:?}");
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let args =
            ["run", IMAGE, "sh", "-c", "echo hello; exec 3>&1; readlink /proc/self/fd/3 >&2"];
        let mut command = installation.sarus_command(&installation.alice, &args);
        command.stdout(std::os::fd::OwnedFd::from(theirs));
        let output = Output::of(&mut command);
        drop(command);
        assert!(output.stderr.starts_with("socket:"), "{runtime:?}: {output}");
        assert_eq!(std::io::read_to_string(ours).unwrap(), "hello\n");
    }
}

#[test]
fn an_open_pmi_descriptor_is_inherited_and_no_other() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let inside = r"echo $PMI_FD; echo hello >&$PMI_FD; ls /proc/self/fd | xargs";
        let script = format!(
            "exec 7>pmi 8>other; PMI_FD=7 {} run {IMAGE} sh -c '{inside}'; cat pmi",
            sarus.display()
        );
        let mut command = installation.as_user(&installation.alice, "sh", ["-c", &script]);
        // The last one is the directory that ls reads.
        assert_eq!(Output::of(&mut command).succeeds(), "3\n0 1 2 3 4\nhello\n");
    }
}

#[test]
fn a_terminal_is_a_terminal() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let inside =
            format!("{} run -t {IMAGE} sh -c 'tty; test -t 0 && echo yes'", sarus.display());
        let mut command =
            installation.as_user(&installation.alice, "script", ["-qec", &inside, "/dev/null"]);
        let shown = Output::of(&mut command).succeeds();
        assert!(shown.contains("/dev/pts/0") && shown.contains("yes"), "{runtime:?}: {shown:?}");
        try_run(&installation, &[IMAGE, "test", "-t", "0"]).fails(1);
    }
}
