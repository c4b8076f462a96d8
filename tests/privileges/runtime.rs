//! What the OCI runtime gets to see of the caller.

use super::*;

/// A stand-in for the OCI runtime: it writes down how it was executed.
fn with_recorder() -> Installation {
    let installation = Installation::with_busybox(Runtime::Runc);
    let source = r#"
        #include <dirent.h>
        #include <stdio.h>
        #include <string.h>
        #include <stdlib.h>
        #include <sys/stat.h>
        #include <unistd.h>
        extern char **environ;
        int main(int argc, char **argv) {
            umask(022);
            FILE *out = fopen(RECORD, "w");
            char line[4096], path[64];
            for (int i = 0; i < argc; i++) fprintf(out, "arg:%s\n", argv[i]);
            for (char **e = environ; *e; e++) fprintf(out, "env:%s\n", *e);
            fprintf(out, "cwd:%s\n", getcwd(line, sizeof line));
            DIR *dir = opendir("/proc/self/fd");
            for (struct dirent *d; (d = readdir(dir));) {
                int fd = atoi(d->d_name);
                if (d->d_name[0] == '.' || fd == dirfd(dir) || fd == fileno(out)) continue;
                snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
                ssize_t n = readlink(path, line, sizeof line - 1);
                line[n < 0 ? 0 : n] = 0;
                fprintf(out, "fd:%d %s\n", fd, line);
            }
            FILE *status = fopen("/proc/self/status", "r");
            while (fgets(line, sizeof line, status)) fputs(line, out);
            return 0;
        }"#;
    let record = format!("#define RECORD \"{}\"\n", installation.path("record").display());
    let recorder = installation.compile("recorder", &(record + source));
    installation.set("runcPath", &format!("\"{}\"", recorder.display()))
}

fn recorded(installation: &Installation, kind: &str) -> Vec<String> {
    let text = fs::read_to_string(installation.path("record")).unwrap();
    text.lines().filter_map(|line| line.strip_prefix(kind)).map(str::to_owned).collect()
}

#[test]
fn the_runtime_sees_nothing_of_the_callers_environment() {
    let installation = with_recorder();
    let sarus = installation.prefix().join("bin/sarus");
    let args = ["PATH=/tmp/evil", sarus.to_str().unwrap(), "run", IMAGE, "true"];
    let mut command = installation.as_user(&installation.alice, "env", args);
    for (name, value) in [
        ("LD_PRELOAD", "/tmp/x.so"),
        ("LD_LIBRARY_PATH", "/tmp"),
        ("GCONV_PATH", "/tmp"),
        ("TMPDIR", "/tmp/evil"),
        ("TZ", "../../tmp/x"),
        ("RUST_BACKTRACE", "full"),
        ("XDG_RUNTIME_DIR", "/tmp/evil"),
        ("CONTAINERS_CONF", "/tmp/evil"),
        ("_LIBCONTAINER_INITPIPE", "3"),
        ("_LIBCONTAINER_STATEDIR", "/tmp"),
        ("LISTEN_FDS", "7"),
        ("NOTIFY_SOCKET", "/tmp/x"),
        ("GODEBUG", "x=1"),
        ("HOME", "/tmp"),
        ("MALLOC_ARENA_MAX", "1"),
        ("MALLOC_CHECK_", "3"),
        ("RUST_LOG", "trace"),
        ("RUST_MIN_STACK", "1"),
        ("IFS", "/"),
        ("LANG", "../../../tmp/evil"),
        ("LC_ALL", "C.UTF-8"),
        ("NLSPATH", "/tmp/%N"),
        ("PMI_FD", "/tmp"),
    ] {
        command.env(name, value);
    }
    // As much as the kernel takes.
    for number in 0..10 {
        command.env(format!("LONG{number}"), "x".repeat(120_000));
    }
    Output::of(&mut command).succeeds();
    assert_eq!(recorded(&installation, "env:"), ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]);
    let place = installation.prefix().join("var/OCIBundleDir");
    assert_eq!(recorded(&installation, "cwd:"), [place.to_str().unwrap()]);
    let words = recorded(&installation, "arg:");
    assert!(words.iter().all(|word| !word.contains("/tmp")), "{words:?}");
    let status = fs::read_to_string(installation.path("record")).unwrap();
    for name in ["Uid", "Gid"] {
        assert_eq!(field(&status, name), "0 0 0 0");
    }
    assert_eq!(field(&status, "Groups"), "");
    assert_eq!(field(&status, "Umask"), "0022");
}

