//! The hook that replaces a container's MPI by the host's, if their binary interfaces are compatible.
//! Manual, "Native MPI hook" and "ABI compatibility and its implications".
//!
//! [`plan`] decides from the libraries of host and container; [`run`] carries the plan out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::container_root::ContainerRoot;
use super::libraries::ldcache::{self, CacheEntry, Listing};
use super::libraries::{self, Abi, Library, elf, ldconfig, linker_name};
use super::{Container, glibc, host_libraries, log_plan, paths};
use crate::error::{Context, Error, Result};
use crate::log;

/// Annotation that asks for this hook: `--mpi`.
pub const ENABLED: &str = "com.hooks.mpi.enabled";

const SUBSYSTEM: &str = "MPI hook";

/// The directory for libraries that the container lacks.
const FOLDER: &str = "/usr/lib";

/// Maximum number of libraries in an image with the names of the host's. An image with three MPIs has
/// some thirty.
const MAX_COPIES: usize = 64;

/// Replaces the container's MPI.
///
/// # Errors
/// If the container has no MPI that the host's can replace: then nothing is mounted.
pub fn run(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    use_host(container).context(|| "cannot use the host's MPI in this container".into())
}

fn use_host(container: &Container) -> Result<()> {
    let root = ContainerRoot::enter(container)?;
    let host = host_libraries(&root.host, "MPI_LIBS")?;
    if host.is_empty() {
        return Err(Error::new("MPI_LIBS is empty")
            .with_hint("the site sets it in the environment of the hook, in sarus.json"));
    }
    let dependencies = host_libraries(&root.host, "MPI_DEPENDENCY_LIBS")?;
    let shared = paths("BIND_MOUNTS")?;
    let context = || "cannot use the image's /etc/ld.so.cache".to_owned();
    let old = ldcache::load(&root.container).context(context)?.ok_or_else(|| no_cache(&root))?;
    let cache = ldcache::read(&old).context(context)?;
    let theirs = matching(&root, &cache, &host)?;
    let plan = plan(&host, &dependencies, &theirs)?;
    let ours: Vec<_> = host.iter().chain(&dependencies).collect();
    check_glibc(&root, &cache, &ours)?;
    for warning in &plan.warnings {
        log::warn(SUBSYSTEM, warning);
    }
    log_plan(SUBSYSTEM, &plan.steps);
    let mut new = Vec::new();
    for step in &plan.steps {
        new.extend(carry_out(&root, step)?);
    }
    shared.iter().try_for_each(|path| root.share(path))?;
    // Links are in directories that linkers search by default; a new file is found by the cache alone.
    if plan.steps.iter().any(|step| matches!(step, Step::Add { .. })) {
        ldconfig::update(&root, &old, &new)?;
    }
    Ok(())
}

/// Carries out a step, and returns the names by which libraries are found from now on.
fn carry_out(root: &ContainerRoot, step: &Step) -> Result<Vec<Listing>> {
    let listing = |soname: &str, path: PathBuf| Listing {
        soname: soname.to_owned(),
        path: path.to_string_lossy().into_owned(),
    };
    match step {
        Step::Replace { source, target } => root.replace(source, target).map(|()| Vec::new()),
        Step::Add { source, name, aliases } => {
            let folder = Path::new(FOLDER);
            let names = root.add_library(source, folder, name, aliases)?;
            Ok(names.into_iter().map(|name| listing(name, folder.join(name))).collect())
        }
        Step::Link { target, name } => Ok(root
            .link_library(target, name)?
            .map(|path| listing(name, path))
            .into_iter()
            .collect()),
    }
}

