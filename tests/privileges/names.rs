//! Which names and arguments keep root: those of `sarus run` and no others.

use super::*;

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
        "sarus check",
        "sarus check --json",
        "sarus check --registry=127.0.0.1:1",
        "sarus --debug check",
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
        "confine_hook",
        "confine_hook /",
        "confine_hook /nonsense x",
        "sarusbox confine_hook /tmp",
        "launch --socket=3 --directory=/nonsense -- true",
        "launch --socket=3 --streams=4 --sshd -- true",
        "launch --socket=-1 -- true",
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
    let installation = Installation::with_busybox(Runtime::Runc);
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
    let installation = Installation::with_busybox(Runtime::Runc);
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
