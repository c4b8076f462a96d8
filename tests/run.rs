//! `sarus run` on real images with real runtimes, as an ordinary user.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use common::{Image, Installation, Output, Runtime, processes_of};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An installation with a busybox image that alice calls `bb`.
fn with_busybox(runtime: Runtime) -> Installation {
    let installation = Installation::new().runtime(runtime);
    installation.load(&installation.alice, &Image::busybox(), "bb");
    installation
}

/// Runs `args` in the image as alice and gives stdout.
fn run(installation: &Installation, args: &[&str]) -> String {
    try_run(installation, args).succeeds()
}

fn try_run(installation: &Installation, args: &[&str]) -> Output {
    installation.sarus(&installation.alice, &[&["run"], args].concat())
}

const IMAGE: &str = "load/library/bb";

#[test]
fn the_program_is_the_user_and_nothing_more() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        let status = run(&installation, &[IMAGE, "cat", "/proc/self/status"]);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let uid = alice.uid;
        assert_eq!(field("Uid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(field("Gid:"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(field("Groups:"), format!("{} {}", alice.groups[0], alice.groups[1]));
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Pid:"), "1");
    }
}

#[test]
fn the_root_file_system_is_writable_for_the_user_and_gone_afterwards() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let script = "echo one > /new && mkdir /etc/dir && rm /etc/os-release && cat /new";
        assert_eq!(run(&installation, &[IMAGE, "sh", "-c", script]), "one\n");
        let shown = run(&installation, &[IMAGE, "sh", "-c", "ls /new; ls /etc/os-release; true"]);
        assert_eq!(shown, "/etc/os-release\n");
        let place = installation.prefix().join("var/OCIBundleDir");
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    }
}

#[test]
fn the_exit_status_is_the_programs_own() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        for (args, status) in [
            (&["sh", "-c", "exit 42"][..], 42),
            (&["false"], 1),
            (&["no-such-program"], 127),
            (&["/no/such/program"], 127),
            (&["/etc/os-release"], 126),
        ] {
            try_run(&installation, &[&[IMAGE], args].concat()).fails(status);
        }
        // Process 1 is safe from its own signals; with --init the program is not process 1.
        let kill = ["--init", IMAGE, "sh", "-c", "kill -9 $$"];
        try_run(&installation, &kill).fails(128 + 9);
        try_run(&installation, &["no/such/image", "true"]).fails(125);
        try_run(&installation, &["--no-such-option", IMAGE, "true"]).fails(125);
    }
}

#[test]
fn stdin_stdout_and_stderr_are_the_callers_own() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
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
        let installation = with_busybox(runtime);
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
        let installation = with_busybox(runtime);
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
fn the_umask_is_the_callers() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let script = format!("umask 027; exec {} run {IMAGE} sh -c umask", sarus.display());
        let mut command = installation.as_user(&installation.alice, "sh", ["-c", &script]);
        assert_eq!(Output::of(&mut command).succeeds(), "0027\n");
    }
}

#[test]
fn the_processors_are_the_callers() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let sarus = installation.prefix().join("bin/sarus");
        let args = ["-c", "1", sarus.to_str().unwrap(), "run", IMAGE, "cat", "/proc/self/status"];
        let mut command = installation.as_user(&installation.alice, "taskset", args);
        let status = Output::of(&mut command).succeeds();
        assert!(status.contains("Cpus_allowed_list:\t1\n"), "{status}");
    }
}

#[test]
fn an_open_pmi_descriptor_is_inherited_and_no_other() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
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
fn the_files_of_etc_are_the_hosts_and_the_sites() {
    let installation = with_busybox(Runtime::Runc);
    let etc = installation.prefix().join("etc");
    for (name, source) in [
        ("hosts", "/etc/hosts".into()),
        ("resolv.conf", "/etc/resolv.conf".into()),
        ("passwd", etc.join("passwd")),
        ("group", etc.join("group")),
        ("nsswitch.conf", etc.join("container/nsswitch.conf")),
    ] {
        let shown = run(&installation, &[IMAGE, "cat", &format!("/etc/{name}")]);
        assert_eq!(shown, fs::read_to_string(source).unwrap_or_default(), "{name}");
    }
    assert_eq!(run(&installation, &[IMAGE, "whoami"]), "alice\n");
}

