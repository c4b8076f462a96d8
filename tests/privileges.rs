//! The set-user-id program gives up root for everything but `sarus run`, whatever it is called by
//! and with; and `sarus run` lets nothing of the caller's near what runs as root.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use common::hostile::{field, wait_until};
use common::{Image, Installation, Output, Runtime, User, loop_devices, processes_of};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "load/library/bb";

fn with_busybox() -> Installation {
    let installation = Installation::new();
    installation.load(&installation.alice, &Image::busybox(), "bb");
    installation
}

/// The writing end of a pipe that takes no more, and the end that keeps it open.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    while writer.write(&[0]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader.into(), writer.into())
}

/// Starts `command` so that it stops at the first thing that it has to say, and gives its status.
fn status_at_first_word(mut command: Command, stdin: Stdio) -> String {
    let (_reader, writer) = full_pipe();
    command.stdin(stdin).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    let status = status_when_waiting(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    status
}

/// The status of a process of this program once it sleeps, and goes on sleeping.
fn status_when_waiting(child: &Child) -> String {
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let sleeps = || {
        let exe = fs::read_link(proc.join("exe")).unwrap_or_default();
        let call = fs::read_to_string(proc.join("syscall")).unwrap_or_default();
        let is_in_call = call.split(' ').next().is_some_and(|word| word.parse::<u32>().is_ok());
        (exe.ends_with("sarusbox") && is_in_call).then_some(call)
    };
    let mut before = None;
    wait_until("it waits", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = sleeps();
        let same = now.is_some() && now == before;
        before = now;
        same
    });
    fs::read_to_string(proc.join("status")).unwrap()
}

#[track_caller]
fn assert_powerless(status: &str, user: &User, what: &str) {
    let id = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join(" ");
    let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
    assert_eq!(field(status, "Uid"), id(user.uid), "{what}");
    assert_eq!(field(status, "Gid"), id(user.gid), "{what}");
    assert_eq!(field(status, "Groups"), groups.join(" "), "{what}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(status, set), "0000000000000000", "{set} of {what}");
    }
    assert_eq!(field(status, "NoNewPrivs"), "1", "{what}");
}

#[test]
fn everything_but_run_has_no_privilege_and_no_way_back() {
    let installation = Installation::new();
    let alice = &installation.alice;
    let lines = [
        "sarus",
        "sarus nonsense",
        "sarus -x",
        "sarus --help",
        "sarus --version",
        "sarus help",
        "sarus help run",
        "sarus help nonsense",
        "sarus version",
        "sarus images",
        "sarus --debug images",
        "sarus --verbose images --help",
        "sarus rmi nonsense",
        "sarus rmi",
        "sarus load /nonsense x",
        "sarus load",
        "sarus rum x",
        "sarus Run x true",
        "sarus run",
        "sarus run --help",
        "sarus run --help x true",
        "sarus run --nonsense x true",
        "sarus run -- ",
        "sarus --help run x true",
        "sarus --version run x true",
        "sarus --nonsense run x true",
        "sarus images run x true",
        "sarusbox",
        "sarusbox --help",
        "sarusbox nonsense",
        "sarusbox run x true",
        "sarusbox sarus",
        "sarusbox sarus images",
        "sarusbox sarusbox sarus run x true",
        "sarusbox init",
        "sarusbox init /nonsense",
        "sarusbox launch",
        "init",
        "init -- /nonsense",
        "launch",
        "launch - /nonsense true",
        "launch 3 / true",
        "launch -1 / true",
    ];
    for line in lines {
        let (program, args) = line.split_once(' ').unwrap_or((line, ""));
        let program = installation.prefix().join("bin").join(program);
        let command = installation.as_user(alice, program, args.split_whitespace());
        assert_powerless(&status_at_first_word(command, Stdio::null()), alice, line);
    }
}

#[test]
fn an_import_from_stdin_has_no_privilege() {
    let installation = Installation::new();
    let (_writer, reader) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (writer, reader)
    };
    let mut command = installation.sarus_command(&installation.alice, &["load", "-", "x"]);
    let mut child = command.stdin(reader).spawn().unwrap();
    assert_powerless(&status_when_waiting(&child), &installation.alice, "load -");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_init_starts_has_no_privilege() {
    let installation = Installation::new();
    let alice = &installation.alice;
    for args in [
        &["sarusbox", "init", "cat", "/proc/self/status"][..],
        &["init", "--", "cat", "/proc/self/status"],
        &["init", "cat", "/proc/self/status"],
    ] {
        let program = installation.prefix().join("bin").join(args[0]);
        let shown = Output::of(&mut installation.as_user(alice, program, &args[1..])).succeeds();
        assert_powerless(&shown, alice, args[0]);
    }
    let program = installation.prefix().join("bin/init");
    let mut child = installation.as_user(alice, program, ["sleep", "1000"]).spawn().unwrap();
    assert_powerless(&status_when_waiting(&child), alice, "init itself");
    child.kill().unwrap();
    child.wait().unwrap();
    for (pid, _) in processes_of(alice.uid) {
        Output::of(Command::new("kill").arg("-9").arg(pid.to_string()));
    }
}

