//! The OCI runtime of the site, by its answer to `--version`.

use crate::error::{Context, Result};
use crate::site::config::Hook;
use std::path::{Path, PathBuf};

/// OCI runtimes that are called in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// runc, the reference implementation.
    Runc,
    /// crun, which can leave processes in the cgroup of the workload manager.
    Crun,
    /// Another runtime with the command line of runc.
    Other,
}

/// An OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    /// The program, `runcPath` of sarus.json.
    pub path: PathBuf,
    /// Kind of the runtime.
    pub kind: RuntimeKind,
    /// Version in the runtime's own words, such as `1.1.5+ds1`.
    pub version: String,
}

impl OciRuntime {
    /// Reads the answer of the program `path` to `--version`: `runc version 1.1.5`, and more lines.
    #[must_use]
    pub fn parse(path: &Path, answer: &str) -> Self {
        let mut words = answer.lines().next().unwrap_or_default().split_whitespace();
        let kind = match words.next() {
            Some("runc") => RuntimeKind::Runc,
            Some("crun") => RuntimeKind::Crun,
            _ => RuntimeKind::Other,
        };
        let version = words.find(|word| *word != "version").unwrap_or_default();
        Self { path: path.to_owned(), kind, version: version.to_owned() }
    }

    /// True if the runtime makes cgroups. Processors and devices must be in config.json then; otherwise
    /// those of the workload manager's cgroups hold.
    #[must_use]
    pub fn makes_cgroups(&self) -> bool {
        self.kind != RuntimeKind::Crun
    }

    /// Rejects `hooks` of the stage `startContainer`, which are programs of the image, unless the
    /// runtime is known to execute them as the container's user.
    ///
    /// # Errors
    /// If there is such a hook, and the runtime is neither runc nor crun.
    pub fn check_start_hooks<'a>(&self, mut hooks: impl Iterator<Item = &'a Hook>) -> Result<()> {
        let hook = hooks.find(|hook| !hook.is_of_host());
        let Some(hook) = hook.filter(|_| self.kind == RuntimeKind::Other) else { return Ok(()) };
        let context = || format!("cannot use the startContainer hook {}", hook.path.display());
        Err(format!("{} may execute it as root", self.path.display())).context(context)
    }

    /// True for a release of runc without the fixes of CVE-2025-31133, CVE-2025-52565 and
    /// CVE-2025-52881, which came with 1.2.8, 1.3.3 and 1.4.0-rc.3.
    #[must_use]
    pub fn has_known_holes(&self) -> bool {
        let numbers: Vec<u32> = self
            .version
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|number| number.parse().ok())
            .take(3)
            .collect();
        let early = ["1.4.0-rc.1", "1.4.0-rc.2"].iter().any(|rc| self.version.starts_with(rc));
        let old = match numbers.as_slice() {
            [1, 2, patch] => *patch < 8,
            [1, 3, patch] => *patch < 3,
            [major, minor, ..] => (*major, *minor) < (1, 2),
            _ => false,
        };
        self.kind == RuntimeKind::Runc && (old || early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_what_they_say() {
        for (answer, kind, version) in [
            ("runc version 1.1.5+ds1\ncommit: x\n", RuntimeKind::Runc, "1.1.5+ds1"),
            ("crun version 1.8.1\n", RuntimeKind::Crun, "1.8.1"),
            ("crun 0.19.1\n", RuntimeKind::Crun, "0.19.1"),
            ("youki version 0.5.0", RuntimeKind::Other, "0.5.0"),
            ("not runc version 1.0.0", RuntimeKind::Other, "runc"),
            ("", RuntimeKind::Other, ""),
        ] {
            let runtime = OciRuntime::parse(Path::new("/r"), answer);
            assert_eq!((runtime.kind, runtime.version.as_str()), (kind, version));
        }
    }

    #[test]
    fn releases_with_known_holes_are_told_apart() {
        for (version, expected) in [
            ("1.1.5+ds1", true),
            ("1.0.0-rc93", true),
            ("1.2.7", true),
            ("1.2.8", false),
            ("1.3.2", true),
            ("1.3.3", false),
            ("1.3.6", false),
            ("1.4.0-rc.2", true),
            ("1.4.0-rc.3", false),
            ("1.5.0", false),
            ("2.0.0", false),
            ("unknown", false),
        ] {
            let runtime = |kind| OciRuntime { path: "/r".into(), kind, version: version.into() };
            assert_eq!(runtime(RuntimeKind::Runc).has_known_holes(), expected, "{version}");
            assert!(!runtime(RuntimeKind::Crun).has_known_holes());
        }
    }
}
