//! Realises the plan of a container: mounts, files, OCI runtime, and the wait for its end.
//!
//! Start at [`run`]. Everything is made in a mount namespace of this process alone and on a file
//! system in memory, so that nothing is visible outside and the kernel takes all away when the last
//! process ends, however it ends. Manual, "Container instantiation".

mod cgroups;
mod diagnosis;
mod execute;
mod files;
mod image;
mod mountpoint;
pub mod oci_runtime;
mod rootfs;
mod supervise;
mod trusted;

use crate::container::plan::hooks::{self, Confinement, StagedHook};
use crate::container::plan::{Bundle, INIT, LAUNCH, Mount};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::site::config::{Config, RamFilesystem};
use crate::site::reserved;
use crate::site::trust;
use crate::sys::fs::mount::{self, Namespace, Restrictions};
use crate::sys::fs::resolve;
use crate::sys::fs::resolve::FileId;
use crate::sys::ids;
use crate::sys::process::start_notify::Listener;
use crate::user::User;
pub use cgroups::{allowed_devices, are_unified};
pub use image::Image;
pub use oci_runtime::OciRuntime;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::Path;
use std::time::Instant;
use trusted::Trusted;

/// Makes the container of `bundle`, waits for its end, and gives the exit status of the program.
/// `program` is this one's path; on the other end of `listener`, a descriptor that children inherit,
/// the container tells of its start.
///
/// Safe because: the caller holds effective root only, with the user's real ids; what the user names
/// is opened with the user's rights before root mounts it by descriptor; and what the image names is
/// resolved inside its own root.
///
/// # Errors
/// When a step fails: then no program has run and nothing is left. Exit status 125.
pub fn run(
    config: &Config,
    runtime: &OciRuntime,
    bundle: &Bundle,
    image: &Image,
    program: &Path,
    listener: &Listener,
) -> Result<u8> {
    let start = Instant::now();
    let host = Namespace::current()?;
    mount::private_namespace()?;
    let trusted = trusted::check(config)?;
    runtime.check_start_hooks(config)?;
    let ours = this_program(config, program)?;
    let root = open_directory(Path::new("/"))?;
    // Before anything of ours is mounted: no source can lie in our own bundle.
    let sources = open_sources(&root, bundle)?;
    let place = prepare_place(config, &trusted.bundle_dir)?;
    let rootfs = rootfs::assemble(&place, config, bundle, image)?;
    // A mount of `/` in the container shall not show what root keeps here. Not before: the kernel
    // binds the layers itself.
    mount::hide_from_binds(&place)?;
    if bundle.init {
        let init = match &trusted.init {
            Some(init) => init,
            None => &ours,
        };
        place_program(&rootfs, INIT, init)?;
    }
    place_program(&rootfs, LAUNCH, &ours)?;
    for (mount, source) in bundle.mounts.iter().zip(&sources) {
        attach(&rootfs, config, bundle, mount, source)?;
    }
    drop(sources);
    mountpoint::create_directory(&rootfs, &bundle.user, Path::new(&bundle.directory))
        .context(|| format!("cannot create the working directory {}", bundle.directory))?;
    log::info("runtime", || format!("container set up in {:.6} s", start.elapsed().as_secs_f64()));
    let hooks = arrange_hooks(config, bundle, &trusted, program, &ours, &rootfs)?;
    execute::run(config, runtime, bundle, &hooks, &place, listener, host)
}

/// The hooks of the container. Those of sarus.json that are this program are known by their file.
fn arrange_hooks(
    config: &Config,
    bundle: &Bundle,
    trusted: &Trusted,
    program: &Path,
    ours: &OwnedFd,
    rootfs: &rootfs::Rootfs,
) -> Result<Vec<StagedHook>> {
    let own = FileId::of(ours)?;
    let id = |hook: &Option<OwnedFd>| hook.as_ref().map(FileId::of).transpose();
    let hooks = trusted.hooks.iter().map(id).collect::<Result<Vec<_>>>()?;
    let confinement = Confinement {
        program,
        rootfs: &config.bundle_dir.join(&config.rootfs_folder),
        root: FileId::of(&rootfs.root)?,
        dev: FileId::of(&rootfs.dev)?,
        limits: &bundle.limits,
    };
    let is_ours = |at| hooks.get(at) == Some(&Some(own));
    Ok(hooks::arrange(&config.hooks.list, is_ours, &bundle.asked, confinement))
}

