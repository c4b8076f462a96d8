//! The hooks serve other engines: Podman, with a hooks directory.

use crate::support::hostile::wait_until;
use crate::support::ssh::{SSHD, Site, WAIT};
use crate::support::{IMAGE, Installation, Output, Runtime, mpi};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Writes a hook file of the format 1.0.0 (oci-hooks(5)): containers with `annotation` get the hook
/// that is called by the words of `call`.
fn hook(installation: &Installation, file: &str, call: &str, annotation: &str, env: &[String]) {
    let args: Vec<_> = call.split(' ').collect();
    let directory = installation.path("hooks.d");
    fs::create_dir_all(&directory).unwrap();
    let path = installation.prefix().join("bin").join(args[0]);
    let when = match annotation {
        "" => serde_json::json!({"always": true}),
        name => {
            serde_json::json!({"annotations": {format!("^{}$", name.replace('.', "\\.")): "^true$"}})
        }
    };
    let text = serde_json::json!({
        "version": "1.0.0",
        "hook": {"path": path, "args": args, "env": env},
        "when": when,
        "stages": ["prestart"],
    });
    fs::write(directory.join(file), text.to_string()).unwrap();
}

/// What runs `args` by Podman and `runtime` in the root file system `rootfs`.
fn podman(
    (installation, runtime): (&Installation, Runtime),
    rootfs: &Path,
    options: &[&str],
    args: &[&str],
) -> Command {
    let store = installation.path("podman");
    // See `Installation::as_user`; and what Podman mounts goes with the namespace.
    let script = "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", "podman"]);
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.arg("--runtime").arg(runtime.path()).arg("--cgroup-manager=cgroupfs");
    command.arg("--hooks-dir").arg(installation.path("hooks.d"));
    command.args(["run", "--rm", "--ipc=host"]);
    // runc insists on cgroups of its own, and crun does not know the old ones well.
    if runtime == Runtime::Crun {
        command.arg("--cgroups=disabled");
    }
    command.args(["--ulimit=nofile=20000:20000", "--ulimit=nproc=10000:10000"]);
    command.args(options).arg("--rootfs").arg(rootfs).args(args);
    command
}

#[test]
fn podman_has_its_containers_served() {
    let installation = Installation::new();
    let settings = mpi::settings();
    let stamp = |message: &str| [format!("TIMESTAMP_HOOK_MESSAGE={message}")];
    hook(&installation, "01.json", "timestamp_hook", "", &stamp("first"));
    hook(
        &installation,
        "02.json",
        "glibc_hook",
        "com.hooks.glibc.enabled",
        &[mpi::glibc_libraries()],
    );
    hook(&installation, "03.json", "mpi_hook", "com.hooks.mpi.enabled", &settings);
    hook(&installation, "04.json", "timestamp_hook", "", &stamp("last"));
    let run = |runtime, root: &Path, options: &[&str]| {
        let options = [&["--network=none"], options].concat();
        Output::of(&mut podman((&installation, runtime), root, &options, &["/mpi"]))
    };
    for runtime in Runtime::ALL {
        let root = mpi::copy(&installation, &mpi::rootfs("bullseye"), &format!("{runtime:?}"));
        let without = run(runtime, &root, &[]);
        assert!(without.clone().succeeds().contains("3.4.1"), "{without}");
        let log = installation.path("tmp/times");
        let alice = &installation.alice;
        let user = format!("--user={}:{}", alice.uid, alice.gid);
        let env = format!("--env=TIMESTAMP_HOOK_LOGFILE={}", log.display());
        let glibc = "--annotation=com.hooks.glibc.enabled=true";
        let mpi = "--annotation=com.hooks.mpi.enabled=true";
        let with = run(runtime, &root, &[&user, &env, glibc, mpi]);
        let text = with.clone().succeeds();
        assert!(text.contains("4.0.2") && text.contains("glibc 2.36"), "{with}");
        let times = fs::read_to_string(&log).unwrap();
        assert!(times.contains("hook: first\n") && times.ends_with("hook: last\n"), "{times}");
        assert_eq!(fs::metadata(&log).unwrap().uid(), alice.uid);
        fs::remove_file(&log).unwrap();
        // Without the host's glibc it fails before anything is mounted, and says why: runc shows it,
        // crun puts it where it is told to.
        let errors = installation.path("tmp/errors");
        let stderr = format!("--annotation=run.oci.hooks.stderr={}", errors.display());
        let only = run(runtime, &root, &[mpi, &stderr]);
        assert!(only.status != 0, "{only}");
        let crun = || fs::read_to_string(errors).unwrap();
        let text = if runtime == Runtime::Crun { crun() } else { only.stderr };
        assert!(text.contains("needs GLIBC_2."), "{text}");
    }
}

#[test]
fn podmans_containers_and_the_engines_log_in_to_each_other() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let (installation, network) = (&site.installation, &site.network);
        let ssh = "com.hooks.ssh.enabled";
        hook(installation, "01.json", "ssh_hook start-sshd", ssh, &installation.ssh_settings());
        let alice = &installation.alice;
        let root = installation.rootfs("podman-root");
        fs::copy(installation.prefix().join("etc/passwd"), root.join("etc/passwd")).unwrap();
        let user = format!("--user={}:{}", alice.uid, alice.gid);
        let ask = format!("--annotation={ssh}=true");
        let errors = installation.path("tmp/errors");
        let stderr = format!("--annotation=run.oci.hooks.stderr={}", errors.display());
        let command = |options: &[&str], script: &str| {
            let options = [&["--network=host", &ask, &stderr], options].concat();
            let args = ["sh", "-c", script];
            let mut command = podman((installation, runtime), &root, &options, &args);
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            network.on(1, &command)
        };
        let blue = site.start_command(1, command(&[&user], &format!("{SSHD}{WAIT}")));
        let output = site.run(0, &[IMAGE, "ssh", "blue", "hostname; id -u; ssh red hostname"]);
        let expected = format!("blue\n{}\nred\n", alice.uid);
        assert_eq!(output.clone().succeeds(), expected, "{runtime:?} {output}");
        blue.end("TERM");
        // Podman's containers are root's unless told otherwise.
        let output = Output::of(&mut command(&[], "true"));
        assert!(output.status != 0, "{output}");
        let said = fs::read_to_string(&errors).unwrap_or_default() + &output.stderr;
        assert!(said.contains("cannot start sshd for root"), "{said}");
        wait_until("the end of all", || network.processes(1).is_empty());
    }
}
