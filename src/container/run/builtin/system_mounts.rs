//! The file systems of the kernel in a container, its devices, and the paths that it may not see or
//! change ("Default Filesystems" and "Default Devices" of the OCI runtime specification).
//!
//! Everything but `/proc` is mounted by the engine before any process of the container exists.
//! `/proc` shows the PID namespace of the process that mounts it, so the container's first process does that.

use crate::container::plan::Plan;
use crate::container::plan::mounts::{SystemMount, SystemSource};
use crate::container::run::files;
use crate::container::run::rootfs::Rootfs;
use crate::error::{Context, Error, Result};
use crate::hook::confine::DEVICES;
use crate::log;
use crate::sys::fs::FileId;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::resolve;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// "Dev symbolic links" of the OCI runtime specification, and that of devpts.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// File systems of the kernel hold neither programs nor devices.
const CLOSED: Restrictions = Restrictions { readonly: false, nodev: true, noexec: true };
const CLOSED_READONLY: Restrictions = Restrictions { readonly: true, ..CLOSED };

/// Makes the devices of the container, and mounts the file systems of the plan, `/proc` excepted.
///
/// # Errors
/// If a device of the host has another number than its name tells; those of mount(2).
pub fn prepare(rootfs: &Rootfs, plan: &Plan) -> Result<()> {
    DEVICES.iter().try_for_each(|device| place_device(&rootfs.dev, *device))?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &rootfs.dev, name)
            .context(|| format!("cannot make the link /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&rootfs.dev, name, Mode::from_raw_mode(0o755))
            .context(|| format!("cannot create /dev/{name}"))?;
    }
    let mut mounts = plan.system_mounts.iter().filter(|mount| mount.destination != PROC);
    mounts.try_for_each(|system| attach(&rootfs.root, system))
}

/// Path of the file system that shows the PID namespace of the process that mounts it.
const PROC: &str = "/proc";

/// Mounts one file system of the plan.
fn attach(root: &OwnedFd, system: &SystemMount) -> Result<()> {
    let SystemMount { destination, source, restrictions, options } = system;
    let context = || format!("cannot mount {destination}");
    let target = open(root, destination.trim_start_matches('/'))?;
    let target = target.ok_or("no mount point").context(context)?;
    match source {
        SystemSource::Filesystem(name) => {
            mount::filesystem(name, name, &target, *restrictions, &options.join(","))
        }
        SystemSource::Host(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let source = rustix::fs::open(*path, flags, Mode::empty()).context(context)?;
            mount::bind(&source, &target, *restrictions)
        }
    }
    .context(context)
}

/// Shows a device of the host in the container: `mknod` may be forbidden by the job's cgroup.
fn place_device(dev: &OwnedFd, (name, major, minor): (&str, u32, u32)) -> Result<()> {
    let context = || format!("cannot provide /dev/{name}");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty()).context(context)?;
    expect_device(&source, major, minor).context(context)?;
    let target = files::create(dev, name, b"", 0o666, None).context(context)?;
    mount::bind(&source, &target, Restrictions { noexec: true, ..Restrictions::default() })
        .context(context)
}

fn expect_device(device: &OwnedFd, major: u32, minor: u32) -> Result<()> {
    let status = resolve::status(device).context(|| "cannot stat it".into())?;
    let is_device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice;
    if is_device && status.st_rdev == rustix::fs::makedev(major, minor) {
        return Ok(());
    }
    Err(Error::new(format!("not the character device {major}:{minor}")))
}

/// Opens the directory `name` of `parent`, which must not be a link.
fn directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .context(|| format!("cannot open /{name} of the container"))
}

/// The container's tree in its own mount namespace, by descriptors from before the first hook.
#[derive(Debug)]
pub struct Tree {
    /// Root directory of the container.
    pub root: OwnedFd,
    /// Directory `/dev` of the container.
    pub dev: OwnedFd,
    /// Root of the container's devpts.
    pub pts: OwnedFd,
    /// The mounts that root relies on, by path, with their identity.
    marks: Vec<(&'static str, Option<Mark>)>,
    /// Path of the root in the bundle.
    path: PathBuf,
}

/// The identity of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    mount: u64,
    file: FileId,
}

impl Mark {
    fn new(file: &OwnedFd) -> Result<Self> {
        Ok(Self { mount: mount::id_of(file)?, file: FileId::from_fd(file)? })
    }
}

