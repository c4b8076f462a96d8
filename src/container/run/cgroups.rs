//! Keeps a container in the cgroups of the caller, and takes away what an OCI runtime leaves behind
//! when it is killed: cgroups, and a raw terminal.
//!
//! runc makes a cgroup for each container and removes it at the end, unless it is killed: and it is
//! killed when the engine is. So a [`Janitor`] waits for the engine's end and removes what is left.
//! Where it was killed too (a workload manager ends all of a job at once), the janitor of the next
//! container does it.

use super::execute::FAILED;
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::read::read_proc;
use crate::sys::proc::mountinfo::MountInfo;
use crate::sys::process::pidfd::Process;
use crate::sys::process::{self, ProcessId};
use crate::sys::terminal::Terminal;
use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{Mode, OFlags};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes that were killed may take to go: some wait for a file server.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a runtime may take to go of which the engine was killed before it could tell.
const MOMENT: Duration = Duration::from_secs(1);

/// What the engine says when all has ended, and of the terminal.
const ENDED: u8 = b'.';
const LEFT: u8 = b'-';
const TAKEN: u8 = b'+';

/// A cgroup without processes may be one that a runtime is about to use; not after this time.
const STALE: Duration = Duration::from_secs(60);

/// What the name of every container starts with.
pub const PREFIX: &str = "container-";

/// A process of root's that outlives the engine by a moment.
#[derive(Debug)]
pub struct Janitor {
    pid: ProcessId,
    /// Closed when this process ends, however it ends: the sign to start. What is told before: the
    /// number of a child or 0, in four bytes, and then words of one byte.
    sign: PipeWriter,
}

impl Janitor {
    /// Starts it, for the container that the runtime will know by `id` and that uses `terminal`: before
    /// the runtime, or it would be missing when the engine is killed in between.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start(id: &str, terminal: Option<&Terminal>) -> Result<Self> {
        // Not by itself: soon the runtime may hide this /proc by one of its own.
        let folders = folders(id);
        log::debug("runtime", || format!("cgroups of {id}: {folders:?}"));
        let (waiting, sign) = std::io::pipe().context(|| "cannot make a pipe".into())?;
        let mut keep = vec![waiting.as_raw_fd()];
        keep.extend(terminal.map(|terminal| terminal.as_fd().as_raw_fd()));
        let work = || tidy(waiting, &folders, terminal);
        let pid = process::fork_detached(&keep, sign.as_raw_fd(), work)
            .context(|| "cannot start the process that tidies up".into())?;
        Ok(Self { pid, sign })
    }

    /// Tells it of the child whose end is the end of everything, or that there is none.
    pub fn expect(&self, child: Option<ProcessId>) {
        self.tell(&child.map_or(0, ProcessId::number).to_ne_bytes());
    }

    /// Tells it that the terminal is somebody else's now, or is so no more.
    pub fn leave_terminal(&self, is_left: bool) {
        self.tell(&[if is_left { LEFT } else { TAKEN }]);
    }

    fn tell(&self, word: &[u8]) {
        // Without a janitor, the one of the next container does the work.
        (&self.sign).write_all(word).ok();
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> ProcessId {
        self.pid
    }

    /// Lets it do its work now, and waits for the end of it.
    pub fn dismiss(self) {
        self.tell(&[ENDED]);
        drop(self.sign);
        process::wait(self.pid);
    }
}

