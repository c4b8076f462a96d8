//! As many ranks of one image as a node has cores, started at once: one loop device, one superblock,
//! and nothing left behind, whoever ends them.

use crate::support::hostile::{field, wait_until};
use crate::support::slurm::Slurm;
use crate::support::{
    IMAGE, Installation, Output, Runtime, cgroups, loop_devices, mounts, no_cgroup_stays_empty_but,
    processes_of,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Starts `count` containers at the same moment, as srun does: one process for each rank. In a `job`
/// they know of each other, and share the host's process numbers.
fn start_at_once(installation: &Installation, count: usize, job: bool, script: &str) -> Vec<Child> {
    let gate = installation.path("home/alice/gate");
    fs::write(&gate, "").unwrap();
    let sarus = installation.prefix().join("bin/sarus");
    let ranks = (0..count).map(|rank| {
        // Each waits for the lock that this test holds.
        let wait = format!("exec 9<{}; flock -s 9; exec 9<&-; exec \"$@\"", gate.display());
        let args = ["-c", &wait, "sh", sarus.to_str().unwrap(), "run", IMAGE, "sh", "-c", script];
        let mut command = installation.as_user(&installation.alice, "sh", args);
        command.env("SLURM_PROCID", rank.to_string()).stdout(Stdio::piped());
        if job {
            command.env("SLURM_STEP_NUM_TASKS", count.to_string());
        }
        command.stderr(Stdio::piped()).spawn().unwrap()
    });
    let lock = fs::File::open(&gate).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let ranks = ranks.collect();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(lock);
    ranks
}

/// What has ended too early shall say why.
fn assert_runs(command: &mut Child, runtime: Runtime) {
    if command.try_wait().unwrap().is_some() {
        let text = std::io::read_to_string(command.stderr.take().unwrap()).unwrap();
        panic!("{runtime:?}: it ended: {text}");
    }
}

fn programs(installation: &Installation, line: &str) -> Vec<u32> {
    let all = processes_of(installation.alice.uid);
    all.into_iter().filter(|(_, command)| command == line).map(|(pid, _)| pid).collect()
}

fn devices(installation: &Installation) -> usize {
    let images = installation.repository(&installation.alice);
    loop_devices().iter().filter(|(_, file)| file.starts_with(&images)).count()
}

/// The names of the cgroups that a process is in.
fn cgroup_names(pid: &u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let names = text.lines().filter_map(|line| line.rsplit('/').next());
    names.filter(|name| name.starts_with("container-")).map(str::to_owned).collect()
}

/// Cgroups from before the first of these tests.
static BEFORE: LazyLock<Vec<PathBuf>> = LazyLock::new(cgroups);

/// One at a time: each of these loads the machine.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    LazyLock::force(&BEFORE);
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nothing of alice's containers is left.
fn assert_nothing_is_left(installation: &Installation) {
    wait_until("no process is left", || processes_of(installation.alice.uid).is_empty());
    wait_until("no loop device is left", || devices(installation) == 0);
    no_cgroup_stays_empty_but(&BEFORE);
    let place = installation.prefix().join("var/OCIBundleDir");
    assert!(mounts().iter().all(|mount| !mount.starts_with(&place)));
    assert_eq!(fs::read_dir(place).unwrap().count(), 0);
}

#[test]
fn ranks_that_start_at_once_share_one_superblock() {
    let _turn = alone();
    for (runtime, count, job) in [
        (Runtime::Crun, 128, true),
        (Runtime::Runc, 64, true),
        (Runtime::Crun, 64, false),
        (Runtime::Runc, 64, false),
    ] {
        let installation = Installation::with_busybox(runtime);
        let script = "echo rank $SLURM_PROCID; exec sleep 1000";
        let mut ranks = start_at_once(&installation, count, job, script);
        wait_until("all run", || {
            ranks.iter_mut().for_each(|rank| assert_runs(rank, runtime));
            programs(&installation, "sleep 1000").len() == count
        });
        assert_eq!(devices(&installation), 1, "{runtime:?}");
        // The number of a file system is that of its superblock.
        let device = |pid: &u32| {
            // The lower layer is not visible inside, but where the runtime is.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let parent = field(&status, "PPid");
            let text = fs::read_to_string(format!("/proc/{parent}/mountinfo")).unwrap();
            let lower = text.lines().find(|line| line.contains(" - squashfs ")).unwrap();
            lower.split(' ').nth(2).unwrap().to_owned()
        };
        let superblocks: BTreeSet<_> =
            programs(&installation, "sleep 1000").iter().map(device).collect();
        assert_eq!(superblocks.len(), 1, "{runtime:?}: {superblocks:?}");
        // As a workload manager ends a step.
        for rank in &ranks {
            Output::of(Command::new("kill").args(["-KILL", &rank.id().to_string()])).succeeds();
        }
        let mut said = BTreeSet::new();
        for rank in ranks {
            let output = rank.wait_with_output().unwrap();
            said.insert(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        assert_eq!(said.len(), count, "{runtime:?}: {said:?}");
        assert_nothing_is_left(&installation);
    }
}

#[test]
fn ranks_that_end_by_themselves_leave_nothing() {
    let _turn = alone();
    for (runtime, job) in Runtime::ALL.into_iter().flat_map(|r| [(r, true), (r, false)]) {
        let installation = Installation::with_busybox(runtime);
        for rank in start_at_once(&installation, 64, job, "echo $SLURM_PROCID; exit 3") {
            let output = rank.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{runtime:?}: {stderr}");
        }
        assert_nothing_is_left(&installation);
    }
}

#[test]
fn a_job_step_that_slurm_ends_leaves_nothing() {
    let _turn = alone();
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let slurm = Slurm::new(installation.path("slurm"));
        let script = "echo $SLURM_PROCID; setsid sleep 1001 & exec sleep 1000";
        let args = ["run", IMAGE, "sh", "-c", script];
        let task = installation.sarus_command(&installation.alice, &args);
        let mut step = slurm.step(&["-N2", "-n32", "--job-name=step"], &task);
        let mut step = step.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        for line in ["sleep 1000", "sleep 1001"] {
            wait_until("all run", || {
                assert_runs(&mut step, runtime);
                programs(&installation, line).len() == 32
            });
        }
        assert_eq!(devices(&installation), 1, "{runtime:?}");
        Output::of(&mut slurm.command("scancel", &["--name=step"])).succeeds();
        let output = step.wait_with_output().unwrap();
        assert!(!output.status.success(), "{runtime:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.lines().collect::<BTreeSet<_>>().len(), 32, "{runtime:?}: {said}");
        assert_nothing_is_left(&installation);
    }
}

/// Engine, runtime, helpers and program of each rank at once, as the kernel does when memory ends.
#[test]
fn nothing_is_left_after_everything_was_killed() {
    let _turn = alone();
    for (runtime, job) in Runtime::ALL.into_iter().flat_map(|r| [(r, true), (r, false)]) {
        let installation = Installation::with_busybox(runtime);
        let mut ranks = start_at_once(&installation, 16, job, "exec sleep 1000");
        wait_until("all run", || programs(&installation, "sleep 1000").len() == 16);
        let mut all: Vec<u32> = ranks.iter().map(Child::id).collect();
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten()
            {
                let children = fs::read_to_string(thread.path().join("children"));
                let children = children.unwrap_or_default();
                all.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
            }
            at += 1;
        }
        let ids: BTreeSet<String> =
            programs(&installation, "sleep 1000").iter().flat_map(cgroup_names).collect();
        assert!(all.len() >= 48, "{all:?}");
        let numbers: Vec<_> = all.iter().map(u32::to_string).collect();
        // Some are gone before their turn.
        Output::of(Command::new("kill").arg("-KILL").args(&numbers));
        for rank in &mut ranks {
            assert!(!rank.wait().unwrap().success());
        }
        wait_until("no process is left", || processes_of(installation.alice.uid).is_empty());
        wait_until("no loop device is left", || devices(&installation) == 0);
        // Where the janitors were killed too, empty cgroups wait for the next run on the node, which
        // removes those that are older than a minute.
        let left: Vec<_> =
            cgroups().into_iter().filter(|path| ids.iter().any(|id| path.ends_with(id))).collect();
        for folder in &left {
            Output::of(Command::new("touch").args(["-d", "2 minutes ago"]).arg(folder)).succeeds();
        }
        installation.sarus(&installation.alice, &["run", IMAGE, "true"]).succeeds();
        wait_until("old cgroups are removed", || left.iter().all(|folder| !folder.exists()));
        assert_nothing_is_left(&installation);
    }
}
