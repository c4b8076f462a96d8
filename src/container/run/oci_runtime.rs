//! The OCI runtime of the site: which one it is, and which version, by what it says itself.
//!
//! Asking costs a start of the runtime, some 10 ms for runc. So the answer is kept in `CACHE`, a
//! directory of root's in memory, for the very file that gave it.

use crate::error::{Context, Error, Result};
use crate::log;
use crate::site::config::Config;
use crate::site::trust;
use crate::sys::fs::{FileId, resolve};
use crate::sys::ids;
use crate::sys::process::output;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::path::Path;

/// Kept answers; root's alone to change. Lost when the node restarts.
const CACHE: &str = "/run/sarus";

/// Most that a runtime says of itself, in bytes.
const MAX_ANSWER: usize = 4096;

/// Runtimes that differ in what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The reference.
    Runc,
    /// It can leave the processes in the cgroup that the workload manager put them into.
    Crun,
    /// Any that takes runc's command line.
    Other,
}

/// An OCI runtime, by its answer to `--version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    /// Which one it is.
    pub kind: Kind,
    /// Its version as it says it, such as `1.1.5+ds1`.
    pub version: String,
}

impl OciRuntime {
    /// The runtime that `config` names, which nobody but root may be able to change.
    ///
    /// # Errors
    /// When it can be tampered with, or does not answer.
    pub fn identify(config: &Config) -> Result<Self> {
        let program = trust::program(&config.runc_path, config.checks)?;
        let (name, stamp) = (cache_name(&program)?, stamp(&program)?);
        if let Some(known) = recall(&name, &stamp) {
            return Ok(known);
        }
        let answer = ask(&config.runc_path)?;
        if ids::is_effective_root() {
            keep(&name, &format!("{stamp}\n{answer}")).unwrap_or_else(|error| {
                log::info("runtime", || format!("{error}: asked anew at each start"));
            });
        }
        Ok(Self::parse(&answer))
    }

    /// Understands an answer to `--version`: `runc version 1.1.5`, and more lines.
    #[must_use]
    pub fn parse(answer: &str) -> Self {
        let mut words = answer.lines().next().unwrap_or_default().split_whitespace();
        let kind = match words.next() {
            Some("runc") => Kind::Runc,
            Some("crun") => Kind::Crun,
            _ => Kind::Other,
        };
        let version = words.find(|word| *word != "version").unwrap_or_default();
        Self { kind, version: version.to_owned() }
    }

    /// Whether the processors of the container are confined by a cgroup: then the list must be in
    /// the bundle. Else they are inherited, as everything that the workload manager set.
    #[must_use]
    pub fn makes_cgroups(&self) -> bool {
        self.kind != Kind::Crun
    }

    /// Refuses hooks of the stage `startContainer`, which are programs of the image, where the OCI
    /// runtime is not known to execute them as the container's user.
    ///
    /// # Errors
    /// When sarus.json has such hooks, and this is neither runc nor crun.
    pub fn check_start_hooks(&self, config: &Config) -> Result<()> {
        let hook = config.hooks.list.iter().find(|hook| !hook.is_of_host());
        let Some(hook) = hook.filter(|_| self.kind == Kind::Other) else { return Ok(()) };
        let cannot = || format!("cannot use the startContainer hook {}", hook.path.display());
        let runtime = config.runc_path.display();
        Err(format!("{runtime} may execute it as root")).context(cannot)
    }

    /// Whether this is a release of runc without the fixes of CVE-2025-31133, CVE-2025-52565 and
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
        self.kind == Kind::Runc && (old || early)
    }
}

/// Asks a runtime what it is, with the rights that this process has.
///
/// # Errors
/// When it does not answer.
pub fn ask(path: &Path) -> Result<String> {
    output::output(path, &["--version"], MAX_ANSWER)
        .map_err(|error| error.with_hint("runcPath of sarus.json must name an OCI runtime"))
}

fn cache_name(program: &OwnedFd) -> Result<String> {
    Ok(format!("runtime-{}", FileId::from_fd(program)?))
}

/// Size and times of a program: whoever changes it changes these.
fn stamp(program: &OwnedFd) -> Result<String> {
    let status = resolve::status(program).context(|| "cannot stat the OCI runtime".into())?;
    let rustix::fs::Stat { st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, .. } = status;
    Ok(format!("{st_size} {st_mtime}.{st_mtime_nsec} {st_ctime}.{st_ctime_nsec}"))
}

fn recall(name: &str, stamp: &str) -> Option<OciRuntime> {
    let text = trust::read(&Path::new(CACHE).join(name), 2 * MAX_ANSWER as u64).ok()?;
    let answer = text.strip_prefix(stamp)?.strip_prefix('\n')?;
    Some(OciRuntime::parse(answer))
}

/// Writes `text` as the file `name` of the cache, whole or not at all.
fn keep(name: &str, text: &str) -> Result<()> {
    let cannot = || format!("cannot keep what the OCI runtime is in {CACHE}");
    match rustix::fs::mkdir(CACHE, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(errno).context(cannot),
    }
    let directory = trust::find(Path::new(CACHE))?.ok_or_else(|| Error::new(cannot()))?;
    let new = format!(".{name}.{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::unlinkat(&directory, &new, rustix::fs::AtFlags::empty()).ok();
    let file = rustix::fs::openat(&directory, &new, flags, Mode::from_raw_mode(0o644));
    let mut file = std::fs::File::from(file.context(cannot)?);
    file.write_all(text.as_bytes()).context(cannot)?;
    rustix::fs::renameat(&directory, &new, &directory, name).context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_what_they_say() {
        for (answer, kind, version) in [
            ("runc version 1.1.5+ds1\ncommit: x\n", Kind::Runc, "1.1.5+ds1"),
            ("crun version 1.8.1\n", Kind::Crun, "1.8.1"),
            ("crun 0.19.1\n", Kind::Crun, "0.19.1"),
            ("youki version 0.5.0", Kind::Other, "0.5.0"),
            ("not runc version 1.0.0", Kind::Other, "runc"),
            ("", Kind::Other, ""),
        ] {
            assert_eq!(OciRuntime::parse(answer), OciRuntime { kind, version: version.into() });
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
            let runtime = |kind| OciRuntime { kind, version: version.into() };
            assert_eq!(runtime(Kind::Runc).has_known_holes(), expected, "{version}");
            assert!(!runtime(Kind::Crun).has_known_holes());
        }
    }
}
