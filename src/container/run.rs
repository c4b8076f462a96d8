//! Realises the plan of a container: mounts and files, then the program by an executor, and the wait
//! for its end.
//!
//! Start at [`run`]. Everything is made in a mount namespace of this process alone and on a file
//! system in memory: nothing is visible outside, and the kernel removes it when the last process ends,
//! however it ends. Manual, "Container instantiation".

mod bind;
mod builtin;
mod etc;
pub mod external;
pub(in crate::container) mod files;
mod image;
mod mountpoint;
mod rootfs;
mod supervise;
mod trusted;

use crate::container::plan::{INIT, Plan, hooks};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::site::config::{Hook, RamFilesystem};
use crate::site::trust;
use crate::sys::fs::mount::{self, Namespace, Restrictions};
use crate::sys::fs::{FileId, TMPFS_MAGIC};
use crate::sys::process::start_notify::Listener;
use crate::sys::terminal::Terminal;
pub use image::Image;
use rootfs::Rootfs;
use rustix::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;
use trusted::Trusted;

/// Exit status of a run in which the engine or the OCI runtime failed before the program started.
const FAILED: u8 = 125;

/// Resources of the engine that a run uses.
#[derive(Debug, Clone, Copy)]
pub struct Engine<'a> {
    /// Path of this program.
    pub program: &'a Path,
    /// Socket on which the container announces its start. The other end is a descriptor that children
    /// inherit.
    pub listener: &'a Listener,
    /// The caller's terminal, if the container gets one of its own.
    pub terminal: Option<&'a Terminal>,
    /// Starts the SSH daemon in the container, as the user.
    pub start_sshd: fn() -> Result<()>,
}

/// A container that is ready to be executed.
struct Prepared {
    /// Directory of the bundle.
    bundle: OwnedFd,
    rootfs: Rootfs,
    trusted: Trusted,
    /// This program.
    program: OwnedFd,
    /// Mount namespace that this process came from; nothing of the container is in it. Held open: the
    /// number of a namespace without processes could become that of the container's.
    host: Namespace,
}

impl Prepared {
    /// Hooks of the site, without idle ones that are this program, which are recognised by the file.
    fn active_hooks<'a>(&self, plan: &'a Plan) -> Result<Vec<&'a Hook>> {
        let own = FileId::from_fd(&self.program)?;
        let id = |hook: &Option<OwnedFd>| hook.as_ref().map(FileId::from_fd).transpose();
        let files = self.trusted.hooks.iter().map(id).collect::<Result<Vec<_>>>()?;
        Ok(hooks::active(&plan.hooks, |at| files.get(at) == Some(&Some(own))))
    }
}

/// Makes the container of `plan` from `image`, waits for its end, and returns the exit status of the
/// program.
///
/// Safe because: the caller holds effective root only, with the user's real ids; what the user names
/// is opened with the user's rights before root mounts it by descriptor; and what the image names is
/// resolved inside its own root.
///
/// # Errors
/// If a step fails: then no program has run and nothing is left. Exit status 125.
pub fn run(plan: &Plan, image: &Image, engine: Engine<'_>) -> Result<u8> {
    let start = Instant::now();
    let prepared = prepare(plan, image, engine)?;
    log::info("runtime", || format!("container set up in {:.6} s", start.elapsed().as_secs_f64()));
    match &plan.runtime {
        Some(runtime) => external::run(plan, runtime, &prepared, engine),
        None => builtin::run(plan, &prepared, engine),
    }
}

/// Does all steps that do not depend on the executor.
fn prepare(plan: &Plan, image: &Image, engine: Engine<'_>) -> Result<Prepared> {
    let host = Namespace::current()?;
    mount::unshare_namespace()?;
    let trusted = trusted::check(plan)?;
    if let Some(runtime) = &plan.runtime {
        runtime.check_start_hooks(plan.hooks.iter().map(|planned| &planned.hook))?;
    }
    let program = trust::program(engine.program, plan.site.checks)
        .context(|| "cannot use this program".into())?;
    // Before anything is mounted: no source may lie in the bundle.
    let mounts = bind::open(&plan.mounts, &plan.user)?;
    let bundle = mount_bundle(plan, &trusted.bundle_dir)?;
    let rootfs = rootfs::assemble(&bundle, plan, image)?;
    // A bind mount of `/` must not show the bundle. Not earlier: the kernel binds the layers itself.
    mount::make_unbindable(&bundle)?;
    if plan.init {
        place_program(&rootfs, INIT, trusted.init.as_ref().unwrap_or(&program))?;
    }
    if plan.runtime.is_some() {
        place_program(&rootfs, external::LAUNCH, &program)?;
    }
    for mount in &mounts {
        mount.attach(&rootfs, &plan.site.user_mounts, &plan.user)?;
    }
    let directory = &plan.process.directory;
    mountpoint::create_directory(&rootfs, &plan.user, Path::new(directory))
        .context(|| format!("cannot create the working directory {directory}"))?;
    Ok(Prepared { bundle, rootfs, trusted, program, host })
}

/// Mounts a file system in memory on the bundle directory; everything is made in it.
fn mount_bundle(plan: &Plan, below: &OwnedFd) -> Result<OwnedFd> {
    let path = &plan.site.bundle_dir;
    let (kind, magic) = match plan.site.ram_filesystem {
        RamFilesystem::Tmpfs => ("tmpfs", TMPFS_MAGIC),
        RamFilesystem::Ramfs => ("ramfs", 0x8584_58f6),
    };
    let restrictions = Restrictions { nodev: true, ..Restrictions::default() };
    mount::filesystem(kind, kind, below, restrictions, "mode=755")
        .context(|| format!("cannot prepare {}", path.display()))?;
    let bundle = files::directory(path)?;
    let found = rustix::fs::fstatfs(&bundle).context(|| "cannot stat the bundle".into())?;
    if found.f_type as u64 == magic {
        return Ok(bundle);
    }
    // Only root could have renamed a directory of the path.
    Err(Error::new(format!("cannot prepare {}: the directory was moved", path.display())))
}

/// Binds a program of the host at `path` in the container's `/dev`.
fn place_program(rootfs: &Rootfs, path: &str, program: &OwnedFd) -> Result<()> {
    let context = || format!("cannot provide {path}");
    let name = path.trim_start_matches("/dev/");
    let target = files::create(&rootfs.dev, name, b"", 0o755, None).context(context)?;
    let restrictions = Restrictions { readonly: true, ..Restrictions::default() };
    mount::bind(program, &target, restrictions).context(context)
}
