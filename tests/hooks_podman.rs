//! The hooks serve other engines: Podman, with a hooks directory.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use common::{Installation, Output, Runtime, mpi};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Writes a hook file of the format 1.0.0 (oci-hooks(5)): containers with `annotation` get it.
fn hook(installation: &Installation, file: &str, name: &str, annotation: &str, env: &[String]) {
    let directory = installation.path("hooks.d");
    fs::create_dir_all(&directory).unwrap();
    let path = installation.prefix().join("bin").join(name);
    let when = match annotation {
        "" => serde_json::json!({"always": true}),
        name => {
            serde_json::json!({"annotations": {format!("^{}$", name.replace('.', "\\.")): "^true$"}})
        }
    };
    let text = serde_json::json!({
        "version": "1.0.0",
        "hook": {"path": path, "args": [name], "env": env},
        "when": when,
        "stages": ["prestart"],
    });
    fs::write(directory.join(file), text.to_string()).unwrap();
}

/// Runs `args` by Podman in the root file system `rootfs`.
fn podman(installation: &Installation, rootfs: &Path, options: &[&str], args: &[&str]) -> Output {
    let store = installation.path("podman");
    // See `Installation::as_user`; and what Podman mounts goes with the namespace.
    let script = "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", "podman"]);
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    // runc insists on cgroups of its own.
    command.arg("--runtime").arg(Runtime::Crun.path());
    command.arg("--hooks-dir").arg(installation.path("hooks.d"));
    command.args(["run", "--rm", "--network=none", "--cgroups=disabled", "--ipc=host"]);
    command.args(["--ulimit=nofile=20000:20000", "--ulimit=nproc=10000:10000"]);
    command.args(options).arg("--rootfs").arg(rootfs).args(args);
    Output::of(&mut command)
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
    let root = mpi::copy(&installation, &mpi::rootfs("bullseye"), "rootfs");
    let without = podman(&installation, &root, &[], &["/mpi"]);
    assert!(without.clone().succeeds().contains("3.4.1"), "{without}");
    let log = installation.path("tmp/times");
    let alice = &installation.alice;
    let user = format!("--user={}:{}", alice.uid, alice.gid);
    let env = format!("--env=TIMESTAMP_HOOK_LOGFILE={}", log.display());
    let glibc = "--annotation=com.hooks.glibc.enabled=true";
    let mpi = "--annotation=com.hooks.mpi.enabled=true";
    let with = podman(&installation, &root, &[&user, &env, glibc, mpi], &["/mpi"]);
    let text = with.clone().succeeds();
    assert!(text.contains("4.0.2") && text.contains("glibc 2.36"), "{with}");
    let times = fs::read_to_string(&log).unwrap();
    assert!(times.contains("hook: first\n") && times.ends_with("hook: last\n"), "{times}");
    assert_eq!(fs::metadata(&log).unwrap().uid(), alice.uid);
    // Without the host's glibc it fails before anything is mounted, and says why where crun puts it.
    let errors = installation.path("tmp/errors");
    let stderr = format!("--annotation=run.oci.hooks.stderr={}", errors.display());
    let only = podman(&installation, &root, &[mpi, &stderr], &["/mpi"]);
    assert!(only.status != 0 && only.stderr.contains("mpi_hook"), "{only}");
    let text = fs::read_to_string(errors).unwrap();
    assert!(text.contains("needs GLIBC_2."), "{text}");
}
