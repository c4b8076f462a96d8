//! Paths of a container that belong to its engine and its OCI runtime.
//!
//! Root makes files, links and mounts there while the container starts. A bind mount in the way
//! would have them made in a directory of the host. One table serves the mounts of site and user,
//! `BIND_MOUNTS` of `mpi_hook`, and working directories.

use crate::error::{Error, Result};
use std::path::Path;

/// Reserved themselves; what lies below is judged by [`TREES`].
const ALONE: [&str; 2] = ["/", "/dev"];

/// Reserved with all that lies below. In `/dev`: what the OCI runtime specification has runtimes
/// make ("Default Devices", "Dev symbolic links"), and the engine's own programs.
const TREES: [&str; 21] = [
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/core",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/init",
    "/dev/launch",
    // ssh_hook shows the site's OpenSSH and the user's keys there.
    "/opt/sarus/openssh",
];

/// Insists that `path` is not reserved. It is absolute, has no `..`, and is compared as it stands:
/// where links lead is for the caller to find out, and to have judged too.
///
/// # Errors
/// When it is reserved.
pub fn check(path: &Path) -> Result<()> {
    let is_alone = ALONE.iter().any(|own| path == Path::new(own));
    if is_alone || TREES.iter().any(|own| path.starts_with(own)) {
        return Err(Error::new(format!("{} is reserved for the container itself", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::plan::{INIT, LAUNCH};

    #[test]
    fn what_engine_and_runtime_make_is_reserved_however_it_is_written() {
        for path in [
            "/",
            "//",
            "/./",
            "/dev",
            "/dev/",
            "//dev/./",
            "/proc",
            "/proc/1/root",
            "/sys/kernel",
            "/dev/null",
            "/dev//null/",
            "/dev/./null/x",
            "/dev/full/x",
            "/dev/ptmx",
            "/dev/pts/0",
            "/dev/shm/x",
            "/dev/fd/0",
            "/opt/sarus/openssh",
            "/opt/sarus/openssh/etc",
            INIT,
            LAUNCH,
        ] {
            check(Path::new(path)).unwrap_err();
        }
        for path in [
            "/home",
            "/dev/infiniband",
            "/dev/cxi0",
            "/dev/nullx",
            "/dev/shmem",
            "/processes",
            "/sysroot",
            "/opt",
            "/opt/sarus",
            "/opt/sarus/openssh2",
            "/x/dev/null",
            "/etc",
        ] {
            check(Path::new(path)).unwrap();
        }
    }
}
