//! `mpi_hook` and `glibc_hook` with real MPICH and real C libraries: images of Debian 12, with an
//! MPICH that was made older, and of Debian 11, where MPICH and the C library are older.

use crate::support::slurm::Slurm;
use crate::support::{Installation, Output, Runtime, mpi};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the host's library says of itself.
const HOST: &str = "MPICH Version: 4.0.2";

const NEW: &str = "load/library/new";
const OLD: &str = "load/library/old";

/// Debian 12 with MPICH 4.0.0 of ABI 12.1.0, which alice calls `new`.
fn with_new(runtime: Runtime) -> Installation {
    let installation = with_hooks(Installation::new(), runtime);
    let root = mpi::copy(&installation, &mpi::rootfs("bookworm"), "root");
    mpi::renumber(&root, "12.1.0");
    installation.forge(&installation.alice, &root, "new", "{}");
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
        installation.forge(&installation.alice, &root, "old", "{}");
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
    installation.forge(&installation.alice, &root, "new", "{}");
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
    installation.forge(&installation.alice, &installation.path("root"), "new", "{}");
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
        settings.push(format!("BIND_MOUNTS={}:/dev/loop-control", shared.display()));
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

/// A library that tells whether it is the host's: then it lies in a directory `host`.
fn compile(path: &Path, soname: &str, more: &[&str]) {
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-nostdlib", "-x", "c", "-", "-o"]).arg(path);
    gcc.arg(format!("-Wl,-soname,{soname}")).args(["-x", "none"]).args(more);
    let mut gcc = gcc.stdin(Stdio::piped()).spawn().unwrap();
    let value = u32::from(path.to_string_lossy().contains("/host/"));
    let text = format!(
        "#ifdef NEEDS\nextern int needed(void); int needs(void) {{ return needed(); }}\n#else\n\
         int needed(void) {{ return 1; }}\n#endif\nint is_the_hosts(void) {{ return {value}; }}"
    );
    gcc.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(gcc.wait().unwrap().success());
}

/// Debian 12 with an MPI in `/usr/local/lib`, and a program that asks libraries whose they are.
fn with_tiny(runtime: Runtime) -> (Installation, PathBuf, PathBuf) {
    let installation = Installation::new().runtime(runtime);
    let root = mpi::copy(&installation, &mpi::rootfs("bookworm"), "root");
    let host = installation.path("host");
    fs::create_dir(&host).unwrap();
    let folder = root.join("usr/local/lib");
    fs::create_dir_all(&folder).unwrap();
    compile(&folder.join("libmpi.so.12.1.1"), "libmpi.so.12", &[]);
    symlink("libmpi.so.12.1.1", folder.join("libmpi.so.12")).unwrap();
    let conf = format!("/usr/local/lib\n{}\n", mpi::LIBRARIES);
    fs::write(root.join("etc/ld.so.conf"), conf).unwrap();
    let source = root.join("try.c");
    let text = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(int argc, char **argv) {
            while (*++argv) {
                void *library = dlopen(*argv, RTLD_NOW);
                int (*f)(void) = library ? dlsym(library, "is_the_hosts") : NULL;
                printf("%s %d\n", *argv, f ? f() : -1);
            }
        }"#;
    fs::write(&source, text).unwrap();
    Output::of(Command::new("gcc").arg(&source).arg("-o").arg(root.join("try"))).succeeds();
    (installation, root, host)
}

/// As Cray's: host and image do not agree on what MPI calls itself.
#[test]
fn a_library_is_found_by_the_hosts_name_and_by_the_images() {
    for runtime in Runtime::ALL {
        let (mut installation, root, host) = with_tiny(runtime);
        compile(&host.join("libvendor_mpi.so.3.0.1"), "libvendor_mpi.so.3", &[]);
        symlink("libvendor_mpi.so.3.0.1", host.join("libmpi.so.12")).unwrap();
        // What the image has too, in another version.
        compile(&host.join("libneeded.so.5.0"), "libneeded.so.5", &[]);
        compile(&host.join("libother.so.1.0"), "libother.so.1", &[]);
        compile(&root.join("usr/lib/libneeded.so.15.2"), "libneeded.so.15", &[]);
        for (link, target) in [
            ("libneeded.so", "libneeded.so.15.2"),
            ("libneeded.so.15", "libneeded.so.15.2"),
            ("libneeded.so.5.0", "libneeded.so.15.2"),
            ("libother.so.1", "libneeded.so.15.2"),
        ] {
            symlink(target, root.join("usr/lib").join(link)).unwrap();
        }
        // Which no file of the image's tells ldconfig of.
        fs::create_dir_all(root.join("opt/mine/lib")).unwrap();
        compile(&root.join("opt/mine/lib/libmine.so.1"), "libmine.so.1", &[]);
        Output::of(Command::new("ldconfig").arg("-r").arg(&root).arg("/opt/mine/lib")).succeeds();
        installation.forge(&installation.alice, &root, "new", "{}");
        let mut settings = vec![
            "LDCONFIG_PATH=/sbin/ldconfig".to_owned(),
            format!("MPI_LIBS={}/libmpi.so.12", host.display()),
        ];
        for more in ["", "libneeded.so.5.0:@/libother.so.1.0"] {
            if !more.is_empty() {
                let list = more.replace('@', host.to_str().unwrap());
                settings.push(format!("MPI_DEPENDENCY_LIBS={}/{list}", host.display()));
            }
            let hooks = mpi::hooks(&installation, false, &settings);
            installation = installation.set("OCIHooks", &hooks);
            let mut args = vec!["--mpi", NEW, "/try", "libmpi.so.12", "libvendor_mpi.so.3"];
            args.extend(["libmine.so.1", "libneeded.so.15"]);
            let text = run(&installation, &args).succeeds();
            let expected = "libmpi.so.12 1\nlibvendor_mpi.so.3 1\nlibmine.so.1 0\n\
                            libneeded.so.15 0\n";
            assert_eq!(text, expected, "{runtime:?} {more}");
        }
        let script = "cd /usr/lib; for l in libneeded.so libneeded.so.5 libother.so.1; do \
                      readlink $l; done; busybox strings libneeded.so.15.2";
        let text = run(&installation, &["--mpi", NEW, "sh", "-c", script]).succeeds();
        assert!(text.starts_with("libneeded.so.15.2\nlibneeded.so.5.0\n"), "{text}");
        assert!(text.contains("\nlibneeded.so.15\n"), "{text}");
    }
}

#[test]
fn what_the_hook_brings_counts_as_there() {
    for runtime in Runtime::ALL {
        let (mut installation, root, host) = with_tiny(runtime);
        Output::of(Command::new("ldconfig").arg("-r").arg(&root)).succeeds();
        installation.forge(&installation.alice, &root, "new", "{}");
        // As libcrypt.so.1, which is part of one distribution's C library and not of another's.
        let script = installation.path("script");
        fs::write(&script, "GLIBC_9.9 { *; };").unwrap();
        let script = format!("-Wl,--version-script={}", script.display());
        let needed = host.join("libneeded.so.1");
        compile(&needed, "libneeded.so.1", &[&script]);
        let more = ["-DNEEDS", needed.to_str().unwrap()];
        compile(&host.join("libmpi.so.12.1.8"), "libmpi.so.12", &more);
        let mut settings = vec![
            "LDCONFIG_PATH=/sbin/ldconfig".to_owned(),
            format!("MPI_LIBS={}/libmpi.so.12.1.8", host.display()),
        ];
        let hooks = mpi::hooks(&installation, false, &settings);
        installation = installation.set("OCIHooks", &hooks);
        let args = ["--mpi", NEW, "/try", "libmpi.so.12", "libneeded.so.1"];
        let text = run(&installation, &args).fails(125);
        assert!(text.contains("needs libneeded.so.1, which the image does not have\n"), "{text}");
        assert!(
            text.contains("hint: the site can add the host's to MPI_DEPENDENCY_LIBS"),
            "{text}"
        );
        settings.push(format!("MPI_DEPENDENCY_LIBS={}", needed.display()));
        let hooks = mpi::hooks(&installation, false, &settings);
        installation = installation.set("OCIHooks", &hooks);
        let text = run(&installation, &args).succeeds();
        assert_eq!(text, "libmpi.so.12 1\nlibneeded.so.1 1\n", "{runtime:?}");
    }
}
