//! The namespaces of a container, for what a hook starts in it. See namespaces(7).

use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Because, Error, Result};

/// All but that of mounts, and that of users: who would be root there only is none here.
const KINDS: [(&str, LinkNameSpaceType); 4] = [
    ("net", LinkNameSpaceType::Network),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("pid", LinkNameSpaceType::ProcessID),
];

/// Enters the namespaces of `process`, the first of its PID namespace: what is started from now on
/// ends when it ends.
///
/// # Errors
/// When the kernel refuses, or the process has no PID namespace of its own.
pub fn join(process: Pid) -> Result<()> {
    for (name, kind) in KINDS {
        let cannot = || format!("cannot enter the container's namespace '{name}'");
        let path = format!("/proc/{}/ns/{name}", process.as_raw_nonzero());
        let own = format!("/proc/self/ns/{name}");
        if name == "pid"
            && (identity(&own).because(cannot)? == identity(&path).because(cannot)?
                || !is_first(process).because(cannot)?)
        {
            return Err(Error::new(
                "the container has no PID namespace of its own: what is started in it would stay",
            ));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = match rustix::fs::open(path, flags, Mode::empty()) {
            // This kernel has none of the kind.
            Err(Errno::NOENT) if name != "pid" => continue,
            namespace => namespace.because(cannot)?,
        };
        move_into_link_name_space(namespace.as_fd(), Some(kind)).because(cannot)?;
    }
    Ok(())
}

/// Whether `process` is the first one of its PID namespace, and so the end of it. Kernels before 4.1
/// do not tell.
fn is_first(process: Pid) -> std::io::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero()))?;
    let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
    Ok(numbers.is_none_or(|numbers| numbers.ends_with("\t1")))
}

fn identity(path: &str) -> rustix::io::Result<(u64, u64)> {
    let status = rustix::fs::stat(path)?;
    Ok((status.st_dev, status.st_ino))
}
