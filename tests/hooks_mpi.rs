//! `mpi_hook` and `glibc_hook` with real MPICH and real C libraries: images of Debian 12, with an
//! MPICH that was made older, and of Debian 11, where MPICH and the C library are older.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use common::slurm::Slurm;
use common::{Installation, Output, Runtime, mpi};
use std::fs;
use std::process::Command;

/// What the host's library says of itself.
const HOST: &str = "MPICH Version: 4.0.2";

const NEW: &str = "load/library/new";
const OLD: &str = "load/library/old";

/// Debian 12 with MPICH 4.0.0 of ABI 12.1.0, which alice calls `new`.
fn with_new(runtime: Runtime) -> Installation {
    let installation = with_hooks(Installation::new(), runtime);
    let root = mpi::copy(&installation, &mpi::rootfs("bookworm"), "root");
    mpi::renumber(&root, "12.1.0");
    mpi::load(&installation, &installation.alice, &root, "new");
    installation
}

fn with_hooks(installation: Installation, runtime: Runtime) -> Installation {
    let installation = installation.runtime(runtime);
    let hooks = mpi::hooks(&installation, false, &mpi::settings());
    installation.set("OCIHooks", &hooks)
}

fn run(installation: &Installation, args: &[&str]) -> Output {
    installation.sarus(&installation.alice, &[&["run"], args].concat())
}

#[test]
fn the_hosts_mpi_takes_the_place_of_the_images() {
    for runtime in Runtime::ALL {
        let installation = with_new(runtime);
        let without = run(&installation, &[NEW, "/mpi"]).succeeds();
        let file = format!("{}/libmpich.so.12.1.0", mpi::LIBRARIES);
        let expected = format!("rank 0 of 1 sum 0, MPICH Version: 4.0.0, {file}, glibc 2.36\n");
        assert_eq!(without.replace("      ", " ").replace("Version:  ", "Version: "), expected);
        for option in ["--mpi", "-m"] {
            let with = run(&installation, &[option, NEW, "/mpi"]).succeeds();
            assert!(with.replace("      ", " ").contains(HOST) && with.contains(&file), "{with}");
        }
        // Four processes are one world, through the library that was put in.
        let sarus = installation.prefix().join("bin/sarus");
        let args = ["-n", "4", sarus.to_str().unwrap(), "run", "--mpi", NEW, "/mpi"];
        let mut command = installation.as_user(&installation.alice, "mpiexec.mpich", args);
        assert_world(&Output::of(&mut command).succeeds());
    }
}

/// The OCI specification has it in place of `prestart`, which it calls deprecated.
#[test]
fn stage_create_runtime_serves_as_well() {
    for runtime in Runtime::ALL {
        let installation = with_new(runtime);
        let hooks = mpi::hooks(&installation, true, &mpi::settings());
        let hooks = hooks.replace("\"prestart\"", "\"createRuntime\"");
        let installation = installation.set("OCIHooks", &hooks);
        let shown = run(&installation, &["--mpi", NEW, "/mpi"]).succeeds();
        assert!(shown.contains("4.0.2"), "{shown}");
    }
}

fn assert_world(text: &str) {
    for rank in 0..4 {
        assert!(text.contains(&format!("rank {rank} of 4 sum 6")), "{text}");
    }
    assert_eq!(text.matches("4.0.2").count(), 4, "{text}");
}

#[test]
fn tasks_of_two_slurm_nodes_are_one_world() {
    for runtime in Runtime::ALL {
        let installation = with_new(runtime);
        let slurm = Slurm::new(installation.path("slurm"));
        let task = installation.sarus_command(&installation.alice, &["run", "--mpi", NEW, "/mpi"]);
        let output = Output::of(&mut slurm.step(&["-N2", "-n4", "--mpi=pmi2"], &task));
        assert_world(&output.succeeds());
    }
}

#[test]
fn an_older_image_needs_the_hosts_glibc_too() {
    for runtime in Runtime::ALL {
        let installation = Installation::new().runtime(runtime);
        let root = mpi::rootfs("bullseye");
        mpi::load(&installation, &installation.alice, &root, "old");
        let only_mpi = mpi::hooks(&installation, false, &mpi::settings());
        let both = mpi::hooks(&installation, true, &mpi::settings());
        let installation = installation.set("OCIHooks", &only_mpi);
        let text = run(&installation, &[OLD, "/mpi"]).succeeds();
        assert!(text.contains("3.4.1") && text.contains("glibc 2.31"), "{text}");
        // Nothing is mounted before it is known that it works.
        let text = run(&installation, &["--mpi", OLD, "/mpi"]).fails(125);
        let line = "sarus: cannot use the host's MPI in this container: \
                    /usr/lib/x86_64-linux-gnu/libmpich.so.12.2.2 needs GLIBC_2.";
        assert!(text.starts_with(line), "{text}");
        assert!(text.contains("which the image (glibc 2.31) does not have\nhint: "), "{text}");
        assert!(text.contains("glibc_hook"), "{text}");
        let installation = installation.set("OCIHooks", &both);
        let log = installation.path("home/alice/times");
        let args = ["run", "--mpi", OLD, "/mpi"];
        let mut command = installation.sarus_command(&installation.alice, &args);
        let output = Output::of(command.env("TIMESTAMP_HOOK_LOGFILE", &log));
        assert!(output.stderr.contains("glibc 2.31 is replaced by the host's 2.36"), "{output}");
        // How long each of them took.
        let times = fs::read_to_string(log).unwrap();
        let messages: Vec<_> = times.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(messages, ["After-runc", "After-glibc-hook", "After-MPI-hook"], "{times}");
        let text = output.succeeds();
        assert!(text.contains("4.0.2") && text.contains("glibc 2.36"), "{text}");
        let output = run(&installation, &["--glibc", OLD, "/mpi"]);
        assert!(output.stderr.contains("glibc 2.31 is replaced"), "{output}");
        assert!(
            output.stdout.contains("3.4.1") && output.stdout.contains("glibc 2.36"),
            "{output}"
        );
    }
}

