//! Shared libraries by their file names: `libmpi.so.12.1.8` has the linker name `libmpi.so`, the major
//! version number 12 and the minor number 1.

use std::path::{Path, PathBuf};

use super::elf::{self, SharedObject};
use crate::error::{Context, Error, Result};
use crate::rootfs::root_dir::RootDir;

/// A shared library, of the host or of a container.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// The path that was asked for or that a cache lists.
    pub path: PathBuf,
    /// The path of the file, with the links of `path`'s last component followed.
    pub real: PathBuf,
    /// The file names of all links between the two, and of the file.
    pub names: Vec<String>,
    /// Contents of the file.
    pub elf: SharedObject,
}

/// Version numbers that tell whether one library can replace another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Abi {
    /// The number that must be equal.
    pub major: u32,
    /// The number that grows with additions to the interface.
    pub minor: u32,
}

impl std::fmt::Display for Abi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Library {
    /// The name that programs are linked with: all before the numbers.
    #[must_use]
    pub fn linker_name(&self) -> Option<&str> {
        linker_name(self.names.first()?)
    }

    /// The file's own name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    /// `DT_SONAME`, if it can be a file name: an image may say anything.
    #[must_use]
    pub fn soname(&self) -> Option<&String> {
        self.elf.soname.as_ref().filter(|name| !name.contains('/') && !name.is_empty())
    }

    /// The version by the numbers of the file's name, or of a link to it that has more numbers and
    /// agrees with them; a missing minor number is zero. `None` if no name has a number.
    ///
    /// A vendor may count files on its own: `libmpi.so.12` that leads to `libmpich_gnu.so.3.0.1` is
    /// version 12. So names with another linker name can only add to the numbers of the library's own.
    #[must_use]
    pub fn abi(&self) -> Option<Abi> {
        let is_own = |name: &&String| linker_name(name) == self.linker_name();
        let longer = |known: Vec<u32>, other: Vec<u32>| {
            if other.starts_with(&known) { other } else { known }
        };
        let all = || self.names.iter().rev();
        let names = all().filter(is_own).chain(all().filter(|name| !is_own(name)));
        let longest = names.filter_map(|name| numbers(name)).reduce(longer)?;
        let mut numbers = longest.into_iter();
        Some(Abi { major: numbers.next()?, minor: numbers.next().unwrap_or(0) })
    }

    /// All names beside the file's own that programs and ldconfig may look for: the links on the host,
    /// the linker name with each of the numbers, and the soname.
    #[must_use]
    pub fn aliases(&self) -> Vec<String> {
        let mut names = self.names.clone();
        let file = self.file_name();
        if let Some((linker, rest)) = split(file) {
            names.push(linker.to_owned());
            let ends = rest.char_indices().filter(|(at, letter)| *at > 0 && *letter == '.');
            let parts = ends.filter_map(|(at, _)| rest.get(..at));
            names.extend(parts.map(|part| format!("{linker}{part}")));
        }
        names.extend(self.soname().cloned());
        names.retain(|name| name != file);
        names.sort();
        names.dedup();
        names
    }
}

/// Reads the library at `path` of `root`; `None` if it does not exist.
///
/// # Errors
/// If it is not a library for this machine.
pub fn open(root: &RootDir, path: &Path) -> Result<Option<Library>> {
    let Some((real, names)) = root.follow(path)? else { return Ok(None) };
    let context = || format!("cannot read {}", path.display());
    let Some(file) = root.open_file(&real)? else { return Ok(None) };
    let elf = elf::read(&file).context(context)?;
    Ok(Some(Library { path: path.to_owned(), real, names, elf }))
}

/// Reads the libraries at `paths` of `root` that exist, each path once.
///
/// # Errors
/// If there are more than `max` different paths, or one is not a library for this machine.
pub fn open_all<'a>(
    root: &RootDir,
    paths: impl Iterator<Item = &'a str>,
    max: usize,
) -> Result<Vec<Library>> {
    let mut different: Vec<&str> = Vec::new();
    for path in paths {
        if different.contains(&path) {
            continue;
        }
        if different.len() == max {
            let text = format!("more than {max} libraries have the same name, as {path:.80}");
            return Err(Error::new(text));
        }
        different.push(path);
    }
    let library = |path: &str| open(root, Path::new(path)).transpose();
    different.into_iter().filter_map(library).collect()
}

