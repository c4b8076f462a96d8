//! Shared libraries by their names: `libmpi.so.12.1.8` has the linker name `libmpi.so`, the major
//! number 12 and the minor 1.

use std::path::PathBuf;

use super::elf;

/// A shared library, of the host or of a container.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// The path that it is known by.
    pub path: PathBuf,
    /// The file itself, when all links are followed.
    pub real: PathBuf,
    /// The file names of all links on the way, and of the file.
    pub names: Vec<String>,
    /// What the file says.
    pub elf: elf::Library,
}

/// The numbers that tell whether one library can stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Abi {
    /// Equal, or they are not compatible.
    pub major: u32,
    /// What a newer one adds.
    pub minor: u32,
}

impl std::fmt::Display for Abi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Library {
    /// What it is called when programs are linked: all before the numbers.
    #[must_use]
    pub fn linker_name(&self) -> Option<&str> {
        linker_name(self.names.first()?)
    }

    /// The file's own name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    /// The name that the file gives itself, if it can be that of a link: it comes from an image.
    #[must_use]
    pub fn soname(&self) -> Option<&String> {
        self.elf.soname.as_ref().filter(|name| !name.contains('/') && !name.is_empty())
    }

    /// From the numbers of the file's name, or of a link to it that has more and agrees with them;
    /// missing numbers are zero. None when no name has a number.
    ///
    /// A vendor's file may count on its own: `libmpi.so.12` that leads to `libmpich_gnu.so.3.0.1` is
    /// 12. So names with another linker name than the library's can only add to what its own say.
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

    /// All that programs and ldconfig may look for beside the file: what links to it on the host,
    /// the linker name with each of its numbers, and the name that the file gives itself.
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

/// A library's name without its numbers.
#[must_use]
pub fn linker_name(name: &str) -> Option<&str> {
    split(name).map(|(linker, _)| linker)
}

/// The first number of a library's name.
#[must_use]
pub fn major(name: &str) -> Option<u32> {
    numbers(name)?.first().copied()
}

/// The linker name, and the rest with its leading dot.
fn split(name: &str) -> Option<(&str, &str)> {
    let is_end = |at: &usize| {
        let rest = name.get(at + 3..).unwrap_or_default();
        rest.is_empty() || rest.starts_with('.')
    };
    let at = name.match_indices(".so").map(|(at, _)| at).find(is_end)?;
    name.split_at_checked(at + 3)
}

/// The numbers behind `.so`, as many as there are.
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
            elf: elf::Library::default(),
        }
    }

    #[test]
    fn numbers_are_read_along_the_links() {
        for (names, linker, abi) in [
            (&["libmpi.so.12", "libmpi.so.12.1.8"][..], Some("libmpi.so"), Some((12, 1))),
            (&["libmpi.so.12", "libmpich.so.12.2.2"], Some("libmpi.so"), Some((12, 2))),
            // Cray's.
            (&["libmpi.so.12", "libmpich_gnu_71.so.3.0.1"], Some("libmpi.so"), Some((12, 0))),
            (&["libmpi.so.12", "libmpi.so.12.1", "x.so.3.0"], Some("libmpi.so"), Some((12, 1))),
            // Debian's, for who develops.
            (&["libmpi.so", "libmpich.so", "libmpich.so.12.2.2"], Some("libmpi.so"), Some((12, 2))),
            (&["libmpi.so"], Some("libmpi.so"), None),
            (&["libmpi.so.12"], Some("libmpi.so"), Some((12, 0))),
            (&["libmpi.so.12.5.0", "libmpi.so.12", "libmpi.so"], Some("libmpi.so"), Some((12, 5))),
            // What contradicts the file counts for nothing.
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
