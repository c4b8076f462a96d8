//! A Slurm cluster of two nodes on this machine, with all its files in a directory of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Output;

/// The servers of a cluster; ended when dropped.
#[derive(Debug)]
pub struct Slurm {
    directory: PathBuf,
    servers: Vec<Child>,
    _only_one: MutexGuard<'static, ()>,
}

impl Slurm {
    /// Starts a cluster in the new directory `directory`, whose parents only root may write to.
    pub fn new(directory: PathBuf) -> Self {
        // Tests say how long tasks may be late: two clusters would keep each other from being in time.
        static ONE: Mutex<()> = Mutex::new(());
        let only_one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir(&directory).unwrap();
        let mut this = Self { directory, servers: vec![], _only_one: only_one };
        let key = this.path("munge.key");
        fs::write(&key, [7; 1024]).unwrap();
        fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).unwrap();
        let file = |name: &str| this.path(name).display().to_string();
        let mut munged = Command::new("/usr/sbin/munged");
        munged.args(["--foreground", "--force", "--key-file", &file("munge.key")]);
        munged.args(["--socket", &file("munge"), "--pid-file", &file("munged.pid")]);
        munged.args(["--log-file", &file("munged.log"), "--seed-file", &file("munge.seed")]);
        this.start(&mut munged);
        let socket = this.path("munge");
        wait_for("munged", || socket.exists());
        fs::write(this.config(), this.configuration()).unwrap();
        let config = this.config();
        this.start(Command::new("/usr/sbin/slurmctld").arg("-D").arg("-f").arg(&config));
        for node in ["n1", "n2"] {
            fs::create_dir(this.path(node)).unwrap();
            this.start(
                Command::new("/usr/sbin/slurmd").args(["-D", "-N", node, "-f"]).arg(&config),
            );
        }
        wait_for("two idle nodes", || {
            let mut states = this.command("sinfo", &["--noheader", "--format=%T %D"]);
            Output::of(&mut states).stdout.trim() == "idle 2"
        });
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    fn configuration(&self) -> String {
        let host = Output::of(Command::new("uname").arg("-n")).succeeds();
        // Below those that the kernel hands out; another process may have its own cluster.
        let port = 10_000 + std::process::id() % 5_000 * 4;
        let node = |name: &str, port: u32| {
            let host = host.trim();
            format!("NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16\n")
        };
        let here = self.directory.display();
        format!(
            "ClusterName=test\nSlurmctldHost={}(127.0.0.1)\nSlurmctldPort={port}\n\
             SlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nAuthInfo=socket={here}/munge\n\
             CredType=cred/munge\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             SelectType=select/cons_tres\nMpiDefault=pmi2\nReturnToService=2\n\
             SlurmdParameters=config_overrides\nStateSaveLocation={here}/state\n\
             SlurmdSpoolDir={here}/%n/spool\nSlurmctldPidFile={here}/slurmctld.pid\n\
             SlurmdPidFile={here}/%n/slurmd.pid\nSlurmctldLogFile={here}/slurmctld.log\n\
             SlurmdLogFile={here}/%n/slurmd.log\n{}{}\
             PartitionName=main Nodes=n1,n2 Default=YES State=UP\n",
            host.trim(),
            node("n1", port + 1),
            node("n2", port + 2),
        )
    }

    fn start(&mut self, command: &mut Command) {
        let log = fs::File::create(self.path(&format!("server-{}", self.servers.len()))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.servers.push(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    }

    /// A command of Slurm's, for this cluster.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("SLURM_CONF", self.config()).current_dir(Path::new("/"));
        command
    }

    /// What runs `task` by srun, with its arguments but not its environment.
    pub fn step(&self, options: &[&str], task: &Command) -> Command {
        let mut command = self.command("srun", options);
        command.arg(task.get_program()).args(task.get_args());
        command
    }

    /// Runs `args` by srun, to the end of all tasks.
    pub fn srun(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command("srun", args))
    }
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_there() {
        assert!(Instant::now() < end, "waited for {what}");
        sleep(Duration::from_millis(100));
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for server in self.servers.iter_mut().rev() {
            // Slurm's daemons end their children and write their state.
            let pid = server.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status().ok();
            let end = Instant::now() + Duration::from_secs(5);
            while server.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
                sleep(Duration::from_millis(50));
            }
            server.kill().ok();
            server.wait().ok();
        }
        fs::remove_dir_all(&self.directory).ok();
    }
}
