//! The hook that puts the host's MPI in place of the container's, where their binary interfaces fit.
//! Manual, "Native MPI hook" and "ABI compatibility and its implications".
//!
//! [`plan`] decides, from what the libraries of both sides are; [`run`] does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::container_root::Inside;
use super::ldcache::{self, Entry, Listing};
use super::library::{Abi, Library, linker_name};
use super::{Container, elf, glibc, host_libraries, log_plan, paths};
use crate::error::{Context, Error, Result};
use crate::log;

/// Set by the engine for `--mpi`.
const ENABLED: &str = "com.hooks.mpi.enabled";

const SUBSYSTEM: &str = "MPI hook";

/// Where libraries go that the container lacks.
const FOLDER: &str = "/usr/lib";

/// Maximum number of libraries in an image that are called as one of the host's. An image with three
/// MPIs has some thirty.
const MAX_COPIES: usize = 64;

/// Replaces the container's MPI.
///
/// # Errors
/// When the container has no MPI that the host's could stand for. Then nothing is mounted.
pub fn run(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    use_host(container).context(|| "cannot use the host's MPI in this container".into())
}

fn use_host(container: &Container) -> Result<()> {
    let inside = Inside::enter(container)?;
    let host = host_libraries(&inside.host, "MPI_LIBS")?;
    if host.is_empty() {
        return Err(Error::new("MPI_LIBS is empty")
            .with_hint("the site sets it in the environment of the hook, in sarus.json"));
    }
    let dependencies = host_libraries(&inside.host, "MPI_DEPENDENCY_LIBS")?;
    let shared = paths("BIND_MOUNTS")?;
    let cannot = || "cannot use the image's /etc/ld.so.cache".to_owned();
    let old = inside.container.cache().context(cannot)?.ok_or_else(|| no_cache(&inside))?;
    let cache = ldcache::read(&old).context(cannot)?;
    let theirs = matching(&inside, &cache, &host)?;
    let plan = plan(&host, &dependencies, &theirs)?;
    let ours: Vec<_> = host.iter().chain(&dependencies).collect();
    check_glibc(&inside, &cache, &ours)?;
    for warning in &plan.warnings {
        log::warn(SUBSYSTEM, warning);
    }
    log_plan(SUBSYSTEM, &plan.steps);
    let mut new = Vec::new();
    for step in &plan.steps {
        new.extend(take(&inside, step)?);
    }
    shared.iter().try_for_each(|path| inside.share(path))?;
    // A link stands where every linker looks, but a new file is found by the cache alone.
    if plan.steps.iter().any(|step| matches!(step, Step::Add { .. })) {
        inside.list(&old, &new)?;
    }
    Ok(())
}

/// Takes a step, and tells by which names libraries can be found that could not be found before.
fn take(inside: &Inside, step: &Step) -> Result<Vec<Listing>> {
    let listing = |soname: &str, path: PathBuf| Listing {
        soname: soname.to_owned(),
        path: path.to_string_lossy().into_owned(),
    };
    match step {
        Step::Replace { source, target } => inside.replace(source, target).map(|()| Vec::new()),
        Step::Add { source, name, aliases } => {
            let folder = Path::new(FOLDER);
            let names = inside.add(source, folder, name, aliases)?;
            Ok(names.into_iter().map(|name| listing(name, folder.join(name))).collect())
        }
        Step::Link { target, name } => {
            Ok(inside.link(target, name)?.map(|path| listing(name, path)).into_iter().collect())
        }
    }
}

