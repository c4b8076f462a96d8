//! OCI bundles of a test's own, for runtimes without an engine: what hooks get from others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::image::copy_busybox_rootfs;
use super::{Output, Runtime, User};

/// A bundle with a root file system; change `config` before it runs.
#[derive(Debug)]
pub struct Bundle {
    pub directory: PathBuf,
    pub config: Value,
}

impl Bundle {
    /// A bundle of busybox in the new directory `directory`, which runs `args` as `user`.
    pub fn busybox(directory: PathBuf, user: &User, args: &[&str]) -> Self {
        fs::create_dir_all(&directory).unwrap();
        copy_busybox_rootfs(&directory.join("rootfs"));
        Self::of(directory, user, args)
    }

    /// A bundle of what lies in `rootfs` of `directory`.
    pub fn of(directory: PathBuf, user: &User, args: &[&str]) -> Self {
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
                "args": args, "env": ["PATH=/usr/bin:/bin"], "cwd": "/", "noNewPrivileges": true,
            },
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
            "annotations": {},
        });
        Self { directory, config }
    }

    /// Adds a variable to the environment of the program.
    pub fn env(mut self, variable: &str) -> Self {
        self.config["process"]["env"].as_array_mut().unwrap().push(variable.into());
        self
    }

    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.config["annotations"][name] = value.into();
        self
    }

    /// Adds a hook that is run by the binary `program`, before the start.
    pub fn prestart(mut self, program: &Path, env: &[String]) -> Self {
        let hook = json!({"path": program, "env": env});
        match self.config["hooks"]["prestart"].as_array_mut() {
            Some(list) => list.push(hook),
            None => self.config["hooks"] = json!({"prestart": [hook]}),
        }
        self
    }

    /// Writes config.json; what runs it with `runtime`, as root.
    pub fn command(&self, runtime: Runtime) -> Command {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        fs::write(self.directory.join("config.json"), self.config.to_string()).unwrap();
        // See `Installation::as_user`.
        let script = "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(runtime.path()).arg("run").arg("--bundle").arg(&self.directory);
        command.arg(format!("hooks-{}-{number}", std::process::id()));
        command
    }

    pub fn run(&self, runtime: Runtime) -> Output {
        Output::of(&mut self.command(runtime))
    }
}
