//! Two hosts on this machine: network namespaces that are joined by a cable, each with an address, a
//! host name and an `/etc/hosts` of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Output, Scratch};

/// The names of the hosts.
pub const HOSTS: [&str; 2] = ["red", "blue"];

/// Their addresses, which nobody else sees.
pub const ADDRESSES: [&str; 2] = ["10.53.0.1", "10.53.0.2"];

/// Enters a host: the arguments are its number, its name, a table for /etc/hosts, and what to run.
const ENTER: &str = r#"
    exec nsenter --net="/run/netns/$1" unshare --uts --mount --propagation private sh -c '
        hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"' sh "$2" "$3" "${@:4}"
"#;

/// The two hosts; taken apart when dropped.
#[derive(Debug)]
pub struct Network {
    namespaces: [String; 2],
    scratch: Scratch,
}

impl Network {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespaces = HOSTS.map(|name| format!("sarus-{pid}-{number}-{name}"));
        let this = Self { namespaces, scratch: Scratch::new("net") };
        let [red, blue] = &this.namespaces;
        ip(&["netns", "add", red]);
        ip(&["netns", "add", blue]);
        ip(&["-n", red, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", blue]);
        for (namespace, address) in this.namespaces.iter().zip(ADDRESSES) {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            ip(&["-n", namespace, "link", "set", "eth0", "up"]);
        }
        let table: String =
            HOSTS.iter().zip(ADDRESSES).map(|(name, at)| format!("{at} {name}\n")).collect();
        fs::write(this.table(), format!("127.0.0.1 localhost\n{table}")).unwrap();
        this
    }

    fn table(&self) -> PathBuf {
        self.scratch.path("hosts")
    }

    /// Pid and command line of all processes on host `number`.
    pub fn processes(&self, number: usize) -> Vec<(u32, String)> {
        let here = fs::metadata(Path::new("/run/netns").join(&self.namespaces[number])).unwrap();
        let mut processes = vec![];
        for entry in fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            // A process that ended meanwhile is none.
            let namespace = fs::metadata(entry.join("ns/net")).map(|status| status.ino());
            if let (Ok(pid), Ok(namespace)) = (name.parse(), namespace)
                && namespace == here.ino()
            {
                let command = fs::read_to_string(entry.join("cmdline")).unwrap_or_default();
                processes.push((pid, command.replace('\0', " ").trim_end().to_owned()));
            }
        }
        processes
    }

    /// The words that run what follows them on host `number`.
    pub fn prefix(&self, number: usize) -> Vec<String> {
        let table = self.table().display().to_string();
        let words = ["bash", "-c", ENTER, "bash", &self.namespaces[number], HOSTS[number], &table];
        words.map(str::to_owned).into()
    }

    /// `command`, whose environment is all that it names, on host `number`.
    pub fn on(&self, number: usize, command: &Command) -> Command {
        let prefix = self.prefix(number);
        let mut outer = Command::new(&prefix[0]);
        outer.args(&prefix[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            outer.current_dir(directory);
        }
        outer
    }
}

fn ip(args: &[&str]) {
    Output::of(Command::new("ip").args(args)).succeeds();
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            Command::new("ip").args(["netns", "delete", namespace]).status().ok();
        }
    }
}