#[test]
fn strange_environments_are_no_danger() {
    let installation = with_recorder();
    let sarus = installation.prefix().join("bin/sarus");
    let source = r#"
        #include <unistd.h>
        int main(int argc, char **argv) {
            char *env[] = {"=A=b", "=", "", "NOTHING", "A=1", "A=2", "\xff\xfe=1", "B=\xff", 0};
            return execve(argv[1], argv + 1, env);
        }"#;
    let exec = installation.compile("strange", source);
    let args = [sarus.to_str().unwrap(), "run", IMAGE, "true"];
    let output = Output::of(&mut installation.as_user(&installation.alice, exec, args));
    assert!(!output.stderr.contains("panicked"), "{output}");
    output.succeeds();
    assert_eq!(recorded(&installation, "env:"), ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]);
}

#[test]
fn the_runtime_inherits_no_descriptor_but_the_one_for_pmi() {
    let installation = with_recorder();
    let sarus = installation.prefix().join("bin/sarus");
    let open: String = (3..=9).map(|fd| format!("{fd}</etc/passwd ")).collect();
    let numbers = |installation: &Installation| {
        let fds = recorded(installation, "fd:");
        fds.iter().map(|fd| fd.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Above stderr: the one for PMI, the socket for the start, and the caller's streams.
    for (pmi, expected) in [
        ("7", 5),
        ("3", 5),
        ("9", 5),
        ("10", 4),
        ("0", 4),
        ("2", 4),
        ("-1", 4),
        ("1000", 4),
        ("99999999999999999999", 4),
        ("7x", 4),
        ("", 4),
    ] {
        let script =
            format!("exec {open} 10>&-; PMI_FD='{pmi}' exec {} run {IMAGE} true", sarus.display());
        let mut command = installation.as_user(&installation.alice, "bash", ["-c", &script]);
        Output::of(&mut command).succeeds();
        // Those of the engine itself are closed when the runtime is executed.
        let found = numbers(&installation);
        let expected: Vec<_> = (0..3 + expected).map(|fd: i32| fd.to_string()).collect();
        assert_eq!(found, expected, "PMI_FD={pmi}");
    }
}

#[test]
fn closed_standard_streams_are_not_taken_by_others() {
    let installation = with_recorder();
    let sarus = installation.prefix().join("bin/sarus");
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("exec {} run {IMAGE} true {closed}", sarus.display());
        let mut command = installation.as_user(&installation.alice, "bash", ["-c", &script]);
        command.stdin(Stdio::null());
        Output::of(&mut command).succeeds();
        let fds = recorded(&installation, "fd:");
        assert_eq!(fds.len(), 7, "{fds:?}");
        for number in 0..7 {
            let is_ours = |fd: &&String| number == 3 && fd.contains("socket:");
            let is_safe =
                |fd: &&String| fd.ends_with("/dev/null") || fd.contains("pipe:") || is_ours(fd);
            let fd = fds.iter().find(|fd| fd.starts_with(&format!("{number} "))).unwrap();
            assert!(is_safe(&fd), "{closed}: {fd}");
        }
    }
}

#[test]
fn the_program_gets_the_callers_environment_whatever_it_holds() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        let mut command = installation.sarus_command(alice, &["run", IMAGE, "env"]);
        let variables = [
            ("LD_PRELOAD", "/x.so"),
            ("LD_LIBRARY_PATH", "/tmp"),
            ("MALLOC_ARENA_MAX", "1"),
            ("RUST_BACKTRACE", "1"),
            ("TMPDIR", "/scratch"),
            ("HOME", "/home/alice"),
            ("IFS", " \t\n"),
            ("LC_ALL", "de_DE.UTF-8"),
            ("_LIBCONTAINER_STATEDIR", "/tmp"),
            ("EMPTY", ""),
            ("LINES", "one\ntwo"),
        ];
        for (name, value) in variables {
            command.env(name, value);
        }
        let shown = Output::of(&mut command).succeeds();
        for (name, value) in variables {
            assert!(shown.contains(&format!("{name}={value}\n")), "{runtime:?} {name}: {shown}");
        }
    }
}
