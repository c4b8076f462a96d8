//! Loop devices, which make a block device of an image file: one for all containers of a node.
//!
//! Containers of the same image share the device, so that the kernel has one squashfs superblock
//! and one page cache for all of them. Start at [`attach`]. See loop(4).

use crate::error::{Context, Result};
use crate::log;
use crate::sys::fs::FileId;
use crate::sys::fs::read::read_at_most;
use crate::sys::ids;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A loop device that serves an image. The kernel detaches it (autoclear) once this descriptor is
/// closed and no mount uses it.
#[derive(Debug)]
pub struct LoopDevice {
    /// Stays open until the mount: autoclear detaches an unused device.
    _device: OwnedFd,
    /// Device node, such as `/dev/loop7`.
    pub path: String,
}

const LOOP_SET_FD: libc::c_ulong = 0x4C00;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4C04;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

impl LoopInfo64 {
    fn new(flags: u32) -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// Total time for attempts that fail because udev or another start interferes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time to wait for the lock that other starts on this node hold. Each holds it for less than a
/// millisecond, but a user who serves the image from a file system of their own can make it last.
const TURN: Duration = Duration::from_millis(100);

/// Time between two attempts.
const INTERVAL: Duration = Duration::from_millis(1);

/// Maximum length, in bytes, of a file of sysfs: a page, of 64 KiB at most.
const MAX_NAME: u64 = 64 << 10;

/// Context and cause of a failed attempt.
type Failure = (String, std::io::Error);

/// Returns the read-only loop device of `image`: the one that serves it already, or a new one.
///
/// # Errors
/// If there is no loop driver, or no device within 30 s.
pub fn attach(image: impl AsFd) -> Result<LoopDevice> {
    let id = FileId::from_fd(&image).context(|| "cannot stat the image file".into())?;
    let name = std::fs::read_link(crate::sys::fs::mount::proc_path(image.as_fd()))
        .context(|| "cannot name the image file".into())?;
    let find = || find(&name, id);
    // Most starts find one, and need no lock.
    if let Some(device) = find() {
        return Ok(device);
    }
    let control = open("/dev/loop-control", OFlags::RDWR)
        .context(|| "cannot open /dev/loop-control".into())
        .map_err(|error| error.with_hint("the kernel module may be missing: modprobe loop"))?;
    make(&control, &image, find)
}

/// Makes a device once this process has the lock, unless another start has made one meanwhile. Without
/// the lock, each of 128 ranks would find no device and make its own.
fn make(
    control: &OwnedFd,
    image: &impl AsFd,
    find: impl Fn() -> Option<LoopDevice>,
) -> Result<LoopDevice> {
    let start = Instant::now();
    let mut waits = true;
    loop {
        let made = ids::unsignalled(|| Ok(take_turn(control, image, waits, &find)));
        match made.context(|| "cannot block signals".into())? {
            Ok(device) => return Ok(device),
            Err((_, error)) if is_passing(&error) && start.elapsed() < PATIENCE => {}
            Err((what, error)) => return Err(error).context(|| what),
        }
        if waits && start.elapsed() > TURN {
            log::info("loop", || {
                "another process locks /dev/loop-control: continuing without the lock".into()
            });
            waits = false;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Tells whether another attempt may succeed: another process has the lock or the device (EAGAIN,
/// EBUSY), or udev has not made the node yet (ENOENT, ENXIO).
fn is_passing(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOENT | libc::ENXIO | libc::EINTR)
    )
}

/// Attempts once, with the lock if it is free. If it is taken, and the caller no longer `waits`,
/// attempts without it: at worst two devices serve the same image.
///
/// Only root can open `/dev/loop-control`. No signal of the user's reaches this process meanwhile, or
/// they could stop it while it has the lock, and hold up the starts of others.
fn take_turn(
    control: &OwnedFd,
    image: &impl AsFd,
    waits: bool,
    find: &impl Fn() -> Option<LoopDevice>,
) -> Result<LoopDevice, Failure> {
    // A signal that was permitted before and is still on its way takes effect meanwhile.
    if let Some(device) = find() {
        return Ok(device);
    }
    match rustix::fs::flock(control, FlockOperation::NonBlockingLockExclusive) {
        Err(errno) if waits || errno != rustix::io::Errno::WOULDBLOCK => {
            return Err(("cannot lock /dev/loop-control".into(), errno.into()));
        }
        _ => {}
    }
    let device = find().map_or_else(|| create(control, image), Ok);
    rustix::fs::flock(control, FlockOperation::Unlock).ok();
    device
}

fn open(path: &str, access: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())
}

/// Searches the attached devices for one that serves the whole file `id`, read-only.
///
/// Asks only devices whose backing file has the path `name`, by sysfs: LOOP_GET_STATUS64 asks the file
/// system of the backing file, which may be another user's on a file server that is down.
fn find(name: &Path, id: FileId) -> Option<LoopDevice> {
    let mut in_use: Vec<u32> = std::fs::read_dir("/sys/block")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("loop")?.parse().ok())
        .collect();
    in_use.sort_unstable();
    in_use.into_iter().find_map(|number| {
        let backing = format!("/sys/block/loop{number}/loop/backing_file");
        let backing = read_at_most(File::open(backing).ok()?, MAX_NAME).ok()?;
        if backing.strip_suffix(b"\n")? != name.as_os_str().as_bytes() {
            return None;
        }
        let path = format!("/dev/loop{number}");
        // From here on the device cannot go away, so what it says now stays true.
        let open = open(&path, OFlags::RDONLY).ok()?;
        let info = status(&open)?;
        let serves = FileId::new(info.device, info.inode) == id
            && info.flags & LO_FLAGS_READ_ONLY != 0
            && info.offset == 0
            && info.sizelimit == 0;
        serves.then_some(LoopDevice { _device: open, path })
    })
}

fn status(device: &OwnedFd) -> Option<LoopInfo64> {
    let mut info = LoopInfo64::new(0);
    // SAFETY: the kernel writes one `loop_info64`, and `info` is one.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
    (answer == 0).then_some(info)
}

fn create(control: &OwnedFd, image: &impl AsFd) -> Result<LoopDevice, Failure> {
    // SAFETY: takes no argument and gives a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    if number < 0 {
        return Err(("cannot find a free loop device".into(), last_error()));
    }
    let path = format!("/dev/loop{number}");
    let device = open(&path, OFlags::RDONLY).map_err(std::io::Error::from);
    match device.and_then(|device| configure(&device, image).map(|()| device)) {
        Ok(device) => Ok(LoopDevice { _device: device, path }),
        Err(error) => Err((format!("cannot attach the image to {path}"), error)),
    }
}