/// Removes what others left; waits for the sign; then puts the terminal right, and removes each
/// folder as soon as it is empty.
fn tidy(mut sign: PipeReader, folders: &[PathBuf], terminal: Option<&Terminal>) {
    folders.iter().filter_map(|folder| folder.parent()).for_each(remove_stale);
    let mut number = [0; 4];
    let child = sign.read_exact(&mut number).ok();
    let child = child.and_then(|()| ProcessId::new(i32::from_ne_bytes(number)));
    let child = child.map(Process::from_pid);
    let mut rest = vec![];
    sign.read_to_end(&mut rest).ok();
    let is_left = rest.iter().rfind(|word| [LEFT, TAKEN].contains(*word)) == Some(&LEFT);
    if let Some(terminal) = terminal.filter(|_| !is_left) {
        terminal.restore();
    }
    let start = Instant::now();
    let goes_on = |is_there: bool, patience: Duration| {
        let goes_on = is_there && start.elapsed() < patience;
        if goes_on {
            std::thread::sleep(Duration::from_millis(2));
        }
        goes_on
    };
    // When the engine is killed, the kernel kills the runtime only then: it may make cgroups until it
    // is gone.
    match child {
        _ if rest.contains(&ENDED) => {}
        Some(child) => while goes_on(!child.has_ended(), PATIENCE) {},
        None => while goes_on(true, MOMENT) {},
    }
    for folder in folders {
        let is_busy = |error: std::io::Error| error.raw_os_error() == Some(libc::EBUSY);
        while goes_on(std::fs::remove_dir(folder).is_err_and(is_busy), PATIENCE) {}
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

/// Where a runtime may make cgroups named `id`: beside our own in each hierarchy, or below it.
fn folders(id: &str) -> Vec<PathBuf> {
    let (mounts, own) = (read("/proc/self/mountinfo"), read(OWN));
    let mut folders = Vec::new();
    for (point, root, options) in mounts.lines().filter_map(hierarchy) {
        for (_, path) in own.lines().filter_map(member).filter(|(names, _)| fits(options, names)) {
            // The mount may show only a part of the hierarchy, as in a container.
            let below = path.strip_prefix(root).unwrap_or(path);
            let own = Path::new(point).join(below.trim_start_matches('/'));
            folders.extend(own.parent().map(|parent| parent.join(id)));
            folders.push(own.join(id));
        }
    }
    folders
}

const OWN: &str = "/proc/self/cgroup";

/// A mount point may have any name. A kernel may be without cgroups.
fn read(path: &str) -> String {
    read_proc(path).unwrap_or_default()
}

/// Where OCI runtimes look for cgroups.
const MOUNT: &str = "/sys/fs/cgroup";

/// Whether version 2 is the only hierarchy that OCI runtimes use: as they find it out themselves.
#[must_use]
pub fn are_unified() -> bool {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    rustix::fs::statfs(MOUNT).is_ok_and(|found| found.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

/// Prepares for a runtime that will make a cgroup named `id`, and gives its `linux.cgroupsPath`. In
/// version 2 runc would put that beside our own, where limits of the caller do not hold; in version 1
/// it goes below our own in each hierarchy by itself, and one path would not do for all.
///
/// # Errors
/// When the mount of the hierarchy does not show our own cgroup.
pub fn prepare(id: &str) -> Result<Option<String>> {
    if !are_unified() {
        return Ok(None);
    }
    let (mounts, own) = (read("/proc/self/mountinfo"), read(OWN));
    let path = |name| {
        below_own(&mounts, &own, name).ok_or_else(|| {
            let why = format!("{MOUNT} does not show that");
            Error::caused_by("cannot keep the container in the caller's cgroup", why)
        })
    };
    if let Err(error) = keep_domain(&path("cgroup.subtree_control")?) {
        // The container is confined all the same.
        log::warn("runtime", &format!("cannot keep the type of the caller's cgroup: {error}"));
    }
    path(id).map(Some)
}

/// Hides `control`, by which controllers are enabled below our own cgroup, in this mount namespace. A
/// runtime enables all that it can; and a cgroup of version 2 with processes, and with controllers for
/// those below it, becomes a threaded domain, in which the workload manager can make no cgroups.
fn keep_domain(control: &str) -> Result<()> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("cannot open {path}"))
    };
    let (nothing, control) = (open("/dev/null")?, open(&format!("{MOUNT}{control}"))?);
    mount::bind(nothing, control, Restrictions::default())
}

/// The path of a cgroup named `id` below the one of `/proc/self/cgroup`, as seen from the mount point.
fn below_own(mounts: &str, own: &str, id: &str) -> Option<String> {
    let mut mounts = mounts.lines().rev().filter_map(hierarchy);
    let (_, root, _) = mounts.find(|(point, _, options)| *point == MOUNT && options.is_none())?;
    let (_, own) = own.lines().filter_map(member).find(|(names, _)| names.is_empty())?;
    let below = own.strip_prefix(root.trim_end_matches('/'))?;
    // A name that only begins as the root does, or a place above the root of our cgroup namespace.
    let is_inside = (below.is_empty() || below.starts_with('/')) && !below.starts_with("/..");
    is_inside.then(|| format!("{}/{id}", below.trim_end_matches('/')))
}

/// Looks that the process `pid` is in the cgroups of this process, or below them.
///
/// # Errors
/// When it is not, or they cannot be read.
pub fn verify(pid: ProcessId) -> Result<()> {
    let (theirs, ours) = (read(&format!("/proc/{pid}/cgroup")), read(OWN));
    let Some((name, path)) = outside(&theirs, &ours) else { return Ok(()) };
    Err(Error::new(format!(
        "cannot run outside of the caller's cgroup: the OCI runtime left {path} of hierarchy '{name}'"
    ))
    .with_hint("limits of the job would not hold: use another OCI runtime")
    .with_exit_code(FAILED))
}

/// A hierarchy of `ours` of which `theirs` are not in the same cgroup or below it.
fn outside<'a>(theirs: &str, ours: &'a str) -> Option<(&'a str, &'a str)> {
    let is_inside = |(names, own): &(&str, &str)| {
        let path = theirs.lines().filter_map(member).find(|(name, _)| name == names);
        let rest = path.and_then(|(_, path)| path.strip_prefix(own.trim_end_matches('/')));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ours.lines().filter_map(member).find(|member| !is_inside(member))
}

/// The devices that our own cgroup of version 1 allows, in the kernel's words: one that is made below
/// it can allow no others. All of them in version 2: programs decide there, those of each cgroup
/// above too, and a cgroup below our own needs none to be as confined.
#[must_use]
pub fn allowed_devices() -> String {
    // Our own comes after the one above.
    let mut lists = folders("devices.list").into_iter().rev();
    let list = lists.find_map(|path| read_proc(path).ok());
    list.unwrap_or_else(|| "a *:* rwm".to_owned())
}

/// A line of mountinfo, if it is of a cgroup hierarchy: mount point, root, and the options of a
/// hierarchy of version 1, its controllers among them.
fn hierarchy(line: &str) -> Option<(&str, &str, Option<&str>)> {
    let mount = MountInfo::parse(line.as_bytes())?;
    let text = |field| std::str::from_utf8(field).ok();
    let (point, root) = (text(mount.mount_point)?, text(mount.root)?);
    match mount.fs_type {
        b"cgroup2" => Some((point, root, None)),
        b"cgroup" => Some((point, root, Some(text(mount.super_options)?))),
        _ => None,
    }
}

/// Whether a hierarchy with `options` is the one that has the controllers `names`.
fn fits(options: Option<&str>, names: &str) -> bool {
    match options {
        None => names.is_empty(),
        Some(options) => names.split(',').all(|name| options.split(',').any(|one| one == name)),
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
        let v1 =
            "34 25 0:29 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,seclabel,cpu,cpuacct";
        let named = "35 25 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        let v2 = "36 25 0:31 /job /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let memberships = ["cpu,cpuacct", "name=systemd", "", "cpu", "cpuset"];
        for (line, point, root, expected) in [
            (v1, "/sys/fs/cgroup/cpu", "/", &["cpu,cpuacct", "cpu"][..]),
            (named, "/sys/fs/cgroup/systemd", "/", &["name=systemd"]),
            (v2, "/sys/fs/cgroup", "/job", &[""]),
        ] {
            let found = hierarchy(line).unwrap();
            assert_eq!((found.0, found.1), (point, root));
            let fitting = memberships.iter().filter(|names| fits(found.2, names));
            assert_eq!(fitting.copied().collect::<Vec<_>>(), expected, "{line}");
        }
        for (theirs, expected) in [
            ("3:cpu:/a\n0::/job/task", None),
            ("3:cpu:/a/container-x\n0::/job/task/container-x", None),
            ("3:cpu:/a\n0::/job/container-x", Some(("", "/job/task"))),
            ("3:cpu:/a\n0::/job/tasks", Some(("", "/job/task"))),
            ("3:cpu:/\n0::/job/task", Some(("cpu", "/a"))),
            ("0::/job/task", Some(("cpu", "/a"))),
            ("", Some(("cpu", "/a"))),
        ] {
            assert_eq!(outside(theirs, "3:cpu:/a\n0::/job/task\n"), expected, "{theirs}");
        }
        assert_eq!(outside("0::/x", "0::/"), None);
        for (root, own, expected) in [
            ("/", "/job/task", Some("/job/task/x")),
            ("/", "/", Some("/x")),
            ("/job", "/job/task", Some("/task/x")),
            ("/job", "/job", Some("/x")),
            ("/job", "/jobs/task", None),
            ("/", "/../task", None),
        ] {
            let mounts = v2.replace("/job", root);
            let found = below_own(&mounts, &format!("0::{own}\n"), "x");
            assert_eq!(found.as_deref(), expected, "{root} {own}");
        }
        assert_eq!(hierarchy("22 1 0:5 / /proc rw - proc proc rw"), None);
        assert_eq!(member("4:cpu,cpuacct:/a:b"), Some(("cpu,cpuacct", "/a:b")));
        assert_eq!(member("0::/"), Some(("", "/")));
    }
}