/// The name of a library without its version numbers.
#[must_use]
pub fn linker_name(name: &str) -> Option<&str> {
    split(name).map(|(linker, _)| linker)
}

/// The first version number in the name of a library.
#[must_use]
pub fn major(name: &str) -> Option<u32> {
    numbers(name)?.first().copied()
}

/// Splits a name into linker name and version numbers, these with a leading dot.
fn split(name: &str) -> Option<(&str, &str)> {
    let is_end = |at: &usize| {
        let rest = name.get(at + 3..).unwrap_or_default();
        rest.is_empty() || rest.starts_with('.')
    };
    let at = name.match_indices(".so").map(|(at, _)| at).find(is_end)?;
    name.split_at_checked(at + 3)
}

/// The numbers behind `.so`, up to the first word that is not a number.
fn numbers(name: &str) -> Option<Vec<u32>> {
    let (_, rest) = split(name)?;
    let parts = rest.split('.').skip(1);
    let numbers: Vec<u32> = parts.map_while(|part| part.parse().ok()).collect();
    (!numbers.is_empty()).then_some(numbers)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A library in `/lib` whose first name is the path's.
    pub(crate) fn library(names: &[&str]) -> Library {
        Library {
            path: PathBuf::from("/lib").join(names[0]),
            real: PathBuf::from("/lib").join(names[names.len() - 1]),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            elf: SharedObject::default(),
        }
    }

    #[test]
    fn numbers_are_read_along_the_links() {
        for (names, linker, abi) in [
            (&["libmpi.so.12", "libmpi.so.12.1.8"][..], Some("libmpi.so"), Some((12, 1))),
            (&["libmpi.so.12", "libmpich.so.12.2.2"], Some("libmpi.so"), Some((12, 2))),
            // Cray MPICH.
            (&["libmpi.so.12", "libmpich_gnu_71.so.3.0.1"], Some("libmpi.so"), Some((12, 0))),
            (&["libmpi.so.12", "libmpi.so.12.1", "x.so.3.0"], Some("libmpi.so"), Some((12, 1))),
            // Debian's development package.
            (&["libmpi.so", "libmpich.so", "libmpich.so.12.2.2"], Some("libmpi.so"), Some((12, 2))),
            (&["libmpi.so"], Some("libmpi.so"), None),
            (&["libmpi.so.12"], Some("libmpi.so"), Some((12, 0))),
            (&["libmpi.so.12.5.0", "libmpi.so.12", "libmpi.so"], Some("libmpi.so"), Some((12, 5))),
            // A link that contradicts the file is not counted.
            (&["libmpi.so.12.5", "libmpi.so.13.1"], Some("libmpi.so"), Some((13, 1))),
            (&["libmpi.so.12x"], Some("libmpi.so"), None),
            (&["libmpi.so.12.x.4"], Some("libmpi.so"), Some((12, 0))),
            (&["libmpi.so.99999999999"], Some("libmpi.so"), None),
            (&["lib.sox.so.1"], Some("lib.sox.so"), Some((1, 0))),
            (&["libmpi-12.a"], None, None),
            (&["ld-2.31.so"], Some("ld-2.31.so"), None),
        ] {
            let library = library(names);
            assert_eq!(library.linker_name(), linker, "{names:?}");
            assert_eq!(library.abi().map(|abi| (abi.major, abi.minor)), abi, "{names:?}");
        }
    }

    #[test]
    fn all_names_that_may_be_looked_for_are_known() {
        let mut one = library(&["libfoo.so", "libfoo.so.1.2.3"]);
        assert_eq!(one.aliases(), ["libfoo.so", "libfoo.so.1", "libfoo.so.1.2"]);
        one.elf.soname = Some("libfoo-cray.so.7".into());
        assert_eq!(
            one.aliases(),
            ["libfoo-cray.so.7", "libfoo.so", "libfoo.so.1", "libfoo.so.1.2"]
        );
        one.elf.soname = Some("../../etc/passwd".into());
        assert_eq!(one.aliases().len(), 3);
        assert_eq!(library(&["libbar.so"]).aliases(), [""; 0]);
    }
}
