//! Open MPI on two hosts, started by SSH from container to container: the manual's "OpenMPI with SSH
//! launcher".

use crate::support::hostile::{give, wait_until};
use crate::support::mpi::LIBRARIES;
use crate::support::slurm::Slurm;
use crate::support::ssh::Site;
use crate::support::{Output, Runtime, SOURCE, kept};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE: &str = "load/library/ompi";

/// Tells where it runs, and that all ranks are of one world.
const PROGRAM: &str = r#"
    #include <mpi.h>
    #include <stdio.h>
    int main(int argc, char **argv) {
        int rank, size, length, sum;
        char host[MPI_MAX_PROCESSOR_NAME];
        MPI_Init(&argc, &argv);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
        MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        MPI_Get_processor_name(host, &length);
        printf("rank %d of %d on %s, sum %d\n", rank, size, host, sum);
        MPI_Finalize();
        return 0;
    }"#;

/// Debian's Open MPI in the container takes itself for a job of Slurm's otherwise.
const MPIRUN: &str = "mpirun --mca plm rsh --mca ras ^slurm --mca pml ob1 --mca btl tcp,self";

/// The root file system of Debian with Open MPI and the program `/hello`, made once for all.
fn rootfs() -> PathBuf {
    kept("ompi-bookworm", |root| {
        let mut make = Command::new(Path::new(SOURCE).join("scripts/debian-rootfs.sh"));
        make.arg(root).args(["bookworm", "bash", "coreutils", "openmpi-bin", "libopenmpi-dev"]);
        Output::of(&mut make).succeeds();
        symlink("bash", root.join("bin/sh")).ok();
        symlink("mpirun.openmpi", root.join("usr/bin/mpirun")).unwrap();
        let libraries = root.join(&LIBRARIES[1..]);
        fs::write(root.join("hello.c"), PROGRAM).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.arg("-I").arg(libraries.join("openmpi/include")).arg("-o").arg(root.join("hello"));
        gcc.arg(root.join("hello.c")).arg(libraries.join("libmpi.so.40"));
        gcc.arg("-Wl,--allow-shlib-undefined");
        Output::of(&mut gcc).succeeds();
    })
}

/// A site with the image, and a list of both hosts that containers see.
fn site() -> (Site, String) {
    let site = Site::new(Runtime::Runc);
    let alice = &site.installation.alice;
    site.installation.forge(alice, &rootfs(), "ompi", "{}");
    let list = site.installation.plant(alice, "home/alice/scratch/hostfile", "red\nblue\n", 0o755);
    give(list.parent().unwrap(), alice);
    let scratch = list.parent().unwrap().display().to_string();
    (site, scratch)
}

/// Insists that `output` comes from `count` ranks of one world, half of them on each host.
#[track_caller]
fn is_one_world(output: &Output, count: usize) {
    let mut lines: Vec<_> = output.stdout.lines().collect();
    lines.sort_unstable();
    let host = |rank| if rank < count / 2 { "red" } else { "blue" };
    let sum = count * (count - 1) / 2;
    let line = |rank| format!("rank {rank} of {count} on {}, sum {sum}", host(rank));
    assert_eq!(lines, (0..count).map(line).collect::<Vec<_>>(), "{output}");
}

#[test]
fn mpirun_starts_ranks_in_containers_on_both_hosts() {
    let (mut site, scratch) = site();
    for runtime in Runtime::ALL {
        site = site.runtime(runtime);
        let _blue = site.start(1, IMAGE);
        let mount = format!("--mount=type=bind,source={scratch},destination={scratch}");
        let script = format!("{MPIRUN} --hostfile {scratch}/hostfile -npernode 2 /hello");
        let output = site.run(0, &[&mount, IMAGE, "bash", "-c", &script]);
        assert_eq!(output.status, 0, "{output}");
        is_one_world(&output, 4);
    }
}

/// `words` for a shell, each as it is.
fn quoted(words: impl IntoIterator<Item = String>) -> String {
    let words = words.into_iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_manuals_example_runs_under_slurm() {
    let (mut site, scratch) = site();
    for runtime in Runtime::ALL {
        site = site.runtime(runtime);
        let alice = &site.installation.alice;
        let mount = format!("--mount=src={scratch},dst={scratch},type=bind");
        let program = format!(
            "if [ $SLURM_PROCID -eq 0 ]; then \
             {MPIRUN} --hostfile {scratch}/hostfile -npernode 1 /hello; else sleep infinity; fi"
        );
        // Each task of the step is on one host; the one that mpirun looks for comes late.
        let args = ["run", "--ssh", &mount, IMAGE, "bash", "-c", &program];
        let sarus = site.installation.sarus_command(alice, &args);
        let words = |number| {
            let command = [sarus.get_program()].into_iter().chain(sarus.get_args());
            let command = command.map(|word| word.to_str().unwrap().to_owned());
            quoted(site.network.prefix(number).into_iter().chain(command))
        };
        let script = site.installation.path("job.sh");
        let text = format!(
            "#!/bin/bash\n[ $SLURM_NODEID = 0 ] || {{ sleep 2; exec {}; }}\nexec {}\n",
            words(1),
            words(0)
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let slurm = Slurm::new(site.installation.path("slurm"));
        // The other task would sleep for ever.
        let output =
            slurm.srun(&["-N2", "-n2", "--mpi=none", "--wait=1", script.to_str().unwrap()]);
        is_one_world(&output, 2);
        drop(slurm);
        let step = site.installation.path("home/alice/.oci-hooks/slurm-global-sync");
        assert_eq!(fs::read_dir(step).unwrap().count(), 0);
        for number in 0..2 {
            wait_until("the end of all", || site.network.processes(number).is_empty());
        }
    }
}
