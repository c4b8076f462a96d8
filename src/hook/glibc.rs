//! The hook that puts the host's GNU C Library in place of the container's, when that is older.
//! Manual, "Native glibc hook".

use std::path::PathBuf;

use super::container_root::Inside;
use super::files::Tree;
use super::library::Library;
use super::{Container, elf, host_libraries, ldcache, log_plan};
use crate::error::{Context, Error, Result};
use crate::log;

/// Set by the engine for `--glibc` and `--mpi`.
const ENABLED: &str = "com.hooks.glibc.enabled";

const SUBSYSTEM: &str = "glibc hook";

/// The library that tells the version of all of them.
const LIBC: &str = "libc.so.6";

/// Maximum number of libraries in an image that have the name of one of the host's.
const MAX_COPIES: usize = 16;

/// A version of the GNU C Library, `(2, 36)`.
pub type Version = (u32, u32);

/// Replaces the libraries, or finds that there is no need to.
///
/// # Errors
/// When the container has a library of the same name that cannot be replaced.
pub fn run(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    let inside = Inside::enter(container)?;
    let host = host_libraries(&inside.host, "GLIBC_LIBS")?;
    let cannot = || "cannot use the image's /etc/ld.so.cache".to_owned();
    let Some(cache) = inside.container.cache().context(cannot)? else {
        // Not the GNU C Library, or one that loads nothing.
        log::info(SUBSYSTEM, || "the image has no /etc/ld.so.cache: nothing to replace".into());
        return Ok(());
    };
    let cache = ldcache::read(&cache).context(cannot)?;
    let find = |soname: &str| -> Result<Vec<Library>> {
        let entries = cache.iter().filter(|entry| entry.soname == soname);
        inside.container.libraries(entries.map(|entry| entry.path), MAX_COPIES)
    };
    let version = |tree: &Tree, library: &Library| version(tree, library);
    let ours = host.iter().find(|library| soname(library) == LIBC);
    let ours = ours.ok_or_else(|| {
        Error::new(format!("cannot compare with the container: {LIBC} is not in GLIBC_LIBS"))
    })?;
    let Some(theirs) = find(LIBC)?.into_iter().next() else {
        log::info(SUBSYSTEM, || "the image has no GNU C Library: nothing to replace".into());
        return Ok(());
    };
    let versions = (version(&inside.host, ours)?, version(&inside.container, &theirs)?);
    let mut found = Vec::new();
    for library in &host {
        found.push(find(soname(library))?);
    }
    let pairs: Vec<_> = host.iter().zip(found.iter().map(Vec::as_slice)).collect();
    let plan = plan(versions.0, versions.1, &pairs);
    if plan.is_empty() {
        log::info(SUBSYSTEM, || {
            let ((a, b), (c, d)) = versions;
            format!("the image's glibc {c}.{d} is not older than the host's {a}.{b}: it stays")
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
    plan.iter().try_for_each(|step| inside.replace(&step.source, &step.target))
}

/// A file of the container that the host's takes the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The host's file.
    pub source: PathBuf,
    /// The container's.
    pub target: PathBuf,
}

/// Each library of the host with those of the same name in the container: what is to be replaced.
/// Nothing, unless the container's C library is older.
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

/// The name that programs load a library by.
fn soname(library: &Library) -> &str {
    library.elf.soname.as_deref().unwrap_or_else(|| library.file_name())
}

/// The version of the C library at hand.
///
/// # Errors
/// When it does not tell.
pub fn version(tree: &Tree, library: &Library) -> Result<Version> {
    let cannot = || format!("cannot find the version of {}", library.path.display());
    let file = tree.open_file(&library.real)?.ok_or("it is gone").context(cannot)?;
    elf::glibc_version(&file, &library.elf).context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::library::tests::library;

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
