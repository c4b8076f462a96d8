//! Hooks of a container: the site's that have something to do, framed by the engine's own. Pure
//! functions. <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>
//!
//! The stages `prestart` and `createRuntime` come before `createContainer`, which is the last one
//! before the OCI runtime goes on to work as root in the container's tree. So the first hook of all
//! confines the root file system, and the last one makes sure that nobody moved the mounts that
//! root relies on.

use crate::hook::{glibc, mpi, slurm, ssh};
use crate::site::config::Hook;
use crate::sys::fs::resolve::FileId;
use crate::sys::process::limits::Limits;
use miniserde::json::{Object, Value};
use std::path::{Path, PathBuf};

/// A hook of config.json.
#[derive(Debug, Clone)]
pub struct StagedHook {
    /// One of `prestart`, `poststop` and so on.
    pub stage: &'static str,
    /// The program.
    pub path: PathBuf,
    /// True if the engine added it.
    pub is_engines: bool,
    /// The object that config.json has.
    json: Value,
}

/// Facts that `confine_hook` is told by its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    /// This program.
    pub program: &'a Path,
    /// The root file system of the container, in the bundle.
    pub rootfs: &'a Path,
    /// The root directory as the engine made it.
    pub root: FileId,
    /// Root of the file system on `/dev`.
    pub dev: FileId,
    /// Limits of the caller, which the container's first process gets from the last hook.
    pub limits: &'a Limits,
}

/// Stages in which hooks run before root has ended its work in the container.
const EARLY: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

/// Hooks of ours that do nothing unless the engine's annotation asks for them.
const IDLE_UNLESS_ASKED: [(&str, &str); 4] = [
    ("glibc_hook", glibc::ENABLED),
    ("mpi_hook", mpi::ENABLED),
    ("slurm_global_sync_hook", slurm::ENABLED),
    ("ssh_hook", ssh::ENABLED),
];

/// Puts the hooks in the order in which they run. Those of `site` that are this program, as `is_ours`
/// tells by their index, and that nobody `asked` for are left out: each costs a start of a process.
#[must_use]
pub fn arrange(
    site: &[Hook],
    is_ours: impl Fn(usize) -> bool,
    asked: &[&str],
    confinement: Confinement<'_>,
) -> Vec<StagedHook> {
    let busy = site.iter().enumerate().filter(|(at, hook)| !is_ours(*at) || is_asked(hook, asked));
    let mut hooks: Vec<_> = busy.map(|(_, hook)| StagedHook::of_site(hook)).collect();
    let first = EARLY.iter().find(|stage| hooks.iter().any(|hook| hook.stage == **stage));
    match first {
        Some(&"createContainer") => hooks.insert(0, confinement.hook("createContainer", "confine")),
        Some(stage) => hooks.insert(0, confinement.hook(stage, "enter")),
        None => {}
    }
    hooks.push(confinement.hook("createContainer", "verify"));
    hooks
}

/// True if one of our hooks has something to do.
fn is_asked(hook: &Hook, asked: &[&str]) -> bool {
    // The applet is found by what the program is called, which is the first argument if any.
    let name = hook.args.first().map_or(hook.path.as_path(), Path::new).file_name();
    let idle = IDLE_UNLESS_ASKED.iter().find(|(known, _)| name.is_some_and(|name| name == *known));
    idle.is_none_or(|(_, annotation)| asked.contains(annotation))
}

/// The object `hooks` of config.json.
#[must_use]
pub fn to_json(hooks: &[StagedHook]) -> Value {
    let mut stages = Object::new();
    for hook in hooks {
        let stage = stages.entry(hook.stage.to_owned());
        let list = stage.or_insert_with(|| Value::Array([].into_iter().collect()));
        if let Value::Array(list) = list {
            list.push(hook.json.clone());
        }
    }
    Value::Object(stages)
}

impl StagedHook {
    fn of_site(hook: &Hook) -> Self {
        let (path, json) = (hook.path.clone(), hook.verbatim.clone());
        Self { stage: hook.stage, path, is_engines: false, json }
    }
}

