//! What runs, where, and with which environment.

use super::*;

#[test]
fn entrypoint_and_command_follow_the_manual() {
    let installation = Installation::new();
    let image = Image::busybox().entrypoint(&["/bin/echo"]).cmd(&["Hello world"]);
    installation.load(&installation.alice, &image, "echo");
    let echo = "load/library/echo";
    assert_eq!(run(&installation, &[echo]), "Hello world\n");
    assert_eq!(run(&installation, &[echo, "Foobar"]), "Foobar\n");
    let release = run(&installation, &["--entrypoint=cat", echo, "/etc/os-release"]);
    assert!(release.contains("NAME="), "{release}");
    assert_eq!(run(&installation, &["--entrypoint", echo, "echo", "-t"]), "-t\n");
    assert_eq!(run(&installation, &[echo, "--", "--help", "-t"]), "-- --help -t\n");
    let text = try_run(&installation, &["--entrypoint", echo]).fails(125);
    assert!(text.contains("no default command"), "{text}");
}

#[test]
fn who_asks_for_a_hook_that_is_not_there_is_told() {
    // One that reads its stdin: crun fails if a hook has ended before it is told of the container.
    let hook = r#"{"prestart": [{"path": "/bin/wc", "args": ["mpi_hook"]}]}"#;
    let without = Installation::with_busybox(Runtime::Crun);
    let told = |installation: &Installation, option: &str| {
        let output = try_run(installation, &[option, IMAGE, "true"]);
        let what = format!("{option} may have no effect: this site configured no ");
        let told = output.stderr.contains(&what);
        output.succeeds();
        told
    };
    assert!(told(&without, "--mpi") && told(&without, "--glibc") && !told(&without, "--init"));
    let with = without.set("OCIHooks", hook);
    assert!(!told(&with, "--mpi") && told(&with, "--glibc"));
}

#[test]
fn the_environment_is_united() {
    let installation = Installation::new().set(
        "environment",
        r#"{"set": [{"SET": "site"}], "prepend": [{"LIST": "/first"}],
            "append": [{"LIST": "/last"}], "unset": ["UNSET"]}"#,
    );
    let image = Image::busybox().env("FROM=image").env("LIST=/image").env("CUDA_VERSION=9");
    installation.load(&installation.alice, &image, "env");
    let mut command =
        installation.sarus_command(&installation.alice, &["run", "load/library/env", "env"]);
    command.env("FROM", "host").env("HOST", "a=b\nc").env("UNSET", "1").env("LD_PRELOAD", "/x");
    command.env("CUDA_VISIBLE_DEVICES", "3,1,5");
    let shown = Output::of(&mut command).succeeds();
    for line in [
        "FROM=image",
        "HOST=a=b\nc",
        "SET=site",
        "LIST=/first:/image:/last",
        "LD_PRELOAD=/x",
        "CUDA_VISIBLE_DEVICES=1,0,2",
        "NVIDIA_VISIBLE_DEVICES=3,1,5",
        "NVIDIA_DRIVER_CAPABILITIES=all",
    ] {
        assert!(shown.contains(&format!("{line}\n")), "{line} is missing in {shown}");
    }
    assert!(!shown.contains("UNSET="), "{shown}");
}

#[test]
fn the_working_directory_is_created() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let script = "pwd; touch here; stat -c %u .";
        let expected = |path: &str| format!("{path}\n{}\n", installation.alice.uid);
        let shown = run(&installation, &["-w", "/new/deep", IMAGE, "sh", "-c", script]);
        assert_eq!(shown, expected("/new/deep"));
        assert_eq!(run(&installation, &[IMAGE, "pwd"]), "/\n");
        let text = try_run(&installation, &["--workdir=relative", IMAGE, "pwd"]).fails(125);
        assert!(text.contains("'relative' is invalid, it needs to be an absolute path"), "{text}");
    }
}

#[test]
fn the_image_says_where_the_program_starts() {
    let installation = Installation::new();
    installation.load(&installation.alice, &Image::busybox().working_dir("/usr/src"), "dir");
    assert_eq!(run(&installation, &["load/library/dir", "pwd"]), "/usr/src\n");
    assert_eq!(run(&installation, &["-w/etc", "load/library/dir", "pwd"]), "/etc\n");
}

#[test]
fn the_help_of_a_command_is_asked_for_in_three_ways() {
    let installation = Installation::new();
    for command in ["run", "load", "images", "rmi", "version", "help"] {
        let help = |args: &[&str]| installation.sarus(&installation.alice, args).succeeds();
        let text = help(&["help", command]);
        assert!(text.starts_with(&format!("Usage: sarus {command}")), "{text}");
        assert_eq!(help(&[command, "--help"]), text);
        assert_eq!(help(&[command, "-h"]), text);
    }
}