#[test]
fn no_name_that_it_is_called_by_keeps_root() {
    let installation = with_busybox();
    let alice = &installation.alice;
    let binary = installation.prefix().join("bin/sarusbox");
    let source = r#"
        #include <unistd.h>
        int main(int argc, char **argv, char **env) { return execve(argv[1], argv + 2, env); }"#;
    let exec = installation.compile("exec", source);
    let binary = binary.to_str().unwrap();
    // The program, then its arguments from its own name on.
    for args in [
        &[binary][..],
        &[binary, ""],
        &[binary, "", "run", IMAGE, "true"],
        &[binary, "run", IMAGE, "true"],
        &[binary, "/", "run", IMAGE, "true"],
        &[binary, "//", "run"],
        &[binary, "sarus/..", "run"],
        &[binary, "-", "run"],
        &[binary, "sarus ", "run"],
        &[binary, "SARUS", "run"],
        &[binary, "xsarus", "run"],
        &[binary, "sarus", "images"],
        &[binary, "/nonsense/sarus", "images"],
        &[binary, "../../sarus", "images"],
        &[binary, "mpi_hook", "run", IMAGE, "true"],
    ] {
        let mut command = installation.as_user(alice, &exec, args);
        command.arg0("exec");
        assert_powerless(&status_at_first_word(command, Stdio::null()), alice, &args.join(" "));
    }
}

#[test]
fn only_the_installed_binary_is_trusted() {
    let installation = with_busybox();
    let alice = &installation.alice;
    let installed = installation.prefix().join("bin/sarusbox");
    let fake = installation.path("home/alice/fake");
    fs::create_dir_all(fake.join("bin")).unwrap();
    fs::create_dir_all(fake.join("etc")).unwrap();
    let config = fs::read_to_string(installation.config_file()).unwrap();
    fs::write(fake.join("etc/sarus.json"), config).unwrap();
    Output::of(Command::new("chown").arg("-R").arg(alice.uid.to_string()).arg(&fake)).succeeds();
    let run = |program: &str| {
        let args = ["run", IMAGE, "true"];
        Output::of(&mut installation.as_user(alice, fake.join("bin").join(program), args))
    };
    let copy = fake.join("bin/sarus");
    Output::of(&mut installation.as_user(alice, "cp", [installed.as_path(), &copy])).succeeds();
    assert!(run("sarus").fails(125).contains("not installed set-user-id root"));
    // What a user may make where fs.protected_hardlinks is off.
    fs::remove_file(&copy).unwrap();
    fs::hard_link(&installed, &copy).unwrap();
    let text = run("sarus").fails(125);
    assert!(text.contains("cannot trust") && text.contains("fake"), "{text}");
    // A link is no other installation.
    fs::remove_file(&copy).unwrap();
    symlink(&installed, &copy).unwrap();
    run("sarus").succeeds();
}

/// A stand-in for the OCI runtime: it writes down how it was executed.
fn with_recorder() -> Installation {
    let installation = with_busybox();
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
    // Above stderr: the one for PMI, and the caller's streams for the program.
    for (pmi, expected) in [
        ("7", 4),
        ("3", 4),
        ("9", 4),
        ("10", 3),
        ("0", 3),
        ("2", 3),
        ("-1", 3),
        ("1000", 3),
        ("99999999999999999999", 3),
        ("7x", 3),
        ("", 3),
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
        assert_eq!(fds.len(), 6, "{fds:?}");
        for number in 0..6 {
            let is_safe = |fd: &&String| fd.ends_with("/dev/null") || fd.contains("pipe:");
            let fd = fds.iter().find(|fd| fd.starts_with(&format!("{number} "))).unwrap();
            assert!(is_safe(&fd), "{closed}: {fd}");
        }
    }
}

#[test]
fn limits_and_masks_of_the_caller_end_in_an_error_or_do_no_harm() {
    for runtime in Runtime::ALL {
        let installation = with_busybox().runtime(runtime);
        let alice = &installation.alice;
        let sarus = installation.prefix().join("bin/sarus");
        for (setting, may_succeed) in [
            ("ulimit -n 4", false),
            ("ulimit -n 3", false),
            ("ulimit -f 0", false),
            ("ulimit -v 2000", false),
            ("ulimit -s 16", true),
            ("ulimit -c unlimited", true),
            ("ulimit -i 0", true),
            ("ulimit -l 0", true),
            ("umask 777", true),
        ] {
            let script = format!("{setting} && exec {} run {IMAGE} echo done", sarus.display());
            let start = Instant::now();
            let output = Output::of(&mut installation.as_user(alice, "bash", ["-c", &script]));
            let succeeded = output.status == 0 && output.stdout == "done\n";
            let failed = output.status >= 125 && output.stdout.is_empty();
            assert!(failed || (may_succeed && succeeded), "{runtime:?}: {setting}: {output}");
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

#[test]
fn ignored_and_blocked_signals_make_nobody_wait() {
    let installation = with_busybox();
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
    let installation = with_busybox();
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
        let installation = with_busybox().runtime(runtime);
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
    let installation = with_busybox();
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
