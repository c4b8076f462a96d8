//! Hooks of the built-in runtime: in the order and with the state that the OCI runtime specification
//! tells (<https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>).

use super::Execution;
use crate::container::run::{FAILED, files};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::site::config::Hook;
use crate::sys::process::ProcessId;
use crate::sys::process::hook_program::HookProgram;
use miniserde::Serialize;
use miniserde::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// The part of what a hook printed that an error shows, in characters.
const SHOWN: usize = 500;

#[derive(Serialize)]
struct State {
    #[serde(rename = "ociVersion")]
    version: &'static str,
    id: String,
    status: &'static str,
    pid: i32,
    bundle: String,
    annotations: BTreeMap<&'static str, String>,
}

/// Runs the hooks of a container, stage by stage.
pub struct HookRunner<'a> {
    execution: Execution<'a>,
    /// PID of the stub: hooks of the engine find the user's stderr among its descriptors.
    stub: ProcessId,
    /// Everything that hooks print.
    output: File,
}

impl<'a> HookRunner<'a> {
    /// Makes the file for what hooks print. Called by the stub.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn new(execution: Execution<'a>) -> Result<Self> {
        let output = files::create_log(&execution.prepared.bundle, "hooks.log")?.into();
        Ok(Self { execution, stub: ProcessId::current(), output })
    }

    /// Runs all hooks of `stage`, for the container whose first process has the number `pid` where the
    /// hooks run; it has ended if there is none.
    ///
    /// # Errors
    /// That of the first hook that fails; exit code 125.
    pub fn run_all(&self, stage: &str, pid: Option<ProcessId>) -> Result<()> {
        let hooks = self.execution.hooks.iter().filter(|hook| hook.stage == stage);
        let mut state = None;
        for hook in hooks {
            let state = state.get_or_insert_with(|| self.state(stage, pid));
            self.run(hook, state).map_err(|error| self.explain(stage, error))?;
        }
        Ok(())
    }

    /// Says of a hook before the start what it has prevented.
    fn explain(&self, stage: &str, error: Error) -> Error {
        if matches!(stage, "poststart" | "poststop") {
            return error;
        }
        let program = self.execution.plan.process.args.first().map_or("", String::as_str);
        Error::caused_by(format!("cannot start '{program}' in the container"), error)
    }

    fn state(&self, stage: &str, pid: Option<ProcessId>) -> String {
        let status = match stage {
            "poststart" => "running",
            "poststop" => "stopped",
            "startContainer" => "created",
            _ => "creating",
        };
        json::to_string(&State {
            version: "1.0.2",
            id: self.execution.id.to_owned(),
            status,
            pid: pid.map_or(0, ProcessId::number),
            bundle: self.execution.plan.site.bundle_dir.display().to_string(),
            annotations: self.execution.plan.annotations(self.stub),
        })
    }

    fn run(&self, hook: &Hook, state: &str) -> Result<()> {
        let context = || format!("the {} hook {} failed", hook.stage, hook.path.display());
        log::debug("runtime", || format!("{} hook {}", hook.stage, hook.path.display()));
        // Programs of the image get the user's streams and nothing of root's.
        let output = (hook.stage != "startContainer").then_some(&self.output);
        let length = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        let start = output.map_or(0, length);
        let program = HookProgram {
            path: &hook.path,
            args: &hook.args,
            env: &hook.env,
            timeout: hook.timeout.map(|seconds| Duration::from_secs(seconds.into())),
            input: state,
            output,
        };
        program.run().context(context).map_err(|error| {
            let printed = output.map_or(String::new(), |file| printed_since(file, start));
            let error = error.with_exit_code(FAILED);
            if hook.stage == "startContainer" {
                error.with_hint(format!("the image must have a working {}", hook.path.display()))
            } else if printed.is_empty() {
                error
            } else {
                error.with_hint(format!("the hook printed: {printed}"))
            }
        })
    }
}

/// The beginning of what was printed from byte `start` on, in one line.
fn printed_since(output: &File, start: u64) -> String {
    let mut bytes = vec![0; SHOWN * 4];
    let count = output.read_at(&mut bytes, start).unwrap_or_default();
    bytes.truncate(count);
    let text = String::from_utf8_lossy(&bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(SHOWN).collect()
}

/// Tells of a hook whose failure does not end the run.
pub fn warn(error: &Error) {
    log::warn("runtime", || error.to_string());
}