/// Attaches `image`, read-only. Before Linux 5.8 that takes two calls; a start without the lock that
/// finds the device in between, without its flags, makes one of its own.
fn configure(device: &OwnedFd, image: &impl AsFd) -> std::io::Result<()> {
    let image = image.as_fd().as_raw_fd();
    let info = LoopInfo64::new(LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR);
    let config = LoopConfig { fd: image as u32, block_size: 0, info, reserved: [0; 8] };
    let device = device.as_raw_fd();
    // SAFETY: the kernel reads one `loop_config`, and `config` is one.
    if unsafe { libc::ioctl(device, LOOP_CONFIGURE as _, &raw const config) } == 0 {
        return Ok(());
    }
    let error = last_error();
    if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY | libc::ENOSYS)) {
        return Err(error);
    }
    // Killed in between, this process would leave a device behind that nobody detaches; but no signal
    // of its user's comes in now.
    // SAFETY: takes a descriptor by value. Opened read-only, it makes the device read-only too.
    if unsafe { libc::ioctl(device, LOOP_SET_FD as _, image) } != 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel reads one `loop_info64`, and `info` is one.
    if unsafe { libc::ioctl(device, LOOP_SET_STATUS64 as _, &raw const info) } != 0 {
        let error = last_error();
        // SAFETY: takes no argument. The device is ours since the call above.
        unsafe { libc::ioctl(device, LOOP_CLR_FD as _) };
        return Err(error);
    }
    Ok(())
}

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}