#[test]
fn directories_and_files_are_mounted() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let data = installation.path("home/alice/data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "content").unwrap();
        std::os::unix::fs::chown(&data, Some(installation.alice.uid), None).unwrap();
        let mount = |destination: &str, more: &str| {
            format!("--mount=type=bind,source={},destination={destination}{more}", data.display())
        };
        let shown = run(&installation, &[&mount("/a/b", ""), IMAGE, "cat", "/a/b/file"]);
        assert_eq!(shown, "content");
        run(&installation, &[&mount("/etc/x", ""), IMAGE, "touch", "/etc/x/written"]);
        assert_eq!(fs::metadata(data.join("written")).unwrap().uid(), installation.alice.uid);
        let readonly = mount("/x", ",readonly");
        let text = try_run(&installation, &[&readonly, IMAGE, "touch", "/x/y"]).fails(1);
        assert!(text.contains("Read-only file system"), "{text}");
        let file = format!("--mount=dst=/over/file,src={}/file,type=bind", data.display());
        assert_eq!(run(&installation, &[&file, IMAGE, "cat", "/over/file"]), "content");
    }
}

#[test]
fn site_mounts_are_there_and_the_site_can_forbid_destinations() {
    let installation = Installation::new();
    let shared = installation.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "site").unwrap();
    let site = format!(
        r#"[{{"type": "bind", "source": "{}", "destination": "/scratch", "flags": {{"readonly": ""}}}}]"#,
        shared.display()
    );
    let installation = installation.set("siteMounts", &site).set(
        "userMounts",
        r#"{"notAllowedPrefixesOfPath": ["/etc", "/var"], "notAllowedPaths": ["/opt"]}"#,
    );
    installation.load(&installation.alice, &Image::busybox(), "bb");
    assert_eq!(run(&installation, &[IMAGE, "cat", "/scratch/file"]), "site");
    try_run(&installation, &[IMAGE, "touch", "/scratch/new"]).fails(1);
    let mount = |destination| format!("--mount=type=bind,src=/usr,dst={destination}");
    for forbidden in ["/etc", "/etc/deep/er", "//etc/./x", "/opt", "/dev", "/proc/1", "/"] {
        let text = try_run(&installation, &[&mount(forbidden), IMAGE, "true"]).fails(125);
        assert!(text.contains("cannot mount /usr on"), "{text}");
    }
    for allowed in ["/etcetera", "/opt/below", "/scratch"] {
        run(&installation, &[&mount(allowed), IMAGE, "ls", &format!("{allowed}/bin")]);
    }
}

#[test]
fn an_init_process_reaps_and_forwards() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let processes = run(&installation, &["--init", IMAGE, "ps", "-o", "pid,comm"]);
        assert!(processes.contains("    1 init\n"), "{processes}");
        let script = "trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let mut child = installation
            .sarus_command(&installation.alice, &["run", "--init", IMAGE, "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        sleep(Duration::from_secs(1));
        // As the user, who must be able to signal the set-user-id engine.
        let kill = ["-TERM", &child.id().to_string()].map(str::to_owned);
        Output::of(&mut installation.as_user(&installation.alice, "kill", kill)).succeeds();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\ngot TERM\n");
        assert_eq!(output.status.code(), Some(5));
        child = installation.sarus_command(&installation.alice, &["images"]).spawn().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_terminal_is_a_terminal() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
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

/// Waits until nothing of the container is left, and says what is.
fn assert_nothing_is_left(installation: &Installation, runtime: Runtime) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let processes = processes_of(installation.alice.uid);
        let file = installation.repository(&installation.alice);
        let loops: Vec<_> =
            common::loop_devices().into_iter().filter(|(_, of)| of.starts_with(&file)).collect();
        let groups = cgroups();
        if processes.is_empty() && loops.is_empty() && groups.is_empty() {
            return;
        }
        let left = format!("{runtime:?}: {processes:?} {loops:?} {groups:?}");
        assert!(Instant::now() < deadline, "still there: {left}");
        sleep(Duration::from_millis(50));
    }
}