impl Confinement<'_> {
    /// `confine_hook STEP ROOTFS ROOT DEV LIMITS`
    fn hook(&self, stage: &'static str, step: &str) -> StagedHook {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let words = ["confine_hook".into(), step.into(), text(self.rootfs)];
        let facts = [self.root.to_string(), self.dev.to_string(), self.limits.to_string()];
        let words = words.into_iter().chain(facts);
        let args = Value::Array(words.map(Value::String).collect());
        let path = Value::String(text(self.program));
        let object = [("path".to_owned(), path), ("args".to_owned(), args)];
        let json = Value::Object(object.into_iter().collect());
        StagedHook { stage, path: self.program.to_owned(), is_engines: true, json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniserde::json;

    fn limits() -> Limits {
        ",".repeat(37).parse().unwrap()
    }

    /// The hooks of `site` among the engine's own.
    fn arranged(site: &[Hook], is_ours: bool, asked: &[&str]) -> Vec<StagedHook> {
        let confinement = Confinement {
            program: Path::new("/bin/sarusbox"),
            rootfs: Path::new("/b/rootfs"),
            root: "1:2".parse().unwrap(),
            dev: "3:4".parse().unwrap(),
            limits: &limits(),
        };
        arrange(site, |_| is_ours, asked, confinement)
    }

    fn site(hooks: &[(&'static str, &str)]) -> Vec<Hook> {
        let hook = |(stage, path): &(&'static str, &str)| {
            let json = format!(r#"{{"path":"{path}","timeout":9}}"#);
            let verbatim = json::from_str(&json).unwrap();
            Hook { stage, path: path.into(), verbatim, ..Hook::default() }
        };
        hooks.iter().map(hook).collect()
    }

    /// Stages, and the second word of the engine's own hooks or the path of the site's.
    fn order(hooks: &[StagedHook]) -> Vec<String> {
        let word = |hook: &StagedHook| {
            let text = json::to_string(&hook.json);
            let step = ["enter", "confine", "verify"].into_iter().find(|step| {
                text.contains(&format!(r#"["confine_hook","{step}","/b/rootfs","1:2","3:4",""#))
            });
            step.map_or_else(|| hook.path.display().to_string(), str::to_owned)
        };
        hooks.iter().map(|hook| format!("{} {}", hook.stage, word(hook))).collect()
    }

    #[test]
    fn the_engines_hooks_come_first_and_last() {
        let arranged = |hooks| order(&arranged(&site(hooks), false, &[]));
        assert_eq!(arranged(&[]), ["createContainer verify"]);
        assert_eq!(arranged(&[("poststop", "/p")]), ["poststop /p", "createContainer verify"]);
        assert_eq!(
            arranged(&[("prestart", "/a"), ("prestart", "/b"), ("createContainer", "/c")]),
            [
                "prestart enter",
                "prestart /a",
                "prestart /b",
                "createContainer /c",
                "createContainer verify"
            ]
        );
        assert_eq!(
            arranged(&[("createRuntime", "/a")]),
            ["createRuntime enter", "createRuntime /a", "createContainer verify"]
        );
        assert_eq!(
            arranged(&[("createContainer", "/a")]),
            ["createContainer confine", "createContainer /a", "createContainer verify"]
        );
    }

    #[test]
    fn hooks_of_ours_that_nobody_asks_for_are_left_out() {
        let names = [("prestart", "/x/ssh_hook"), ("prestart", "/x/timestamp_hook")];
        let mut hooks = site(&names);
        let arranged = |hooks: &[Hook], ours: bool, asked: &[&str]| {
            order(&super::tests::arranged(hooks, ours, asked)).join(", ")
        };
        assert!(!arranged(&hooks, true, &[]).contains("ssh_hook"));
        assert!(arranged(&hooks, true, &[]).contains("timestamp_hook"));
        assert!(arranged(&hooks, true, &["com.hooks.ssh.enabled"]).contains("ssh_hook"));
        // Somebody else's program of the same name.
        assert!(arranged(&hooks, false, &[]).contains("ssh_hook"));
        // The name that it is called by decides.
        hooks[0].args = vec!["timestamp_hook".into()];
        assert!(arranged(&hooks, true, &[]).contains("ssh_hook"));
    }

    #[test]
    fn config_json_has_the_sites_objects_as_they_stand() {
        let hooks = arranged(&site(&[("prestart", "/a")]), false, &[]);
        let text = json::to_string(&to_json(&hooks));
        assert!(text.contains(r#"{"path":"/a","timeout":9}"#), "{text}");
        assert!(text.starts_with(r#"{"createContainer":["#), "{text}");
    }
}
