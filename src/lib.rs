//! Sarus, an OCI container engine for HPC systems.
//!
//! This library is the engine; the multicall program `sarusbox` (`applets/`) parses command lines and
//! calls it. The flow of `sarus pull`, `load` and `run`, room by room:
//!
//! ```text
//! cli        the words of a command become options; progress is shown
//! site       sarus.json is read, and everything that root will use is checked
//! image      a reference such as `debian:12` becomes a server, a name, a tag and a digest
//! registry   a manifest and its layers arrive from a registry
//! import     layers, of a registry or of a file, become one tree and then one squashfs file
//! store      the file is published in a repository under its reference
//! squashfs   the file is validated before the kernel mounts it
//! rootfs     paths and mount points in a container's root file system, for engine and hooks
//! hook       OCI hooks: programs that an OCI runtime runs around the container, for any engine
//! container  plan: options, image and site become a plan; run: the plan becomes a container
//! check      `sarus check`: tells if all of this can work on this machine
//! ```
//!
//! Rooms use only rooms below them; `ROOMS` in `src/rooms.rs` is the order, which a test holds. [`sys`] alone has
//! `unsafe` code and privileged system calls.
//!
//! # Example
//!
//! ```
//! use sarus::image::reference::Reference;
//! use sarus::squashfs::validate;
//!
//! # fn main() -> sarus::Result<()> {
//! let reference: Reference = "quay.io/library/debian:12".parse()?;
//! assert_eq!(reference.to_string(), "quay.io/library/debian:12");
//!
//! // Whoever wrote an image file, the kernel sees it only if all of its tables are valid.
//! let image = vec![0; 4096];
//! let read = |buffer: &mut [u8], offset: u64| {
//!     let start = offset as usize;
//!     let part = image.get(start..start + buffer.len());
//!     part.map(|part| buffer.copy_from_slice(part)).ok_or(std::io::ErrorKind::UnexpectedEof.into())
//! };
//! assert!(validate::check(&read, 4096).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Kernels
//!
//! A system call is tried first, and where the kernel lacks it something older serves. No decision is made
//! by a version number.
//!
//! | system call | since Linux | fall-back | file |
//! | --- | --- | --- | --- |
//! | openat2(2) | 5.6 | a walk from component to component, with the same meaning | `sys/fs/resolve.rs` |
//! | open_tree(2), move_mount(2), mount_setattr(2) | 5.2, 5.12 | mount(2), then a remount of each mount of the copy | `sys/fs/mount_compat.rs` |
//! | statx(2) with `STATX_MNT_ID` | 5.8 | `/proc/self/fdinfo` | `sys/fs/mount_compat.rs` |
//! | `LOOP_CONFIGURE` of loop(4) | 5.8 | `LOOP_SET_FD`, `LOOP_SET_STATUS64` | `sys/fs/loop_device.rs` |
//! | close_range(2) | 5.9, 5.11 | `/proc/self/fd`, or one by one | `sys/descriptors.rs`, `sys/process.rs` |
//! | pidfd_open(2) | 5.3 | signals go to process IDs: of children that were not waited for, or of processes that are traced meanwhile (`PTRACE_SEIZE`, 3.4) | `sys/process/pidfd.rs` |
//! | pidfd_getfd(2) | 5.6 | messages of hooks go to the OCI runtime | `sys/process/user_stderr.rs` |
//! | `SO_PASSPIDFD` of unix(7) | 6.5 | pidfd_open(2) of the sender's PID, and a second look | `sys/process/start_notify.rs` |
//! | `PIDFD_GET_INFO` | 6.15 | with crun and `--pid=host`, a traced zombie holds up the end | `sys/process/pidfd.rs` |
//! | `PR_SET_CHILD_SUBREAPER` of prctl(2) | 3.4 | no `--pid=host` | `sys/process/supervisor.rs` |
//! | seccomp(2) | 3.17 | `PR_SET_SECCOMP` of prctl(2) | `sys/process/seccomp.rs` |
//! | getrandom(2) | 3.17 | `/dev/urandom` | `sys/random.rs` |
//! | `O_TMPFILE` of open(2) | 3.11 | create and unlink | `import/temp.rs` |
//! | flock(2) on Lustre and NFS | - | symbolic links that name their owner | `store/lock.rs` |

pub mod bytes;
pub mod error;
pub mod log;
pub mod sync;
pub mod user;

pub mod sys;

pub mod cli;
pub mod image;
pub mod registry;
pub mod site;
pub mod squashfs;

pub mod rootfs;
pub mod store;

pub mod hook;

pub mod container;
pub mod import;

pub mod check;

pub use error::{Context, Error, ErrorKind, Result};

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod rooms;