/// Paths that are compared before and after the hooks.
const RELIED_ON: [&str; 10] = [
    "dev",
    "proc",
    "sys",
    "dev/pts",
    "dev/null",
    "dev/zero",
    "dev/full",
    "dev/random",
    "dev/urandom",
    "dev/tty",
];

impl Tree {
    /// Opens the tree in this mount namespace, a copy of the engine's, mounts its `/proc`,
    /// and hides and protects what the container may not see or change.
    ///
    /// # Errors
    /// Those of open(2) and mount(2).
    pub fn complete(plan: &Plan) -> Result<Self> {
        let path = plan.site.bundle_dir.join(&plan.site.rootfs_folder);
        let root = directory_at(&path)?;
        let mut proc = plan.system_mounts.iter().filter(|mount| mount.destination == PROC);
        proc.try_for_each(|proc| attach(&root, proc))?;
        let dev = directory(&root, "dev")?;
        plan.masked_paths.iter().try_for_each(|path| mask(&root, &dev, path))?;
        plan.readonly_paths.iter().try_for_each(|path| protect(&root, path))?;
        let pts = directory(&dev, "pts")?;
        let mut tree = Self { root, dev, pts, marks: Vec::new(), path };
        tree.marks = tree.look()?;
        Ok(tree)
    }

    /// Marks of the mounts, `None` for a path that does not exist.
    fn look(&self) -> Result<Vec<(&'static str, Option<Mark>)>> {
        let mark = |path: &&'static str| {
            let file = open(&self.root, path)?;
            Ok((*path, file.as_ref().map(Mark::new).transpose()?))
        };
        RELIED_ON.iter().map(mark).collect()
    }

    /// Restricts the root once more, and compares the mounts that root relies on with those from before
    /// the hooks: the kernel detaches a mount with all below it when somebody removes its mount point in
    /// another mount namespace.
    ///
    /// # Errors
    /// If one is another, or the root cannot be mounted nosuid and nodev.
    pub fn verify(&self) -> Result<()> {
        let context = || "cannot start in this container".to_owned();
        mount::confine(Path::new(&mount::proc_path(self.root.as_fd()))).context(context)?;
        let found = self.look().context(context)?;
        let changed = self.marks.iter().zip(&found).find(|(before, now)| before != now);
        let changed = changed.map(|((path, _), _)| *path);
        let path = match changed {
            None if Mark::new(&directory_at(&self.path)?)? == Mark::new(&self.root)? => {
                return Ok(());
            }
            path => path.unwrap_or_default(),
        };
        let text = format!("the mount on /{path} is not the one that was made");
        Err(Error::caused_by(context(), text)
            .with_hint("a hook of sarus.json lets users into the container, or changes its mounts"))
    }
}

/// Opens the directory of the engine's at `path`.
fn directory_at(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .context(|| "cannot open the container's root".into())
}

/// Opens `path`, relative and without links, below `root`; `None` if it does not exist.
fn open(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    for name in path.split('/') {
        let parent = at.as_ref().unwrap_or(root);
        at = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            found => Some(found.context(|| format!("cannot open /{path} of the container"))?),
        };
    }
    Ok(at)
}

/// Covers `path`: a directory by an empty one, a file by the null device. A kernel without it needs
/// no mask.
fn mask(root: &OwnedFd, dev: &OwnedFd, path: &str) -> Result<()> {
    let context = || format!("cannot mask {path}");
    let Some(target) = open(root, path.trim_start_matches('/'))? else {
        log::debug("runtime", || format!("{path} does not exist and is not masked"));
        return Ok(());
    };
    let status = resolve::status(&target).context(context)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        mount::filesystem("tmpfs", "tmpfs", &target, CLOSED_READONLY, "size=0").context(context)
    } else {
        let null = open(dev, "null")?.ok_or("no null device").context(context)?;
        expect_device(&null, 1, 3).context(context)?;
        mount::bind(&null, &target, CLOSED_READONLY_DEVICE).context(context)
    }
}

/// The null device must stay one.
const CLOSED_READONLY_DEVICE: Restrictions =
    Restrictions { readonly: true, nodev: false, noexec: true };

/// Makes `path` read-only.
fn protect(root: &OwnedFd, path: &str) -> Result<()> {
    let context = || format!("cannot make {path} read-only");
    let Some(target) = open(root, path.trim_start_matches('/'))? else { return Ok(()) };
    mount::bind(&target, &target, CLOSED_READONLY).context(context)
}
