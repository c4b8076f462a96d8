//! An installation with SSH on two hosts, and containers that run there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::host::loop_devices;
use super::hostile::wait_until;
use super::net::Network;
use super::{IMAGE, Installation, Output, Runtime, User, binary};

/// What containers run that others log in to. The first process of a PID namespace ignores signals
/// that it does not handle.
pub const WAIT: &str = "trap 'exit 0' TERM; echo up; sleep 1000 & wait";

/// What a container's own command does where no engine starts the daemon that the hook prepared.
pub const SSHD: &str = "/opt/sarus/openssh/sbin/sshd; ";

/// Two hosts, and an installation that both see.
#[derive(Debug)]
pub struct Site {
    pub network: Network,
    pub installation: Installation,
}

/// A container that runs until it is dropped.
#[derive(Debug)]
pub struct Running<'a> {
    pub engine: Child,
    site: &'a Site,
    number: usize,
    /// The processes that were on the host before it.
    others: Vec<u32>,
}

impl Site {
    /// A site where alice has keys and the image [`IMAGE`].
    pub fn new(runtime: Runtime) -> Self {
        let installation = Installation::with_ssh();
        let this = Self { network: Network::new(), installation }.runtime(runtime);
        let installation = &this.installation;
        installation.load(&installation.alice, &super::Image::busybox(), "bb");
        installation.sarus(&installation.alice, &["ssh-keygen"]).succeeds();
        this
    }

    /// The same site with another runtime.
    pub fn runtime(self, runtime: Runtime) -> Self {
        let installation = self.installation.runtime(runtime);
        let hooks = installation.ssh_hooks();
        Self { installation: installation.set("OCIHooks", &hooks), ..self }
    }

    /// The same site with one port for all users.
    pub fn with_port(self, port: u16) -> Self {
        let setting = format!("\"SERVER_PORT={port}\",\"PASSWD_FILE=");
        let hooks = self.installation.ssh_hooks().replace("\"PASSWD_FILE=", &setting);
        Self { installation: self.installation.set("OCIHooks", &hooks), ..self }
    }

    /// The port of the daemons of `user`, as their containers tell it.
    pub fn port(&self, user: &User) -> u16 {
        let file = "/opt/sarus/openssh/etc/userkeys/ssh_config";
        let text = Output::of(&mut self.command(0, user, &[IMAGE, "cat", file])).succeeds();
        text.trim().strip_prefix("Port ").unwrap().parse().unwrap()
    }

    /// Makes an image of alice's own: a root file system of busybox, changed by `change`.
    pub fn image(&self, name: &str, change: impl FnOnce(&Path)) -> String {
        let installation = &self.installation;
        let root = installation.rootfs(name);
        change(&root);
        let meta =
            r#"{"Cmd": null, "Entrypoint": null, "WorkingDir": "", "Env": ["PATH=/usr/bin:/bin"]}"#;
        installation.forge(&installation.alice, &root, name, meta);
        format!("load/library/{name}")
    }

    /// What runs `sarus run --ssh` for `user` on host `number`.
    pub fn command(&self, number: usize, user: &User, args: &[&str]) -> Command {
        let command = self.installation.sarus_command(user, &[&["run", "--ssh"], args].concat());
        self.network.on(number, &command)
    }

    /// Runs `sarus run --ssh` for alice on host `number`, to its end.
    pub fn run(&self, number: usize, args: &[&str]) -> Output {
        Output::of(&mut self.command(number, &self.installation.alice, args))
    }

    /// Starts a container of alice's on host `number`, and waits until its program runs.
    pub fn start(&self, number: usize, image: &str) -> Running<'_> {
        self.start_as(number, &self.installation.alice, &[image, "sh", "-c", WAIT])
    }

    /// Starts a container whose program says `up` when it runs.
    pub fn start_as(&self, number: usize, user: &User, args: &[&str]) -> Running<'_> {
        self.start_command(number, self.command(number, user, args))
    }

    /// The same for a command on host `number`.
    pub fn start_command(&self, number: usize, mut command: Command) -> Running<'_> {
        let others = self.network.processes(number).into_iter().map(|(pid, _)| pid).collect();
        let mut engine = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(engine.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "{command:?} did not start");
        Running { engine, site: self, number, others }
    }
}

impl Running<'_> {
    /// Ends it by `signal`, and insists that nothing of it stays.
    pub fn end(mut self, signal: &str) {
        self.stop(signal);
    }

    fn stop(&mut self, signal: &str) {
        // What entered the host has become the engine by exec.
        let pid = self.engine.id().to_string();
        Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        wait_until("the end of the engine", || self.engine.try_wait().unwrap().is_some());
        let others = &self.others;
        let new = |(pid, _): &(u32, String)| !others.contains(pid);
        let network = &self.site.network;
        wait_until("the end of all", || !network.processes(self.number).iter().any(new));
        // Which a process that is about to end may still have, after a kill. Others may run the same.
        if network.processes(0).is_empty() && network.processes(1).is_empty() {
            let root = self.site.installation.path("");
            let ours = |(_, file): &(PathBuf, PathBuf)| file.starts_with(&root);
            wait_until("the end of its mounts", || !loop_devices().iter().any(ours));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if matches!(self.engine.try_wait(), Ok(None)) {
            self.stop("KILL");
        }
    }
}

impl Installation {
    /// An installation with the OpenSSH for containers, as `make install` makes it.
    pub fn with_ssh() -> Self {
        let this = Self::new();
        let openssh = binary().with_file_name("openssh");
        assert!(openssh.join("SOURCE").exists(), "run the tests by `make test`, or `make openssh`");
        let install = Path::new(super::SOURCE).join("scripts/install.sh");
        let mut install = Command::new(install);
        install.arg(binary()).arg(this.prefix()).env("OPENSSH", openssh);
        Output::of(&mut install).succeeds();
        this
    }

    /// The environment of `ssh_hook`; the last is of no use to the barrier.
    pub fn ssh_settings(&self) -> [String; 3] {
        let prefix = self.prefix();
        [
            format!("HOOK_BASE_DIR={}", self.path("home").display()),
            format!("PASSWD_FILE={}", prefix.join("etc/passwd").display()),
            format!("OPENSSH_DIR={}", prefix.join("openssh").display()),
        ]
    }

    /// `OCIHooks` of sarus.json: SSH, then the barrier.
    pub fn ssh_hooks(&self) -> String {
        let bin = self.prefix().join("bin");
        let env = self.ssh_settings();
        serde_json::json!({"prestart": [
            {"path": bin.join("ssh_hook"), "args": ["ssh_hook", "start-sshd"], "env": env},
            {"path": bin.join("slurm_global_sync_hook"), "env": env[..2]},
        ]})
        .to_string()
    }
}
