//! Hooks of config.json: those of the site, framed by the engine's own.
//!
//! The stages `prestart` and `createRuntime` come before `createContainer`, the last stage before the
//! OCI runtime continues its work as root in the container's tree. So the engine's first hook confines
//! the root file system before any other runs, and its last one verifies the mounts that root relies
//! on.

use crate::container::plan::hooks as planned;
use crate::site::config::Hook;
use crate::sys::fs::FileId;
use crate::sys::process::limits::CallerLimits;
use miniserde::json::Value;
use std::path::{Path, PathBuf};

/// A hook of config.json.
#[derive(Debug, Clone)]
pub struct StagedHook {
    /// Stage, such as `prestart` or `poststop`.
    pub stage: &'static str,
    /// The program.
    pub path: PathBuf,
    /// True if the engine added it.
    pub is_engines: bool,
    /// The hook's object in config.json.
    json: Value,
}

/// Arguments of `confine_hook`.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    /// This program.
    pub program: &'a Path,
    /// Root file system of the container, in the bundle.
    pub rootfs: &'a Path,
    /// Identity of the root directory that the engine made.
    pub root: FileId,
    /// Identity of the root of the file system on `/dev`.
    pub dev: FileId,
    /// Limits of the caller, which the container's first process gets from the last hook.
    pub limits: &'a CallerLimits,
}

/// Stages whose hooks run before root has ended its work in the container.
const EARLY: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

/// Puts the hooks in the order in which they run: those of `site` that have something to do, and the
/// engine's own.
#[must_use]
pub fn arrange(site: &[&Hook], confinement: Confinement<'_>) -> Vec<StagedHook> {
    let mut hooks: Vec<_> = site.iter().map(|hook| StagedHook::from_site(hook)).collect();
    let first = EARLY.iter().find(|stage| hooks.iter().any(|hook| hook.stage == **stage));
    match first {
        Some(&"createContainer") => hooks.insert(0, confinement.hook("createContainer", "confine")),
        Some(stage) => hooks.insert(0, confinement.hook(stage, "enter")),
        None => {}
    }
    hooks.push(confinement.hook("createContainer", "verify"));
    hooks
}

/// The object `hooks` of config.json.
#[must_use]
pub fn to_json(hooks: &[StagedHook]) -> Value {
    planned::stages(hooks.iter().map(|hook| (hook.stage, &hook.json)))
}

impl StagedHook {
    fn from_site(hook: &Hook) -> Self {
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
    use crate::site::config::Hook;
    use miniserde::json;

    /// The hooks of `site` among the engine's own, without requests.
    fn arranged(site: &[Hook], is_this_program: bool) -> Vec<StagedHook> {
        let confinement = Confinement {
            program: Path::new("/bin/sarusbox"),
            rootfs: Path::new("/b/rootfs"),
            root: "1:2".parse().unwrap(),
            dev: "3:4".parse().unwrap(),
            limits: &",".repeat(37).parse().unwrap(),
        };
        let planned = planned::plan(site, &[]);
        arrange(&planned::active(&planned, |_| is_this_program), confinement)
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
        let arranged = |hooks| order(&arranged(&site(hooks), false));
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
    fn idle_hooks_of_the_engine_are_left_out() {
        let hooks = site(&[("prestart", "/x/ssh_hook"), ("prestart", "/x/timestamp_hook")]);
        let arranged = |is_this_program| order(&arranged(&hooks, is_this_program)).join(", ");
        assert!(!arranged(true).contains("ssh_hook"));
        assert!(arranged(true).contains("timestamp_hook"));
        // Another program with the same name.
        assert!(arranged(false).contains("ssh_hook"));
    }

    #[test]
    fn config_json_has_the_sites_objects_as_they_stand() {
        let hooks = arranged(&site(&[("prestart", "/a")]), false);
        let text = json::to_string(&to_json(&hooks));
        assert!(text.contains(r#"{"path":"/a","timeout":9}"#), "{text}");
        assert!(text.starts_with(r#"{"createContainer":["#), "{text}");
    }
}