/// The cgroups of containers that are on this machine now and hold no process.
fn cgroups() -> Vec<String> {
    let mut command = std::process::Command::new("find");
    let args = ["/sys/fs/cgroup", "-name", "container-????????????????", "-type", "d"];
    let found = command.args(args).output().unwrap();
    String::from_utf8_lossy(&found.stdout)
        .lines()
        .filter(|path| {
            fs::read_to_string(format!("{path}/cgroup.procs")).is_ok_and(|text| text.is_empty())
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_survives_a_kill_of_any_process() {
    #[derive(Debug, Clone, Copy)]
    enum Victim {
        Engine,
        Runtime,
        Program,
    }
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        for victim in [Victim::Engine, Victim::Runtime, Victim::Program] {
            let mut engine = installation
                .sarus_command(&installation.alice, &["run", IMAGE, "sleep", "1000"])
                .spawn()
                .unwrap();
            let program = wait_for_program(&installation, "sleep 1000");
            let pid = match victim {
                Victim::Engine => engine.id(),
                Victim::Runtime => parent_of(program),
                Victim::Program => program,
            };
            common::Output::of(std::process::Command::new("kill").args(["-9", &pid.to_string()]))
                .succeeds();
            let status = engine.wait().unwrap();
            assert!(!status.success(), "{victim:?}");
            assert_eq!(status.signal().is_some(), matches!(victim, Victim::Engine), "{victim:?}");
            assert_nothing_is_left(&installation, runtime);
        }
    }
}

fn wait_for_program(installation: &Installation, line: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = processes_of(installation.alice.uid);
        if let Some((pid, _)) = found.iter().find(|(_, command)| command == line) {
            return *pid;
        }
        assert!(Instant::now() < deadline, "{line} does not run: {found:?}");
        sleep(Duration::from_millis(20));
    }
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok()).unwrap()
}

#[test]
fn containers_of_one_image_share_one_loop_device() {
    let installation = with_busybox(Runtime::Crun);
    let ranks: Vec<_> = (0..16)
        .map(|_| {
            let args = ["run", IMAGE, "sleep", "4"];
            installation.sarus_command(&installation.alice, &args).spawn().unwrap()
        })
        .collect();
    let image = installation.repository(&installation.alice).join("images");
    let deadline = Instant::now() + Duration::from_secs(20);
    let running = || {
        let all = processes_of(installation.alice.uid);
        all.iter().filter(|(_, command)| command == "sleep 4").count()
    };
    while running() < 16 {
        assert!(Instant::now() < deadline, "only {} run", running());
        sleep(Duration::from_millis(20));
    }
    let loops = common::loop_devices().into_iter().filter(|(_, file)| file.starts_with(&image));
    assert_eq!(loops.count(), 1);
    for mut rank in ranks {
        assert!(rank.wait().unwrap().success());
    }
    assert_nothing_is_left(&installation, Runtime::Crun);
}

#[test]
fn ramfs_serves_as_well() {
    let installation = with_busybox(Runtime::Runc).set("ramFilesystemType", "\"ramfs\"");
    assert_eq!(run(&installation, &[IMAGE, "sh", "-c", "echo x > /y; cat /y"]), "x\n");
}

#[test]
fn the_engine_needs_to_be_setuid_and_says_so() {
    let installation = with_busybox(Runtime::Runc);
    let binary = installation.prefix().join("bin/sarusbox");
    fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
    let text = try_run(&installation, &[IMAGE, "true"]).fails(125);
    assert!(text.contains("not installed set-user-id root"), "{text}");
    // What needs no privilege works without.
    assert!(installation.sarus(&installation.alice, &["images"]).succeeds().contains(IMAGE));
}

#[test]
fn a_hundred_mounts_leave_nothing_behind_either() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let mounts: Vec<_> =
            (0..100).map(|n| format!("--mount=type=bind,source=/usr,destination=/m/{n}")).collect();
        let mut args: Vec<_> = mounts.iter().map(String::as_str).collect();
        args.extend([IMAGE, "ls", "/m/99/bin"]);
        assert!(!run(&installation, &args).is_empty());
        assert_nothing_is_left(&installation, runtime);
    }
}

#[test]
fn a_repository_with_devices_for_files_is_refused_at_once() {
    let installation = with_busybox(Runtime::Runc);
    let repository = installation.repository(&installation.alice);
    for file in ["images/load/library/bb/latest.meta", "metadata.json"] {
        let file = repository.join(file);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        let text = try_run(&installation, &[IMAGE, "true"]).fails(125);
        assert!(text.contains("cannot read") || text.contains("not available"), "{text}");
    }
}
