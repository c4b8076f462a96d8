//! The root file system: squashfs image below, a layer in memory above, and a `/dev` of its own.
//!
//! No user process exists yet that could change it meanwhile; the image itself is hostile, so its
//! links are never followed out of it. Manual, "Root filesystem".

use super::{Image, files};
use crate::container::plan::Bundle;
use crate::error::{Context, Error, Result};
use crate::site::config::Config;
use crate::sys::fs::loop_device;
use crate::sys::fs::mount::{self, Restrictions};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

/// An assembled root file system.
#[derive(Debug)]
pub struct Rootfs {
    /// Its root directory.
    pub root: OwnedFd,
    /// The root directory's path in our mount namespace, as the kernel tells it.
    pub path: std::path::PathBuf,
    /// Its `/dev`.
    pub dev: OwnedFd,
}

const LOWER: &str = "overlay/rootfs-lower";
const UPPER: &str = "overlay/rootfs-upper";
const WORK: &str = "overlay/rootfs-work";

/// What an image may not have: set-user-id programs, and device files of its own.
const CONFINED: Restrictions = Restrictions { readonly: false, nodev: true, noexec: false };

/// Mounts everything in `place`, the bundle's directory in memory.
pub fn assemble(
    place: &OwnedFd,
    config: &Config,
    bundle: &Bundle,
    image: &Image,
) -> Result<Rootfs> {
    for directory in ["overlay", LOWER, UPPER, WORK, &bundle.rootfs] {
        rustix::fs::mkdirat(place, directory, Mode::from_raw_mode(0o755))
            .context(|| format!("cannot create {directory} in the bundle"))?;
    }
    mount_image(place, image)?;
    prepare_upper(place, config, bundle)?;
    mount_overlay(place, bundle)?;
    let root = subdirectory(place, &bundle.rootfs)?;
    let dev = subdirectory(&root, "dev")?;
    let restrictions = Restrictions::default();
    let options = "mode=755,uid=0,gid=0,size=65536k";
    mount::filesystem("tmpfs", "tmpfs", &dev, restrictions, options)
        .context(|| "cannot prepare /dev".into())?;
    let dev = subdirectory(&root, "dev")?;
    let path = std::fs::read_link(mount::proc_path(root.as_fd()))
        .context(|| "cannot name the root file system".into())?;
    Ok(Rootfs { root, path, dev })
}

fn subdirectory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .context(|| format!("cannot open {name} in the bundle"))
}

/// The image, through a loop device that all containers of the node share.
fn mount_image(place: &OwnedFd, image: &Image) -> Result<()> {
    let cannot = || format!("cannot mount the image {}", image.name);
    let device = loop_device::attach(&image.file).context(cannot)?;
    let restrictions = Restrictions { readonly: true, ..CONFINED };
    let lower = subdirectory(place, LOWER)?;
    mount::filesystem("squashfs", &device.path, &lower, restrictions, "").map_err(|error| {
        Error::caused_by(cannot(), error).with_hint(format!(
            "the image is compressed with {}; if this kernel cannot read that, or the file \
             is damaged, remove it with 'sarus rmi' and import it with --compression=gzip",
            image.compressor
        ))
    })
}

/// Fills the layer in memory: the root directory, which looks as the image's but belongs to the
/// user, and what the engine puts into every container. Done before the layers are joined, where it
/// costs next to nothing and no link of the image's is in the way.
fn prepare_upper(place: &OwnedFd, config: &Config, bundle: &Bundle) -> Result<()> {
    let lower = subdirectory(place, LOWER)?;
    let upper = subdirectory(place, UPPER)?;
    dress(&upper, &lower, bundle).context(|| "cannot prepare the root directory".into())?;
    for name in ["dev", "proc", "sys", "etc"] {
        let found = match subdirectory_if_there(&lower, name)? {
            // The kernel's own file systems cover it.
            Some(_) if name != "etc" => continue,
            found => found,
        };
        let cannot = || format!("cannot prepare /{name}");
        rustix::fs::mkdirat(&upper, name, Mode::from_raw_mode(0o755)).context(cannot)?;
        let made = subdirectory(&upper, name)?;
        dress(&made, found.as_ref().unwrap_or(&made), bundle).context(cannot)?;
        if name == "etc" {
            files::write_etc(&made, config, bundle)?;
        }
    }
    Ok(())
}

/// Gives a directory the mode of `model`, and to the user.
fn dress(directory: &OwnedFd, model: &OwnedFd, bundle: &Bundle) -> Result<()> {
    let mode = rustix::fs::fstat(model).context(|| "cannot stat it".into())?.st_mode & 0o1777;
    files::chown(directory, &bundle.user)?;
    rustix::fs::chmod(mount::proc_path(directory.as_fd()), Mode::from_raw_mode(mode))
        .context(|| "cannot change its mode".into())
}

/// The image's directory `name`. Where files of the engine or the kernel go there must be no link to
/// somewhere else.
fn subdirectory_if_there(lower: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(lower, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            Err(Error::new(format!("cannot use the image: its /{name} is no directory")))
        }
        Err(errno) => Err(errno).context(|| format!("cannot open the image's /{name}")),
    }
}

/// The writable root: what the user changes is kept in memory, above the image.
fn mount_overlay(place: &OwnedFd, bundle: &Bundle) -> Result<()> {
    let cannot = || "cannot make the root file system writable".to_owned();
    // Relative to the bundle, whatever its path holds.
    rustix::process::fchdir(place).context(cannot)?;
    let target = subdirectory(place, &bundle.rootfs)?;
    let layers = format!("lowerdir={LOWER},upperdir={UPPER},workdir={WORK}");
    // An image may hold overlay's own attributes: let none of them lead anywhere. A kernel refuses
    // options that it does not know: then those go first that came last, with their features.
    let strict = ["redirect_dir=nofollow", "index=off", "xino=off", "metacopy=off"];
    let mut result = Ok(());
    for count in (0..=strict.len()).rev() {
        let known = strict.iter().take(count);
        let options = known.fold(layers.clone(), |all, option| format!("{all},{option}"));
        result = mount::filesystem("overlay", "overlay", &target, CONFINED, &options);
        if result.is_ok() {
            break;
        }
    }
    result.context(cannot)
}
