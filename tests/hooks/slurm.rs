//! `slurm_global_sync_hook` under a real srun, on two nodes.

use crate::support::bundle::Bundle;
use crate::support::slurm::Slurm;
use crate::support::{Installation, Output, Runtime};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

const ENABLED: &str = "com.hooks.slurm-global-sync.enabled";

/// Writes a script for srun, which runs a container for its task: three hooks, of which the one in
/// the middle waits for the others, and a program that tells the rank.
fn job(installation: &Installation, runtime: Runtime, before: &str, timeout: &str) -> String {
    let alice = &installation.alice;
    let bin = installation.prefix().join("bin");
    let sync = [
        format!("HOOK_BASE_DIR={}", installation.path("home").display()),
        format!("PASSWD_FILE={}", installation.prefix().join("etc/passwd").display()),
        timeout.to_owned(),
    ];
    let stamp = |message: &str| [format!("TIMESTAMP_HOOK_MESSAGE={message}")];
    let place = installation.path("bundle");
    let mut bundle = Bundle::busybox(place.clone(), alice, &["sh", "-c", "echo started $RANK"])
        .annotation(ENABLED, "true")
        .env(&format!("TIMESTAMP_HOOK_LOGFILE={}", installation.path("tmp/times").display()))
        .env("SLURM_JOB_ID=@SLURM_JOB_ID@")
        .env("SLURM_STEP_ID=@SLURM_STEP_ID@")
        .env("SLURM_NTASKS=@SLURM_NTASKS@")
        .env("SLURM_PROCID=@SLURM_PROCID@")
        .env("RANK=@SLURM_PROCID@")
        .prestart(&bin.join("timestamp_hook"), &stamp("exists"))
        .prestart(&bin.join("slurm_global_sync_hook"), &sync)
        .prestart(&bin.join("timestamp_hook"), &stamp("starts"));
    // The root is shared, and a runtime makes links in /dev.
    let dev = serde_json::json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"});
    bundle.config["mounts"].as_array_mut().unwrap().push(dev);
    bundle.config["root"]["path"] = place.join("rootfs").to_str().unwrap().into();
    let template = place.join("template.json");
    fs::write(&template, bundle.config.to_string()).unwrap();
    let script = installation.path("job.sh");
    let text = format!(
        r#"#!/bin/sh
        {before}
        bundle={place}/$SLURM_JOB_ID-$SLURM_STEP_ID-$SLURM_PROCID
        mkdir $bundle
        sed -e s/@SLURM_JOB_ID@/$SLURM_JOB_ID/g \
            -e s/SLURM_STEP_ID=@SLURM_STEP_ID@/${{SLURM_STEP_ID:+SLURM_STEP_}}ID=$SLURM_STEP_ID/ \
            -e s/@SLURM_NTASKS@/$SLURM_NTASKS/g -e s/@SLURM_PROCID@/$SLURM_PROCID/g \
            {template} >$bundle/config.json
        exec unshare --mount --propagation private sh -c '
            umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"' sh \
            {runtime} run --bundle $bundle sync-$(basename $(dirname {place}))-$(basename $bundle)
        "#,
        place = place.display(),
        template = template.display(),
        runtime = runtime.path().display(),
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    script.to_str().unwrap().to_owned()
}

/// Runs the script as 16 tasks on two nodes.
fn srun(slurm: &Slurm, script: &str) -> Output {
    slurm.srun(&["-N2", "-n16", "--mpi=none", script])
}

/// The times of the lines of the log that end with `message`.
fn times(installation: &Installation, message: &str) -> Vec<f64> {
    let text = fs::read_to_string(installation.path("tmp/times")).unwrap();
    let lines = text.lines().filter(|line| line.ends_with(message));
    lines.map(|line| line[1..].split_once(']').unwrap().0.parse().unwrap()).collect()
}

#[test]
fn no_task_starts_before_the_last_container_exists() {
    let installation = Installation::new();
    let slurm = Slurm::new(installation.path("slurm"));
    let late = "[ $SLURM_PROCID != 11 ] || sleep 1";
    for runtime in Runtime::ALL {
        let script = job(&installation, runtime, late, "SYNC_TIMEOUT=60");
        let mut started: Vec<_> =
            srun(&slurm, &script).succeeds().lines().map(str::to_owned).collect();
        started.sort();
        let mut expected: Vec<_> = (0..16).map(|rank| format!("started {rank}")).collect();
        expected.sort();
        assert_eq!(started, expected);
        let (exist, start) = (times(&installation, "exists"), times(&installation, "starts"));
        assert_eq!((exist.len(), start.len()), (16, 16));
        let last = exist.iter().copied().fold(0.0, f64::max);
        let first = start.iter().copied().fold(f64::MAX, f64::min);
        assert!(last <= first, "{runtime:?}: {last} {first}");
        let place = installation.path("home/alice/.oci-hooks/slurm-global-sync");
        let status = fs::metadata(&place).unwrap();
        assert_eq!((status.uid(), status.mode() & 0o777), (installation.alice.uid, 0o700));
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        fs::remove_file(installation.path("tmp/times")).unwrap();
        fs::remove_dir_all(installation.path("bundle")).unwrap();
    }
}

#[test]
fn a_killed_task_ends_the_others_and_is_named() {
    for runtime in Runtime::ALL {
        let installation = Installation::new();
        let slurm = Slurm::new(installation.path("slurm"));
        let dies = "[ $SLURM_PROCID != 5 ] || kill -9 $$";
        let script = job(&installation, runtime, dies, "SYNC_TIMEOUT=3");
        let begin = Instant::now();
        let output = srun(&slurm, &script);
        assert!(begin.elapsed() < Duration::from_secs(15));
        assert!(output.status != 0 && output.stdout.is_empty(), "{output}");
        let error = "after 3 s these ranks have not arrived: 5";
        let named = output.stderr.lines().filter(|line| line.starts_with("sarus:"));
        let named: Vec<_> = named.collect();
        assert!(named.len() == 15 && named.iter().all(|line| line.ends_with(error)), "{output}");
        let place = installation.path("home/alice/.oci-hooks/slurm-global-sync");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}

#[test]
fn who_is_late_is_named_once() {
    let installation = Installation::new();
    let slurm = Slurm::new(installation.path("slurm"));
    for late in ["0", "11"] {
        let before = format!("[ $SLURM_PROCID != {late} ] || sleep 12");
        let script = job(&installation, Runtime::Runc, &before, "SYNC_TIMEOUT=60");
        let output = srun(&slurm, &script);
        let lines: Vec<_> = output.stderr.lines().filter(|line| line.contains("WARN")).collect();
        let end = format!("after 10 s these ranks have not arrived: {late}");
        assert!(lines.len() == 1 && lines[0].ends_with(&end), "{output}");
        assert_eq!(output.succeeds().matches("started").count(), 16);
        fs::remove_dir_all(installation.path("bundle")).unwrap();
    }
}

#[test]
fn a_batch_script_is_no_step() {
    let installation = Installation::new();
    let slurm = Slurm::new(installation.path("slurm"));
    let log = installation.path("tmp/log");
    for step in ["", "SLURM_STEP_ID=4294967291"] {
        let script = job(&installation, Runtime::Runc, step, "SYNC_TIMEOUT=2");
        let output = format!("--output={}", log.display());
        let options = ["--wait", "-N2", "-n4", &output, &script];
        let done = Output::of(&mut slurm.command("sbatch", &options));
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(done.status == 0 && text == "started 0\n", "{done}{text}");
        fs::remove_dir_all(installation.path("bundle")).unwrap();
    }
}

#[test]
fn outside_of_slurm_nothing_happens() {
    let installation = Installation::new();
    let hook = installation.prefix().join("bin/slurm_global_sync_hook");
    let bundle = Bundle::busybox(installation.path("b"), &installation.alice, &["echo", "ran"])
        .prestart(&hook, &[]);
    for runtime in Runtime::ALL {
        assert_eq!(bundle.run(runtime).succeeds(), "ran\n");
    }
    let bundle = bundle.annotation(ENABLED, "true");
    for runtime in Runtime::ALL {
        assert_eq!(bundle.run(runtime).succeeds(), "ran\n");
    }
    let bundle = bundle.env("SLURM_JOB_ID=1").env("SLURM_NTASKS=1").env("SLURM_PROCID=0");
    for runtime in Runtime::ALL {
        assert_eq!(bundle.run(runtime).succeeds(), "ran\n");
    }
    let bundle = bundle.env("SLURM_STEP_ID=0");
    for runtime in Runtime::ALL {
        let error = bundle.run(runtime).fails(if runtime == Runtime::Crun { 255 } else { 1 });
        assert!(error.contains("HOOK_BASE_DIR is not set to an absolute path"), "{error}");
    }
}
