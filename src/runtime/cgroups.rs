//! Takes away what an OCI runtime leaves behind when it is killed: cgroups, and a raw terminal.
//!
//! runc makes a cgroup for each container and removes it at the end, unless it is killed: and it is
//! killed when the engine is. So a [`Janitor`] waits for the engine's end and removes what is left.
//! Where it was killed too (a workload manager ends all of a job at once), the janitor of the next
//! container does it.

use crate::error::{Because, Result};
use crate::log;
use crate::sys::process;
use crate::sys::terminal::Terminal;
use rustix::fd::{AsFd, AsRawFd};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes that were killed may take to go: some wait for a file server.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cgroup without processes may be one that a runtime is about to use; not after this time.
const STALE: Duration = Duration::from_secs(60);

/// What the name of every container starts with.
pub const PREFIX: &str = "container-";

/// Where this process stands, opened before the runtime starts: it may get a /proc of its own,
/// which hides the host's.
#[derive(Debug)]
pub struct Position {
    mounts: File,
    membership: File,
    pid_namespace: File,
}

impl Position {
    /// Of this process, now.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn now() -> Result<Self> {
        let open = |name: &str| {
            let path = format!("/proc/self/{name}");
            File::open(&path).because(|| format!("cannot open {path}"))
        };
        let (mounts, membership) = (open("mountinfo")?, open("cgroup")?);
        Ok(Self { mounts, membership, pid_namespace: open("ns/pid")? })
    }
}

/// A process of root's that outlives the engine by a moment.
#[derive(Debug)]
pub struct Janitor {
    pid: u32,
    /// Closed when this process ends, however it ends: the sign to start.
    sign: PipeWriter,
}

impl Janitor {
    /// Starts it, for the container that the runtime knows by `id` and that uses `terminal`. The
    /// runtime works meanwhile.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start(id: &str, position: Position, terminal: Option<&Terminal>) -> Result<Self> {
        let (waiting, sign) = std::io::pipe().because(|| "cannot make a pipe".into())?;
        let Position { mounts, membership, pid_namespace } = position;
        let work = || tidy(&waiting, &folders(id, &mounts, &membership), terminal);
        // Not in the namespace that ends with the runtime.
        process::leave_pid_namespace(&pid_namespace)?;
        let mut keep = vec![waiting.as_fd(), mounts.as_fd(), membership.as_fd()];
        keep.extend(terminal.map(AsFd::as_fd));
        let keep: Vec<_> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        let pid = process::fork_detached(&keep, sign.as_raw_fd(), work)
            .because(|| "cannot start the process that tidies up".into())?;
        Ok(Self { pid, sign })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it do its work now, and waits for the end of it.
    pub fn dismiss(self) {
        drop(self.sign);
        process::wait_for(self.pid);
    }
}

/// Removes what others left; waits for the sign; then puts the terminal right, and removes each
/// folder as soon as it is empty.
fn tidy(sign: &PipeReader, folders: &[PathBuf], terminal: Option<&Terminal>) {
    folders.iter().filter_map(|folder| folder.parent()).for_each(remove_stale);
    let mut sign = sign;
    while matches!(sign.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::Interrupted)
    {
    }
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    let start = Instant::now();
    for folder in folders {
        while let Err(error) = std::fs::remove_dir(folder) {
            if error.raw_os_error() != Some(libc::EBUSY) || start.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Removes old cgroups of containers; the kernel refuses those that hold a process.
fn remove_stale(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(is_id);
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_ours && age().is_some_and(|age| age > STALE) {
            // In use, then.
            std::fs::remove_dir(entry.path()).ok();
        }
    }
}

/// Other programs call theirs `container-` too; sixteen letters behind it are ours.
fn is_id(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Where a runtime may make cgroups named `id`: below our own in each hierarchy, or beside it.
fn folders(id: &str, mounts: &File, membership: &File) -> Vec<PathBuf> {
    let read = |mut file: &File| {
        let mut text = String::new();
        // What cannot be read has nothing to tidy up.
        file.read_to_string(&mut text).ok();
        text
    };
    let (mounts, own) = (read(mounts), read(membership));
    let mut folders = Vec::new();
    for (point, root, controllers) in mounts.lines().filter_map(hierarchy) {
        for (_, path) in own.lines().filter_map(member).filter(|(names, _)| *names == controllers) {
            // The mount may show only a part of the hierarchy, as in a container.
            let below = path.strip_prefix(root).unwrap_or(path);
            let own = Path::new(point).join(below.trim_start_matches('/'));
            folders.extend(own.parent().map(|parent| parent.join(id)));
            folders.push(own.join(id));
        }
    }
    log::debug("runtime", || format!("cgroups of {id}: {folders:?}"));
    folders
}

/// A line of mountinfo, if it is of a cgroup hierarchy: mount point, root, and controllers as
/// `/proc/self/cgroup` lists them.
fn hierarchy(line: &str) -> Option<(&str, &str, String)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut fields = filesystem.split(' ');
    match fields.next()? {
        "cgroup2" => Some((point, root, String::new())),
        "cgroup" => {
            let is_controller =
                |word: &&str| !matches!(*word, "rw" | "ro" | "xattr" | "clone_children");
            let options = fields.nth(1)?.split(',').filter(is_controller);
            let options = options.filter(|word| !word.starts_with("release_agent"));
            Some((point, root, options.collect::<Vec<_>>().join(",")))
        }
        _ => None,
    }
}

/// A line of `/proc/self/cgroup`: controllers and path.
fn member(line: &str) -> Option<(&str, &str)> {
    line.split_once(':')?.1.split_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_and_memberships_are_matched() {
        let v1 = "34 25 0:29 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct";
        let named = "35 25 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        let v2 = "36 25 0:31 /job /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(hierarchy(v1), Some(("/sys/fs/cgroup/cpu", "/", "cpu,cpuacct".into())));
        assert_eq!(hierarchy(named), Some(("/sys/fs/cgroup/systemd", "/", "name=systemd".into())));
        assert_eq!(hierarchy(v2), Some(("/sys/fs/cgroup", "/job", String::new())));
        assert_eq!(hierarchy("22 1 0:5 / /proc rw - proc proc rw"), None);
        assert_eq!(member("4:cpu,cpuacct:/a:b"), Some(("cpu,cpuacct", "/a:b")));
        assert_eq!(member("0::/"), Some(("", "/")));
    }
}
