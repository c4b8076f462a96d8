//! Root file system: squashfs image below, a layer in memory above, and a `/dev` of its own.
//!
//! No process of the user's exists yet that could change it. The image is hostile: no link of it is
//! followed out of it. Manual, "Root filesystem".

use super::files::{self, DIRECTORY, subdirectory};
use super::{Image, etc};
use crate::container::plan::Plan;
use crate::error::{Context, Error, Result};
use crate::rootfs::mount_point::Creator;
use crate::sys::fs::loop_device;
use crate::sys::fs::mount::{self, Restrictions};
use crate::user::User;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::Mode;

/// An assembled root file system.
#[derive(Debug)]
pub struct Rootfs {
    /// Root directory.
    pub root: OwnedFd,
    /// Root of the file system on `/dev`.
    pub dev: OwnedFd,
    /// Rights with which mount points are created in it.
    pub creator: Creator,
}

const LOWER: &str = "overlay/rootfs-lower";
const UPPER: &str = "overlay/rootfs-upper";
const WORK: &str = "overlay/rootfs-work";

/// Restrictions of the image, beside `nosuid`: its device files do not work.
const NODEV: Restrictions = Restrictions { readonly: false, nodev: true, noexec: false };

/// Mounts the root file system in `bundle`, the directory of the bundle in memory.
pub fn assemble(bundle: &OwnedFd, plan: &Plan, image: &Image) -> Result<Rootfs> {
    let folder = plan.site.rootfs_folder.as_str();
    for directory in ["overlay", LOWER, UPPER, WORK, folder] {
        rustix::fs::mkdirat(bundle, directory, Mode::from_raw_mode(0o755))
            .context(|| format!("cannot create {directory} in the bundle"))?;
    }
    mount_image(bundle, image)?;
    prepare_upper(bundle, plan)?;
    mount_overlay(bundle, folder)?;
    let root = subdirectory(bundle, folder)?;
    let dev = subdirectory(&root, "dev")?;
    let options = "mode=755,uid=0,gid=0,size=65536k";
    mount::filesystem("tmpfs", "tmpfs", &dev, Restrictions::default(), options)
        .context(|| "cannot prepare /dev".into())?;
    let dev = subdirectory(&root, "dev")?;
    let copy = |file: &OwnedFd| file.try_clone().context(|| "cannot copy a descriptor".into());
    let creator = Creator::new(vec![copy(&root)?, copy(&dev)?], &plan.user)?.for_user();
    Ok(Rootfs { root, dev, creator })
}

/// Mounts the image through a loop device that all containers of the node share.
fn mount_image(bundle: &OwnedFd, image: &Image) -> Result<()> {
    let context = || format!("cannot mount the image {}", image.name);
    let device = loop_device::attach(&image.file).context(context)?;
    let restrictions = Restrictions { readonly: true, ..NODEV };
    let lower = subdirectory(bundle, LOWER)?;
    mount::filesystem("squashfs", &device.path, &lower, restrictions, "").map_err(|error| {
        Error::caused_by(context(), error).with_hint(format!(
            "the image is compressed with {}; if this kernel cannot read that, or the file is \
             damaged, remove it with 'sarus rmi' and import it with --compression=gzip",
            image.compressor
        ))
    })
}

/// Fills the upper layer: the root directory, with the image's mode and the user as owner, and the
/// directories and files that every container has. Before the overlay is mounted, this is cheap, and
/// no link of the image is in the way.
fn prepare_upper(bundle: &OwnedFd, plan: &Plan) -> Result<()> {
    let lower = subdirectory(bundle, LOWER)?;
    let upper = subdirectory(bundle, UPPER)?;
    let user = &plan.user;
    copy_mode(&upper, &lower, user).context(|| "cannot prepare the root directory".into())?;
    for name in ["dev", "proc", "sys", "etc"] {
        let found = match subdirectory_if_there(&lower, name)? {
            // A file system of the kernel will cover it.
            Some(_) if name != "etc" => continue,
            found => found,
        };
        let context = || format!("cannot prepare /{name}");
        rustix::fs::mkdirat(&upper, name, Mode::from_raw_mode(0o755)).context(context)?;
        let made = subdirectory(&upper, name)?;
        copy_mode(&made, found.as_ref().unwrap_or(&made), user).context(context)?;
        if name == "etc" {
            etc::write(&made, &plan.etc_files, user)?;
        }
    }
    Ok(())
}

/// Gives `directory` the mode of `model`, and `user` as owner.
fn copy_mode(directory: &OwnedFd, model: &OwnedFd, user: &User) -> Result<()> {
    let mode = rustix::fs::fstat(model).context(|| "cannot stat it".into())?.st_mode & 0o1777;
    files::chown(directory, user)?;
    rustix::fs::chmod(mount::proc_path(directory.as_fd()), Mode::from_raw_mode(mode))
        .context(|| "cannot change its mode".into())
}

/// Opens the image's directory `name`, if it exists. A link there could lead the engine or the kernel
/// elsewhere, and is refused.
fn subdirectory_if_there(lower: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    match rustix::fs::openat(lower, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            Err(Error::new(format!("cannot use the image: its /{name} is not a directory")))
        }
        Err(errno) => Err(errno).context(|| format!("cannot open the image's /{name}")),
    }
}

/// Mounts the overlay: the program's changes are kept in memory, above the image.
fn mount_overlay(bundle: &OwnedFd, folder: &str) -> Result<()> {
    let context = || "cannot make the root file system writable".to_owned();
    // Paths of layers are relative, since that of the bundle may contain any character.
    rustix::process::fchdir(bundle).context(context)?;
    let target = subdirectory(bundle, folder)?;
    let layers = format!("lowerdir={LOWER},upperdir={UPPER},workdir={WORK}");
    // An image may have attributes of overlay, which must redirect nothing. Kernels refuse options
    // that they do not know: so the youngest are left out first.
    let strict = ["redirect_dir=nofollow", "index=off", "xino=off", "metacopy=off"];
    let mut result = Ok(());
    for count in (0..=strict.len()).rev() {
        let known = strict.iter().take(count);
        let options = known.fold(layers.clone(), |all, option| format!("{all},{option}"));
        result = mount::filesystem("overlay", "overlay", &target, NODEV, &options);
        if result.is_ok() {
            break;
        }
    }
    result.context(context)
}
