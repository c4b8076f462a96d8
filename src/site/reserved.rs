//! Paths of a container that are reserved for its engine and its OCI runtime.
//!
//! Root creates files, links and mounts there while the container starts; with a bind mount in the way,
//! it would create them in a directory of the host. One table serves the mounts of site and user,
//! `BIND_MOUNTS` of `mpi_hook`, and working directories.

use crate::error::{Error, Result};
use std::path::Path;

/// Reserved paths; those below them are reserved by [`TREES`] only.
const ALONE: [&str; 2] = ["/", "/dev"];

/// Paths reserved with all paths below. In `/dev`: files that runtimes create by the OCI runtime
/// specification ("Default Devices", "Dev symbolic links"), and the engine's own programs.
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
    // ssh_hook mounts the site's OpenSSH and the user's keys there.
    "/opt/sarus/openssh",
];

/// Refuses a reserved path. `path` is absolute, without `..`, and compared as it stands: callers resolve
/// links, and check the result too.
///
/// # Errors
/// If `path` is reserved.
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
    use crate::container::plan::INIT;
    use crate::container::run::external::LAUNCH;

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