fn no_cache(root: &ContainerRoot) -> Error {
    let musl = format!("/lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    let lib = root.container.find(Path::new(&musl), OFlags::PATH);
    if matches!(lib, Ok(Some(_))) {
        return Error::new("the image's C library is musl")
            .with_hint("the host's MPI needs the GNU C Library: use an image that has it");
    }
    Error::new("the image has no /etc/ld.so.cache")
        .with_hint("the image must use the GNU C Library; run ldconfig when it is built")
}

/// The container's libraries with the linker names of the host's.
fn matching(
    root: &ContainerRoot,
    cache: &[CacheEntry<'_>],
    host: &[Library],
) -> Result<Vec<Library>> {
    let is_wanted = |path: &&str| {
        let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        let named = Library { names: name.into_iter().collect(), ..Library::default() };
        host.iter().any(|library| library.linker_name() == named.linker_name())
    };
    let paths = cache.iter().map(|entry| entry.path).filter(is_wanted);
    libraries::open_all(&root.container, paths, MAX_COPIES)
}

/// One change in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Mounts the host's file over the container's.
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
        /// The name in the container.
        name: String,
        /// Other names that programs may look for.
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

/// Changes in the container, and warnings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplacementPlan {
    /// Changes, in this order.
    pub steps: Vec<Step>,
    /// Messages for the user.
    pub warnings: Vec<String>,
}

/// Decides from the names of the libraries of host and container.
///
/// # Errors
/// If the interfaces are not compatible, or there is nothing to replace.
pub fn plan(
    host: &[Library],
    dependencies: &[Library],
    container: &[Library],
) -> Result<ReplacementPlan> {
    let mut plan = ReplacementPlan::default();
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
    plan: &mut ReplacementPlan,
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

fn add(plan: &mut ReplacementPlan, library: &Library) {
    let name = library.file_name().to_owned();
    let target = Path::new(FOLDER).join(&name);
    let source = library.real.clone();
    plan.steps.push(Step::Add { source, name, aliases: library.aliases() });
    // The names of the host's links.
    let known = Library { names: library.names.clone(), ..Library::default() };
    link(plan, library, &known, &target);
}

/// Adds links by which `ours`, mounted on `target`, is found under the names of `known`, and under its
/// own soname if that is another name, as Cray's is. A cache lists a library by its soname alone.
fn link(plan: &mut ReplacementPlan, ours: &Library, known: &Library, target: &Path) {
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

/// Checks that the container's C library, or one that the hook adds, defines all symbol versions that
/// the host's libraries need.
fn check_glibc(root: &ContainerRoot, cache: &[CacheEntry<'_>], host: &[&Library]) -> Result<()> {
    let mut defined: BTreeMap<String, elf::SharedObject> = BTreeMap::new();
    for library in host {
        for soname in library.elf.needed_versions.keys() {
            if defined.contains_key(soname) {
                continue;
            }
            // The linker takes the first entry of the cache.
            let path = cache.iter().find(|entry| entry.soname == *soname).map(|entry| entry.path);
            let theirs =
                path.map(|path| libraries::open(&root.container, Path::new(path))).transpose()?;
            let theirs = theirs.flatten().map(|library| library.elf);
            let ours = || host.iter().find(|one| one.soname() == Some(soname));
            if let Some(elf) = theirs.or_else(|| ours().map(|library| library.elf.clone())) {
                defined.insert(soname.clone(), elf);
            }
        }
        let Some((soname, version)) = missing(&library.elf, &defined) else { continue };
        let path = library.path.display();
        if !defined.contains_key(soname) {
            return Err(Error::new(format!(
                "{path} needs {soname}, which the image does not have"
            ))
            .with_hint("the site can add the host's to MPI_DEPENDENCY_LIBS"));
        }
        return Err(Error::new(format!(
            "{path} needs {version} of {soname}, which the image{} does not have",
            glibc_of(root, cache)
        ))
        .with_hint(
            "use an image with a newer glibc; or the site configures glibc_hook before mpi_hook, which \
             replaces the image's glibc by the host's",
        ));
    }
    Ok(())
}

/// Text such as ` (glibc 2.31)`, empty if the version cannot be found.
fn glibc_of(root: &ContainerRoot, cache: &[CacheEntry<'_>]) -> String {
    let version = || {
        let entry = cache.iter().find(|entry| entry.soname == "libc.so.6")?;
        let library = libraries::open(&root.container, Path::new(entry.path)).ok()??;
        glibc::version(&root.container, &library).ok()
    };
    version().map_or(String::new(), |(major, minor)| format!(" (glibc {major}.{minor})"))
}

/// The first library and version of the GNU C Library that `library` needs and `defined` lacks.
fn missing<'a>(
    library: &'a elf::SharedObject,
    defined: &BTreeMap<String, elf::SharedObject>,
) -> Option<(&'a str, &'a str)> {
    let wanted = library.needed_versions.iter();
    let mut pairs = wanted.flat_map(|(soname, all)| all.iter().map(move |one| (soname, one)));
    let lacks = |(soname, version): &(&String, &String)| {
        version.starts_with("GLIBC_")
            && !defined
                .get(*soname)
                .is_some_and(|library| library.defined_versions.contains(*version))
    };
    pairs.find(lacks).map(|(soname, version)| (soname.as_str(), version.as_str()))
}

#[cfg(test)]
mod tests;
