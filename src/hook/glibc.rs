//! The hook that replaces a container's GNU C Library by the host's if the container's is older.
//! Manual, "Native glibc hook".

use std::path::PathBuf;

use super::container_root::ContainerRoot;
use super::libraries::{self, Library, elf, ldcache};
use super::{Container, host_libraries, log_plan};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::rootfs::root_dir::RootDir;

/// Annotation that asks for this hook: `--glibc` and `--mpi`.
pub const ENABLED: &str = "com.hooks.glibc.enabled";

const SUBSYSTEM: &str = "glibc hook";

/// The library whose version is that of all.
const LIBC: &str = "libc.so.6";

/// Maximum number of libraries in an image with the same soname.
const MAX_COPIES: usize = 16;

/// A version of the GNU C Library, `(2, 36)`.
pub type Version = (u32, u32);

/// Replaces the libraries, if they are older than the host's.
///
/// # Errors
/// If versions cannot be compared, or a library cannot be replaced.
pub fn run(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    let root = ContainerRoot::enter(container)?;
    let host = host_libraries(&root.host, "GLIBC_LIBS")?;
    let context = || "cannot use the image's /etc/ld.so.cache".to_owned();
    let Some(cache) = ldcache::load(&root.container).context(context)? else {
        // The image has another C library, or no shared libraries.
        log::info(SUBSYSTEM, || "the image has no /etc/ld.so.cache: nothing to replace".into());
        return Ok(());
    };
    let cache = ldcache::read(&cache).context(context)?;
    let find = |soname: &str| -> Result<Vec<Library>> {
        let entries = cache.iter().filter(|entry| entry.soname == soname);
        libraries::open_all(&root.container, entries.map(|entry| entry.path), MAX_COPIES)
    };
    let ours = host.iter().find(|library| soname(library) == LIBC);
    let ours = ours.ok_or_else(|| {
        Error::new(format!("cannot compare with the container: {LIBC} is not in GLIBC_LIBS"))
    })?;
    let Some(theirs) = find(LIBC)?.into_iter().next() else {
        log::info(SUBSYSTEM, || "the image has no GNU C Library: nothing to replace".into());
        return Ok(());
    };
    let versions = (version(&root.host, ours)?, version(&root.container, &theirs)?);
    let mut found = Vec::new();
    for library in &host {
        found.push(find(soname(library))?);
    }
    let pairs: Vec<_> = host.iter().zip(found.iter().map(Vec::as_slice)).collect();
    let plan = plan(versions.0, versions.1, &pairs);
    if plan.is_empty() {
        log::info(SUBSYSTEM, || {
            let ((a, b), (c, d)) = versions;
            format!(
                "the image's glibc {c}.{d} is not older than the host's {a}.{b}: nothing to replace"
            )
        });
        return Ok(());
    }
    let ((a, b), (c, d)) = versions;
    log::warn(
        SUBSYSTEM,
        &format!(
            "the image's glibc {c}.{d} is replaced by the host's {a}.{b}; an image with a newer \
             glibc would not need it"
        ),
    );
    log_plan(SUBSYSTEM, &plan);
    plan.iter().try_for_each(|step| root.replace(&step.source, &step.target))
}

/// A file of the host, to be mounted over one of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The host's file.
    pub source: PathBuf,
    /// The container's file.
    pub target: PathBuf,
}

/// Decides which libraries are replaced, from the versions of both C libraries and from `pairs`: each
/// library of the host with those of the same soname in the container. None, unless the container's C
/// library is older.
#[must_use]
pub fn plan(
    host: Version,
    container: Version,
    pairs: &[(&Library, &[Library])],
) -> Vec<Replacement> {
    if container >= host {
        return Vec::new();
    }
    let mut plan: Vec<Replacement> = Vec::new();
    for (ours, theirs) in pairs {
        for library in *theirs {
            if soname(library) == soname(ours)
                && plan.iter().all(|step| step.target != library.real)
            {
                plan.push(Replacement { source: ours.real.clone(), target: library.real.clone() });
            }
        }
    }
    plan
}

/// The name that programs load a library by: the soname, or the name of the file.
fn soname(library: &Library) -> &str {
    library.elf.soname.as_deref().unwrap_or_else(|| library.file_name())
}

/// The version of the C library `library` in `root`.
///
/// # Errors
/// If the file has none.
pub fn version(root: &RootDir, library: &Library) -> Result<Version> {
    let context = || format!("cannot find the version of {}", library.path.display());
    let file = root.open_file(&library.real)?.ok_or("it was removed").context(context)?;
    elf::glibc_version(&file, &library.elf).context(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::libraries::tests::library;

    fn named(names: &[&str], soname: &str) -> Library {
        let mut library = library(names);
        library.elf.soname = Some(soname.to_owned());
        library
    }

    #[test]
    fn only_older_libraries_of_the_same_name_are_replaced() {
        let host = [named(&["libc.so.6"], "libc.so.6"), named(&["libm.so.6"], "libm.so.6")];
        let libc = [
            named(&["libc.so.6", "libc-2.31.so"], "libc.so.6"),
            named(&["libc.so.6", "libc-2.31.so"], "libc.so.6"),
        ];
        let libm = [named(&["libm.so.6", "libm-2.31.so"], "libm.so.7")];
        let pairs = [(&host[0], &libc[..]), (&host[1], &libm[..])];
        let expected =
            Replacement { source: "/lib/libc.so.6".into(), target: "/lib/libc-2.31.so".into() };
        for (ours, theirs, plans) in [
            ((2, 36), (2, 31), vec![expected]),
            ((2, 36), (2, 36), vec![]),
            ((2, 9), (2, 31), vec![]),
            ((2, 36), (3, 0), vec![]),
        ] {
            assert_eq!(plan(ours, theirs, &pairs), plans, "{ours:?} {theirs:?}");
        }
    }
}