#[test]
fn an_image_whose_mpi_does_not_fit_is_told_why() {
    let mut installation = with_new(Runtime::Runc);
    let root = installation.path("root");
    // The newer minor number of an image is a warning.
    mpi::renumber(&root, "12.3.0");
    mpi::load(&installation, &installation.alice, &root, "new");
    for runtime in Runtime::ALL {
        installation = with_hooks(installation, runtime);
        let output = run(&installation, &["--mpi", NEW, "/mpi"]);
        let warning = "[MPI hook] [WARN] partial ABI compatibility: ";
        assert!(output.stderr.contains(warning), "{output}");
        assert!(output.clone().succeeds().contains("4.0.2"), "{output}");
    }
    mpi::renumber(&root, "13.0.0");
    installation = is_told(
        installation,
        "libmpich.so.12.2.2 has ABI 12.2, the image's /usr/lib/x86_64-linux-gnu/libmpich.so.13.0.0",
    );
    fs::remove_file(root.join("etc/ld.so.cache")).unwrap();
    installation = is_told(installation, "the image has no /etc/ld.so.cache");
    fs::write(root.join("lib/ld-musl-x86_64.so.1"), "").unwrap();
    is_told(installation, "the image's C library is musl");
}

/// Runs what lies in `root` now, and insists on a refusal for the reason `why`.
fn is_told(mut installation: Installation, why: &str) -> Installation {
    mpi::load(&installation, &installation.alice, &installation.path("root"), "new");
    for runtime in Runtime::ALL {
        installation = with_hooks(installation, runtime);
        let text = run(&installation, &["--mpi", NEW, "true"]).fails(125);
        let line = text.lines().next().unwrap();
        let begin = "sarus: cannot use the host's MPI in this container: ";
        assert!(line.starts_with(begin) && line.contains(why), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with("hint: "), "{text}");
    }
    installation
}

#[test]
fn what_the_image_lacks_is_put_into_usr_lib_and_found() {
    for runtime in Runtime::ALL {
        let installation = with_new(runtime);
        let shared = installation.path("shared");
        fs::create_dir_all(shared.join("inner")).unwrap();
        fs::write(shared.join("file"), "of the host").unwrap();
        // Of the same kind as /dev/loop-control, but for everybody.
        let node = shared.join("node");
        Output::of(Command::new("mknod").arg("-m666").arg(&node).args(["c", "10", "237"]))
            .succeeds();
        let mut settings = mpi::settings();
        // A library by a link, whose own name is another; and a device.
        let real = fs::canonicalize("/lib/x86_64-linux-gnu/libslurm.so.38").unwrap();
        settings[2] += ":/lib/x86_64-linux-gnu/libslurm.so.38";
        settings.push(format!("BIND_MOUNTS={}:/dev/full:/dev/loop-control", shared.display()));
        let hooks = mpi::hooks(&installation, false, &settings);
        let installation = installation.set("OCIHooks", &hooks);
        let script = format!(
            "cd /usr/lib; for l in libslurm.so libslurm.so.38 libslurm.so.38.0; do readlink $l; done; \
             cat {0}/file; ls -d {0}/inner; ls -l /dev/loop-control; \
             exec 3<>{0}/node && echo opened; echo x >/usr/lib/{1}; \
             busybox strings /etc/ld.so.cache | busybox grep -x /usr/lib/libslurm.so.38",
            shared.display(),
            real.file_name().unwrap().to_str().unwrap(),
        );
        let output = run(&installation, &["--mpi", NEW, "sh", "-c", &script]);
        let text = output.stdout.clone();
        let name = real.file_name().unwrap().to_str().unwrap();
        assert!(text.starts_with(&format!("{name}\n{name}\n{name}\nof the host")), "{output}");
        assert!(text.contains("inner\ncrw") && text.contains("\nopened\n"), "{output}");
        assert!(text.ends_with("/usr/lib/libslurm.so.38\n"), "{output}");
        assert!(output.stderr.contains("Read-only file system"), "{output}");
    }
}
