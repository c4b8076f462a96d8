use super::oci_spec::Additions;
use super::*;
use crate::site::config::{Hook, SiteMount};
use miniserde::json::Value;
use rustix::process::{Gid, Uid};
use std::path::Path;

fn options() -> Options {
    Options {
        entrypoint: Entrypoint::Image,
        mounts: Vec::new(),
        workdir: None,
        tty: false,
        init: false,
        pid: None,
        mpi: false,
        glibc: false,
        ssh: false,
        args: vec!["sh".into()],
        log_level: Level::Warn,
        warnings: Vec::new(),
    }
}

fn caller() -> Caller {
    let groups = vec![Gid::from_raw(7)];
    Caller {
        user: User { uid: Uid::from_raw(1000), gid: Gid::from_raw(100), groups },
        environment: vec![("A".into(), "1".into())],
        umask: 0o27,
        limits: ",".repeat(37).parse().unwrap(),
        descriptors: Descriptors { has_pmi: false },
        terminal: None,
        pid: PidNamespace::Private,
        proc_options: Vec::new(),
        cgroup: Cgroup::default(),
        group_database: "root:x:0:\ntty:x:5:\n".into(),
        warnings: Vec::new(),
    }
}

fn config() -> Config {
    let mount =
        |path: &str| SiteMount { source: path.into(), destination: path.into(), readonly: true };
    Config {
        rootfs_folder: "rootfs".into(),
        prefix_dir: "/opt/sarus".into(),
        site_mounts: vec![mount("/site")],
        ..Config::default()
    }
}

fn plan(options: Options, caller: Caller) -> Plan {
    let runtime = OciRuntime::parse(Path::new("/usr/bin/crun"), "crun version 1.8.1");
    Plan::new(&config(), &Metadata::default(), options, caller, Some(runtime)).unwrap()
}

fn render(plan: &Plan) -> String {
    let additions = Additions {
        launcher: vec!["/dev/launch".into()],
        hooks: Value::Object(miniserde::json::Object::new()),
        annotations: plan.annotations(ProcessId::new(1).unwrap()),
        cgroup: None,
        seccomp: None,
    };
    oci_spec::render(plan, additions)
}

#[test]
fn the_plan_has_all_that_an_executor_needs() {
    let request = MountRequest::parse("type=bind,src=/u,dst=/u", &mut Vec::new()).unwrap();
    let plan = plan(Options { mounts: vec![request], init: true, ..options() }, caller());
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert_eq!(plan.process.args, [INIT, "--", "sh"]);
    assert_eq!((plan.process.umask, plan.process.directory.as_str()), (0o27, "/"));
    let mounts = plan.mounts.iter().map(|mount| (mount.by_user, mount.request.readonly));
    assert_eq!(mounts.collect::<Vec<_>>(), [(false, true), (true, false)]);
    let destinations: Vec<_> = plan.system_mounts.iter().map(|mount| mount.destination).collect();
    assert_eq!(destinations, ["/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"]);
    assert!(plan.system_mounts.iter().all(|mount| mount.restrictions.noexec));
    assert_eq!(plan.etc_files[3].source, Path::new("/opt/sarus/etc/passwd"));
}

#[test]
fn requests_become_annotations() {
    let without = plan(options(), caller());
    assert!(!without.starts_sshd() && without.requests.is_empty());
    let plan = plan(Options { ssh: true, log_level: Level::Info, ..options() }, caller());
    assert!(plan.starts_sshd());
    let annotations = plan.annotations(ProcessId::new(1).unwrap());
    let expected = [
        ("com.hooks.logging.level", "1"),
        ("com.hooks.logging.stderrfd", "/proc/1/fd/6"),
        ("com.hooks.logging.stdoutfd", "/proc/1/fd/5"),
        ("com.hooks.slurm-global-sync.enabled", "true"),
        ("com.hooks.ssh.enabled", "true"),
    ];
    let found: Vec<_> = annotations.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn warnings_are_part_of_the_plan() {
    let glibc = Options { glibc: true, warnings: vec!["option".into()], ..options() };
    let caller_with = || Caller { warnings: vec!["caller".into()], ..caller() };
    let warnings = plan(glibc, caller_with()).warnings;
    assert_eq!(warnings[..2], ["option", "caller"]);
    assert!(warnings[2].starts_with("--glibc may have no effect"), "{warnings:?}");
    let mpi = plan(Options { mpi: true, glibc: true, ..options() }, caller()).warnings;
    assert!(mpi.len() == 1 && mpi[0].starts_with("--mpi"), "{mpi:?}");
    let config = Config {
        hooks: crate::site::config::Hooks {
            list: vec![Hook { path: "/x/mpi_hook".into(), ..Hook::default() }],
        },
        ..config()
    };
    assert!(missing_hooks(&config, &Options { mpi: true, glibc: true, ..options() }).is_empty());
    let no_tty = plan(options(), Caller { group_database: String::new(), ..caller() });
    assert!(no_tty.warnings[0].contains("no group 'tty'"));
}

#[test]
fn a_container_is_filtered_unless_an_oci_runtime_executes_it_or_the_site_chooses() {
    let crun = || Some(OciRuntime::parse(Path::new("/usr/bin/crun"), "crun version 1.8.1"));
    let (default, unconfined) = (SeccompProfile::Default, SeccompProfile::Unconfined);
    for (choice, runtime, expected) in [
        (None, None, &default),
        (None, crun(), &unconfined),
        (Some(default.clone()), crun(), &default),
        (Some(unconfined.clone()), None, &unconfined),
    ] {
        let config = Config { seccomp_profile: choice, ..config() };
        let plan = Plan::new(&config, &Metadata::default(), options(), caller(), runtime).unwrap();
        assert_eq!(plan.site.seccomp_profile, *expected);
    }
}

#[test]
fn config_json_says_the_same() {
    let devices = Some(devices::parse("c 1:3 rwm"));
    let cgroup = Cgroup { cpus: Some("0-3".into()), devices };
    let proc_options = vec!["hidepid=2".into()];
    let terminal = Some(WindowSize { rows: 24, columns: 80 });
    let text = render(&plan(options(), Caller { cgroup, proc_options, terminal, ..caller() }));
    for part in [
        r#""args":["/dev/launch","sh"]"#,
        r#""env":["A=1"]"#,
        r#""consoleSize":{"height":24,"width":80}"#,
        r#""user":{"uid":1000,"gid":100,"umask":23,"additionalGids":[7]}"#,
        r#""capabilities":{"bounding":[],"effective":[],"inheritable":[],"permitted":[],"ambient":[]}"#,
        r#""noNewPrivileges":true"#,
        r#""options":["nosuid","nodev","noexec","hidepid=2"]"#,
        r#""options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]"#,
        r#""options":["nosuid","nodev","noexec","rbind","slave"]"#,
        r#""options":["nosuid","nodev","noexec","ro"]"#,
        r#""namespaces":[{"type":"pid"},{"type":"mount"}]"#,
        r#""cpus":"0-3""#,
        r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}"#,
        r#""/proc/kcore""#,
        r#""/proc/sysrq-trigger""#,
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("null"), "{text}");
    let text = render(&plan(options(), Caller { pid: PidNamespace::Host, ..caller() }));
    assert!(text.contains(r#""namespaces":[{"type":"mount"}]"#), "{text}");
    assert!(text.contains(r#""resources":{}"#), "{text}");
}
