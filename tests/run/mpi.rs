//! MPI without any hook: the process manager of the host and the MPI library of the image find each
//! other through what `sarus run` hands on. Real MPICH on both sides.

use crate::support::{Installation, Output, Runtime, processes_of};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

const IMAGE: &str = "load/library/mpi";

const PROGRAM: &str = r#"
    #include <mpi.h>
    #include <stdio.h>
    int main(int argc, char **argv) {
        int rank, size, sum;
        MPI_Init(&argc, &argv);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
        MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        printf("rank %d of %d, sum %d\n", rank, size, sum);
        MPI_Finalize();
        return 0;
    }"#;

/// An image with the program, and Debian's MPICH with all that it needs.
fn with_mpi() -> Installation {
    let installation = Installation::new();
    let root = installation.rootfs("rootfs");
    let program = root.join("bin/ranks");
    let mut mpicc = Command::new("mpicc.mpich");
    mpicc.args(["-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped());
    let mut child = mpicc.spawn().expect("mpicc.mpich is not installed");
    child.stdin.take().unwrap().write_all(PROGRAM.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let needed = Output::of(Command::new("ldd").arg(&program)).succeeds();
    assert!(needed.contains("libmpich.so.12"), "{needed}");
    for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(library, place).unwrap();
    }
    installation.forge(&installation.alice, &root, "mpi", "{}");
    fs::remove_dir_all(root).unwrap();
    installation
}

fn mpiexec(installation: &Installation, ranks: &str, words: &[&str]) -> Output {
    let sarus = installation.prefix().join("bin/sarus");
    let mut args = vec!["-n", ranks, sarus.to_str().unwrap(), "run"];
    args.extend(words);
    Output::of(&mut installation.as_user(&installation.alice, "mpiexec.mpich", args))
}

#[test]
fn ranks_in_containers_are_one_world() {
    let mut installation = with_mpi();
    for runtime in Runtime::ALL {
        installation = installation.runtime(runtime);
        let shown = mpiexec(&installation, "4", &[IMAGE, "ranks"]).succeeds();
        let mut lines: Vec<_> = shown.lines().collect();
        lines.sort_unstable();
        let expected: Vec<_> = (0..4).map(|n| format!("rank {n} of 4, sum 6")).collect();
        assert_eq!(lines, expected, "{runtime:?}");
        // As many as a node has cores.
        let words = [IMAGE, "sh", "-c", "echo $PMI_RANK"];
        let shown = mpiexec(&installation, "64", &words).succeeds();
        let ranks: std::collections::BTreeSet<_> = shown.lines().collect();
        assert_eq!(ranks.len(), 64, "{runtime:?}: {shown}");
        // Without a process manager each is a world of its own.
        let alone = installation.sarus(&installation.alice, &["run", IMAGE, "ranks"]);
        assert_eq!(alone.succeeds(), "rank 0 of 1, sum 0\n");
    }
}

/// Ranks know each other by process numbers, also where these differ from rank to rank.
#[test]
fn ranks_find_each_other_behind_an_init_process_and_a_shell() {
    let mut installation = with_mpi();
    // As many other processes come first as the rank is high.
    let script = "for n in $(seq $PMI_RANK); do /bin/true; done; ranks";
    for runtime in Runtime::ALL {
        installation = installation.runtime(runtime);
        for words in [
            &["--init", IMAGE, "ranks"][..],
            &["--init", IMAGE, "sh", "-c", script],
            &[IMAGE, "sh", "-c", script],
        ] {
            for _ in 0..3 {
                let shown = mpiexec(&installation, "4", words).succeeds();
                let mut lines: Vec<_> = shown.lines().collect();
                lines.sort_unstable();
                let expected: Vec<_> = (0..4).map(|n| format!("rank {n} of 4, sum 6")).collect();
                assert_eq!(lines, expected, "{runtime:?} {words:?}");
            }
        }
    }
}

#[test]
fn the_process_manager_gets_status_and_input_through() {
    let mut installation = with_mpi();
    for runtime in Runtime::ALL {
        installation = installation.runtime(runtime);
        let script = "test $PMI_RANK = 2 && exit 5; exit 0";
        mpiexec(&installation, "3", &[IMAGE, "sh", "-c", script]).fails(5);
        let script = "test $PMI_RANK = 0 && cat; echo $PMI_RANK of $PMI_SIZE";
        let sarus = installation.prefix().join("bin/sarus");
        let args = ["-n", "2", sarus.to_str().unwrap(), "run", IMAGE, "sh", "-c", script];
        let mut command = installation.as_user(&installation.alice, "mpiexec.mpich", args);
        let input = installation.path("input");
        fs::write(&input, "a line\n").unwrap();
        let shown = Output::of(command.stdin(fs::File::open(&input).unwrap())).succeeds();
        let mut lines: Vec<_> = shown.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["0 of 2", "1 of 2", "a line"], "{runtime:?}");
        assert!(processes_of(installation.alice.uid).is_empty());
    }
}

#[test]
fn variables_of_process_managers_pass() {
    let installation = with_mpi();
    let mut command = installation.sarus_command(&installation.alice, &["run", IMAGE, "env"]);
    let variables = [
        ("PMI_RANK", "3"),
        ("PMI_SIZE", "8"),
        ("PMI_ID", "3"),
        ("PMI_PORT", "host:1234"),
        ("PMI_CONTROL_FD", "9"),
        ("PMI2_SPAWNED", "1"),
        ("SLURM_PROCID", "3"),
        ("SLURM_JOB_ID", "42"),
        ("SLURM_NODELIST", "n[1-2]"),
        ("PMIX_RANK", "3"),
    ];
    for (name, value) in variables {
        command.env(name, value);
    }
    let shown = Output::of(&mut command).succeeds();
    for (name, value) in variables {
        assert!(shown.contains(&format!("{name}={value}\n")), "{name}: {shown}");
    }
}