fn no_cache(inside: &Inside) -> Error {
    let musl = format!("/lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    let lib = inside.container.find(Path::new(&musl), OFlags::PATH);
    if matches!(lib, Ok(Some(_))) {
        return Error::new("the image's C library is musl")
            .with_hint("the host's MPI needs the GNU C Library: use an image that has it");
    }
    Error::new("the image has no /etc/ld.so.cache")
        .with_hint("the image must use the GNU C Library; run ldconfig when it is built")
}

/// The container's libraries that are called as one of the host's.
fn matching(inside: &Inside, cache: &[Entry<'_>], host: &[Library]) -> Result<Vec<Library>> {
    let is_wanted = |path: &&str| {
        let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        let named = Library { names: name.into_iter().collect(), ..Library::default() };
        host.iter().any(|library| library.linker_name() == named.linker_name())
    };
    // What the cache lists and the image has no more is nobody's library.
    inside.container.libraries(cache.iter().map(|entry| entry.path).filter(is_wanted), MAX_COPIES)
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The host's file takes the place of the container's.
    Replace {
        /// The host's file.
        source: PathBuf,
        /// The container's.
        target: PathBuf,
    },
    /// The host's file is new in the container.
    Add {
        /// The host's file.
        source: PathBuf,
        /// What it is called in the container.
        name: String,
        /// What else programs may look for.
        aliases: Vec<String>,
    },
    /// A file of the container gets another name, by which every linker finds it.
    Link {
        /// The file.
        target: PathBuf,
        /// The name.
        name: String,
    },
}

/// All that is to be done, and what to know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// For the user.
    pub warnings: Vec<String>,
}

/// Decides by the names of the libraries of host and container.
///
/// # Errors
/// When the interfaces do not fit, or there is nothing to replace.
pub fn plan(host: &[Library], dependencies: &[Library], container: &[Library]) -> Result<Plan> {
    let mut plan = Plan::default();
    for ours in host {
        let shown = ours.path.display();
        let abi = ours.abi().ok_or_else(|| {
            Error::new(format!("no name of the host's {shown} has a version number"))
                .with_hint("MPI_LIBS must name files such as libmpi.so.12.1.8, or links to them")
        })?;
        let same = |theirs: &&Library| theirs.linker_name() == ours.linker_name();
        let theirs: Vec<_> = container.iter().filter(same).collect();
        let versions: Vec<_> = theirs.iter().filter_map(|one| Some((*one, one.abi()?))).collect();
        if let (Some(first), true) = (theirs.first(), versions.is_empty()) {
            let path = first.path.display();
            return Err(Error::new(format!("no name of the image's {path} has a version number"))
                .with_hint(
                    "the image must have its MPI as libmpi.so.<major>.<minor>, with links to it",
                ));
        }
        for (theirs, version) in &versions {
            replace(&mut plan, ours, abi, theirs, *version)?;
        }
        if versions.is_empty() {
            add(&mut plan, ours);
        }
    }
    if !plan.steps.iter().any(|step| matches!(step, Step::Replace { .. })) {
        let names: Vec<_> = host.iter().filter_map(Library::linker_name).collect();
        let text = format!("the image has none of {} in its /etc/ld.so.cache", names.join(", "));
        return Err(Error::new(text).with_hint(
            "its MPI must be one that is compatible with MPICH, linked dynamically; run ldconfig \
             when the image is built",
        ));
    }
    for library in dependencies {
        add(&mut plan, library);
    }
    Ok(plan)
}

fn replace(
    plan: &mut Plan,
    ours: &Library,
    host: Abi,
    theirs: &Library,
    container: Abi,
) -> Result<()> {
    let (our_path, their_path) = (ours.path.display(), theirs.real.display());
    if host.major != container.major {
        return Err(Error::new(format!(
            "the host's {our_path} has ABI {host}, the image's {their_path} has {container}"
        ))
        .with_hint(
            "the major numbers must be equal: use an image with another MPI, or leave --mpi out",
        ));
    }
    let step = Step::Replace { source: ours.real.clone(), target: theirs.real.clone() };
    if plan.steps.contains(&step) {
        return Ok(());
    }
    if host.minor < container.minor {
        plan.warnings.push(format!(
            "partial ABI compatibility: the host's {our_path} has ABI {host}, the image's \
             {their_path} has the newer {container}; a program that uses what is new will fail"
        ));
    }
    plan.steps.push(step);
    link(plan, ours, theirs, &theirs.real);
    Ok(())
}

fn add(plan: &mut Plan, library: &Library) {
    let name = library.file_name().to_owned();
    let target = Path::new(FOLDER).join(&name);
    let source = library.real.clone();
    plan.steps.push(Step::Add { source, name, aliases: library.aliases() });
    // What the host's links say of it.
    let known = Library { names: library.names.clone(), ..Library::default() };
    link(plan, library, &known, &target);
}

/// A cache lists a library by the name that it gives itself, whatever it is called. Where `ours`
/// comes as `target`, which programs know as `known`, and calls itself something else, as Cray's
/// does, both are names to be found by, in a new cache or without.
fn link(plan: &mut Plan, ours: &Library, known: &Library, target: &Path) {
    let Some(soname) = ours.soname() else { return };
    let is_known = match known.soname() {
        Some(theirs) => theirs == soname,
        None => known.linker_name() == linker_name(soname),
    };
    if is_known {
        return;
    }
    for name in known.names.iter().chain(known.soname()).chain([soname]) {
        let step = Step::Link { target: target.to_owned(), name: name.clone() };
        if !plan.steps.contains(&step) {
            plan.steps.push(step);
        }
    }
}

/// Makes sure that the container's C library, with what comes into it, offers what the host's
/// libraries need of it.
fn check_glibc(inside: &Inside, cache: &[Entry<'_>], host: &[&Library]) -> Result<()> {
    let mut offers: BTreeMap<String, elf::Library> = BTreeMap::new();
    for library in host {
        for soname in library.elf.wants.keys() {
            if offers.contains_key(soname) {
                continue;
            }
            // The first one in the cache is the one that the linker takes.
            let path = cache.iter().find(|entry| entry.soname == *soname).map(|entry| entry.path);
            let theirs = path.map(|path| inside.container.library(Path::new(path))).transpose()?;
            let theirs = theirs.flatten().map(|library| library.elf);
            let ours = || host.iter().find(|one| one.soname() == Some(soname));
            if let Some(elf) = theirs.or_else(|| ours().map(|library| library.elf.clone())) {
                offers.insert(soname.clone(), elf);
            }
        }
        let Some((soname, version)) = missing(&library.elf, &offers) else { continue };
        let path = library.path.display();
        if !offers.contains_key(soname) {
            return Err(Error::new(format!(
                "{path} needs {soname}, which the image does not have"
            ))
            .with_hint("the site can add the host's to MPI_DEPENDENCY_LIBS"));
        }
        return Err(Error::new(format!(
            "{path} needs {version} of {soname}, which the image{} does not have",
            glibc_of(inside, cache)
        ))
        .with_hint(
            "an image with a newer glibc would do; so would the host's in its place, if the site \
             configured glibc_hook before this hook",
        ));
    }
    Ok(())
}

/// ` (glibc 2.31)`, if that can be found out.
fn glibc_of(inside: &Inside, cache: &[Entry<'_>]) -> String {
    let version = || {
        let entry = cache.iter().find(|entry| entry.soname == "libc.so.6")?;
        let library = inside.container.library(Path::new(entry.path)).ok()??;
        glibc::version(&inside.container, &library).ok()
    };
    version().map_or(String::new(), |(major, minor)| format!(" (glibc {major}.{minor})"))
}

/// What `library` needs of the GNU C Library and `offers` lack.
fn missing<'a>(
    library: &'a elf::Library,
    offers: &BTreeMap<String, elf::Library>,
) -> Option<(&'a str, &'a str)> {
    let wanted = library.wants.iter();
    let mut pairs = wanted.flat_map(|(soname, all)| all.iter().map(move |one| (soname, one)));
    let lacks = |(soname, version): &(&String, &String)| {
        version.starts_with("GLIBC_")
            && !offers.get(*soname).is_some_and(|library| library.offers.contains(*version))
    };
    pairs.find(lacks).map(|(soname, version)| (soname.as_str(), version.as_str()))
}

#[cfg(test)]
mod tests;