/// The text of the site's copy of the group database.
///
/// # Errors
/// When it is there but cannot be read.
pub fn read_group_database(config: &Config, user: &User) -> Result<String> {
    let text = files::read(user, &config.prefix_dir.join("etc/group"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))
}

/// Opens what is mounted, the user's requests with the user's rights.
fn open_sources(root: &OwnedFd, bundle: &Bundle) -> Result<Vec<OwnedFd>> {
    let open = |mount: &Mount| {
        // Not through magic links, which would lead to descriptors of ours.
        resolve::beneath(root, &mount.request.source, OFlags::PATH, Mode::empty())
    };
    let as_user = |mount: &Mount| ids::as_user(&bundle.user, || open(mount));
    bundle
        .mounts
        .iter()
        .map(|mount| {
            // A site's mount may lie on a file system that root cannot search (root_squash).
            let file = if mount.by_user {
                as_user(mount)
            } else {
                open(mount).or_else(|_| as_user(mount))
            };
            file.context(|| cannot_mount(mount))
        })
        .collect()
}

fn cannot_mount(mount: &Mount) -> String {
    let whose = if mount.by_user { "" } else { "the site's " };
    format!("cannot mount {whose}{}", mount.request)
}

/// A file system in memory on the bundle directory: the only place where anything is made.
fn prepare_place(config: &Config, below: &OwnedFd) -> Result<OwnedFd> {
    let path = &config.bundle_dir;
    let (kind, magic) = match config.ram_filesystem {
        RamFilesystem::Tmpfs => ("tmpfs", 0x0102_1994),
        RamFilesystem::Ramfs => ("ramfs", 0x8584_58f6),
    };
    let restrictions = Restrictions { nodev: true, ..Restrictions::default() };
    mount::filesystem(kind, kind, below, restrictions, "mode=755")
        .context(|| format!("cannot prepare {}", path.display()))?;
    let place = open_directory(path)?;
    let found = rustix::fs::fstatfs(&place).context(|| "cannot look at the bundle".into())?;
    if found.f_type as u64 == magic {
        Ok(place)
    } else {
        // Someone moved directories in between, which only root can.
        Err(Error::new(format!("cannot prepare {}: it moved", path.display())))
    }
}

/// The program that is running, whose applets serve in the container.
fn this_program(config: &Config, path: &Path) -> Result<OwnedFd> {
    trust::program(path, config.checks).context(|| "cannot use this program".into())
}

/// Makes a program of the host visible in the container's `/dev`, as `path`.
fn place_program(rootfs: &rootfs::Rootfs, path: &str, program: &OwnedFd) -> Result<()> {
    let cannot = || format!("cannot provide {path}");
    let name = path.trim_start_matches("/dev/");
    let target = files::create(&rootfs.dev, name, b"", 0o755, None).context(cannot)?;
    let restrictions = Restrictions { readonly: true, ..Restrictions::default() };
    mount::bind(program, &target, restrictions).context(cannot)
}

/// Mounts what was asked for, where it was asked for.
fn attach(
    rootfs: &rootfs::Rootfs,
    config: &Config,
    bundle: &Bundle,
    mount: &Mount,
    source: &OwnedFd,
) -> Result<()> {
    reserved::check(&mount.request.destination).context(|| cannot_mount(mount))?;
    let find = || mountpoint::find(rootfs, &mount.request.destination);
    // The way may lead through the host's directories: what a user may not see there, the engine
    // must not tell.
    let place = if mount.by_user { ids::as_user(&bundle.user, find) } else { find() };
    let place = place.context(|| cannot_mount(mount))?;
    if mount.by_user {
        place.judge(&config.user_mounts, &bundle.user)
    } else {
        place.judge_for_site()
    }
    .context(|| cannot_mount(mount))?;
    let target = place.create_like(source, &bundle.user).context(|| cannot_mount(mount))?;
    let restrictions = Restrictions { readonly: mount.request.readonly, ..Restrictions::default() };
    mount::bind(source.as_fd(), target.as_fd(), restrictions).context(|| cannot_mount(mount))
}
