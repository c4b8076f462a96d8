//! Identifies the process that owns a lock or temporary file, and whether it is still alive.
//!
//! Written as `host~boot~namespace~pid~start`: a PID alone is ambiguous on a file system that many
//! nodes share, after a reboot, and in a container. Nodes may share a name, too: only the boot id
//! distinguishes them. Earlier releases wrote no boot id.

use crate::sys::fs::read::read_proc;
use crate::sys::proc::stat::Stat;
use crate::sys::process::ProcessId;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A process, unique in a cluster and over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    host: String,
    /// Boot id of the kernel (`/proc/sys/kernel/random/boot_id`), if it is known.
    boot: Option<String>,
    /// Inode of the PID namespace that `pid` is valid in.
    namespace: u64,
    pid: ProcessId,
    /// Start time in clock ticks since boot.
    start: u64,
}

impl ProcessIdentity {
    /// Returns the identity of this process.
    #[must_use]
    pub fn current() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().replace(['~', '/'], "_");
        let pid = ProcessId::current();
        let start = start(pid).unwrap_or_default();
        Self { host, boot: boot(), namespace: namespace(), pid, start }
    }

    /// Parses the output of `Display`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.splitn(6, '~').collect();
        let (host, boot, [namespace, pid, start]) = match fields[..] {
            [host, namespace, pid, start] => (host, None, [namespace, pid, start]),
            [host, boot, namespace, pid, start] => (host, Some(boot), [namespace, pid, start]),
            _ => return None,
        };
        Some(Self {
            host: host.to_owned(),
            boot: boot.map(str::to_owned),
            namespace: namespace.parse().ok()?,
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        })
    }

    /// Returns whether the process has ended; `None` if this process cannot see it. Another boot of this
    /// host looks like another host of the same name.
    #[must_use]
    pub fn is_gone(&self) -> Option<bool> {
        let current = Self::current();
        let visible = (&current.host, current.namespace) == (&self.host, self.namespace)
            && (self.boot.is_none() || self.boot == current.boot);
        visible.then(|| start(self.pid) != Some(self.start))
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, boot, namespace, pid, start } = self;
        write!(f, "{host}~")?;
        if let Some(boot) = boot {
            write!(f, "{boot}~")?;
        }
        write!(f, "{namespace}~{pid}~{start}")
    }
}

/// Returns whether the file at `path` is abandoned: its owner has ended, or, if that is unknown, the
/// file is older than `max_age`.
#[must_use]
pub fn is_abandoned(path: &Path, owner: Option<&ProcessIdentity>, max_age: Duration) -> bool {
    owner.and_then(ProcessIdentity::is_gone).unwrap_or_else(|| {
        let touched = std::fs::symlink_metadata(path).and_then(|status| status.modified());
        let age = touched.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_some_and(|age| age > max_age)
    })
}

fn boot() -> Option<String> {
    let id = read_proc("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

/// Returns 0 before Linux 3.8, which has no `/proc/self/ns/pid`.
fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |status| status.ino())
}

/// Returns the start time of the process `pid`; `None` if it does not exist or is a zombie.
fn start(pid: ProcessId) -> Option<u64> {
    let stat = Stat::read(pid.number())?;
    (!stat.is_zombie()).then_some(stat.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_told_from_a_dead_and_from_a_strange_one() {
        let me = ProcessIdentity::current();
        assert_eq!(ProcessIdentity::parse(&me.to_string()), Some(me.clone()));
        assert_eq!(me.is_gone(), Some(false));
        assert_eq!(ProcessIdentity { start: me.start + 1, ..me.clone() }.is_gone(), Some(true));
        assert_eq!(
            ProcessIdentity { pid: ProcessId::new(i32::MAX).unwrap(), ..me.clone() }.is_gone(),
            Some(true)
        );
        assert_eq!(ProcessIdentity { host: "elsewhere".into(), ..me.clone() }.is_gone(), None);
        let elsewhere = ProcessIdentity { boot: Some("of another node".into()), ..me.clone() };
        assert_eq!(ProcessIdentity { start: me.start + 1, ..elsewhere }.is_gone(), None);
        // As earlier releases wrote it.
        let old = ProcessIdentity { boot: None, ..me.clone() };
        assert_eq!(old.to_string().matches('~').count(), 3);
        assert_eq!(ProcessIdentity::parse(&old.to_string()), Some(old.clone()));
        assert_eq!(old.is_gone(), Some(false));
        assert_eq!(ProcessIdentity { start: me.start + 1, ..old }.is_gone(), Some(true));
        assert_eq!(ProcessIdentity { namespace: 1, ..me }.is_gone(), None);
        for text in ["", "a~1~2", "a~b~1~2~3~4", "a~b~1~-2~3", "a~1~-2~3"] {
            assert_eq!(ProcessIdentity::parse(text), None);
        }
    }
}
