use super::*;
use crate::hook::libraries::tests::library;

/// A chain of names: what links to what, and the file at last.
type Names<'a> = &'a [&'a str];

fn libraries(all: &[Names<'_>]) -> Vec<Library> {
    all.iter().map(|names| library(names)).collect()
}

/// Steps of the plan by file names, and the number of warnings.
fn planned(
    host: &[Names<'_>],
    dependencies: &[Names<'_>],
    container: &[Names<'_>],
) -> Result<(Vec<String>, usize), String> {
    let plan = plan(&libraries(host), &libraries(dependencies), &libraries(container));
    let plan = plan.map_err(|error| error.to_string())?;
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let steps = plan.steps.iter().map(|step| match step {
        Step::Replace { source, target } => format!("{} > {}", name(source), name(target)),
        Step::Add { name, aliases, .. } => format!("+ {name} {}", aliases.join(" ")),
        Step::Link { target, name } => format!("{name} -> {}", target.display()),
    });
    Ok((steps.collect(), plan.warnings.len()))
}

const HOST: Names<'_> = &["libmpi.so.12", "libmpi.so.12.1.8"];

#[test]
fn the_manuals_rules_hold() {
    for (container, expected) in [
        // The same, older and newer minor numbers; only the last is warned of.
        (
            &[&["libmpi.so.12", "libmpi.so.12.1.1"][..]][..],
            Ok((vec!["libmpi.so.12.1.8 > libmpi.so.12.1.1"], 0)),
        ),
        (
            &[&["libmpi.so.12", "libmpi.so.12.0.5"]],
            Ok((vec!["libmpi.so.12.1.8 > libmpi.so.12.0.5"], 0)),
        ),
        (
            &[&["libmpi.so.12", "libmpi.so.12.2.0"]],
            Ok((vec!["libmpi.so.12.1.8 > libmpi.so.12.2.0"], 1)),
        ),
        (&[&["libmpi.so.12"]], Ok((vec!["libmpi.so.12.1.8 > libmpi.so.12"], 0))),
        // Another major number.
        (&[&["libmpi.so.40", "libmpi.so.40.30.4"]], Err("has 40.30")),
        (&[&["libmpi.so.11", "libmpi.so.11.1.8"]], Err("has 11.1")),
        // None at all, of the file, or of the library.
        (&[&["libmpi.so"]], Err("no name of the image's /lib/libmpi.so has a version number")),
        (&[], Err("the image has none of libmpi.so in its /etc/ld.so.cache")),
        (&[&["libmpicxx.so.12", "libmpicxx.so.12.1.8"]], Err("the image has none of libmpi.so")),
        // Several in one image: each is replaced, and one that does not fit is an error.
        (
            &[&["libmpi.so.12", "libmpi.so.12.0.5"], &["libmpi.so.12", "libmpi.so.12.2.1"]],
            Ok((
                vec!["libmpi.so.12.1.8 > libmpi.so.12.0.5", "libmpi.so.12.1.8 > libmpi.so.12.2.1"],
                1,
            )),
        ),
        (&[&["libmpi.so.12", "libmpi.so.12.0.5"], &["libmpi.so.40"]], Err("has 40.0")),
        // By two names, and with one that has no number.
        (
            &[
                &["libmpi.so.12", "libmpi.so.12.0.5"],
                &["libmpi.so", "libmpi.so.12", "libmpi.so.12.0.5"],
                &["libmpi.so"],
            ],
            Ok((vec!["libmpi.so.12.1.8 > libmpi.so.12.0.5"], 0)),
        ),
    ] {
        match (planned(&[HOST], &[], container), expected) {
            (Ok((steps, warnings)), Ok((expected, count))) => {
                assert_eq!(
                    (steps, warnings),
                    (expected.iter().map(|s| (*s).to_owned()).collect(), count),
                    "{container:?}"
                );
            }
            (Err(error), Err(expected)) => {
                assert!(error.contains(expected), "{container:?}: {error}")
            }
            (found, expected) => panic!("{container:?}: {found:?} is not {expected:?}"),
        }
    }
}

#[test]
fn what_the_image_lacks_is_added_with_all_its_names() {
    let cray: Names<'_> = &["libmpi_cray.so.12", "libmpi_cray.so.12.0.1"];
    let (steps, _) = planned(
        &[HOST, &["libmpicxx.so.12.1.8"]],
        &[&["libfabric.so.1.2"], cray],
        &[&["libmpi.so.12.1.0"]],
    )
    .unwrap();
    assert_eq!(
        steps,
        [
            "libmpi.so.12.1.8 > libmpi.so.12.1.0",
            "+ libmpicxx.so.12.1.8 libmpicxx.so libmpicxx.so.12 libmpicxx.so.12.1",
            "+ libfabric.so.1.2 libfabric.so libfabric.so.1",
            "+ libmpi_cray.so.12.0.1 libmpi_cray.so libmpi_cray.so.12 libmpi_cray.so.12.0",
        ]
    );
}

#[test]
fn a_library_of_another_name_is_found_by_both() {
    let named = |names: &[&str], soname: &str| {
        let mut library = library(names);
        library.elf.soname = Some(soname.to_owned());
        library
    };
    let cray = named(&["libmpi.so.12", "libmpich_gnu.so.3.0.1"], "libmpich_gnu.so.3");
    let theirs = named(&["libmpi.so.12", "libmpi.so.12.1.1"], "libmpi.so.12");
    let links = |plan: ReplacementPlan| -> Vec<_> {
        let links = plan.steps.into_iter().filter_map(|step| match step {
            Step::Link { target, name } => Some(format!("{name} {}", target.display())),
            _ => None,
        });
        links.collect()
    };
    let replaced = plan(std::slice::from_ref(&cray), &[], std::slice::from_ref(&theirs)).unwrap();
    let target = "/lib/libmpi.so.12.1.1";
    let names = ["libmpi.so.12", "libmpi.so.12.1.1", "libmpich_gnu.so.3"];
    assert_eq!(links(replaced), names.map(|name| format!("{name} {target}")));
    let host = named(&["libmpi.so.12", "libmpi.so.12.1.8"], "libmpi.so.12");
    let added = plan(&[host], &[cray], std::slice::from_ref(&theirs)).unwrap();
    let target = "/usr/lib/libmpich_gnu.so.3.0.1";
    let names = ["libmpi.so.12", "libmpich_gnu.so.3.0.1", "libmpich_gnu.so.3"];
    assert_eq!(links(added), names.map(|name| format!("{name} {target}")));
    // The image says of its library what it likes.
    let theirs = named(&["libmpi.so.12"], "../../etc/passwd");
    let host = named(&["libmpi.so.12.1.8"], "libmpi.so.12");
    assert_eq!(links(plan(&[host], &[], &[theirs]).unwrap()), [""; 0]);
}

#[test]
fn a_host_library_without_a_number_is_refused() {
    let error = planned(&[&["libmpi.so"]], &[], &[&["libmpi.so.12"]]).unwrap_err();
    assert!(error.contains("no name of the host's /lib/libmpi.so has a version number"), "{error}");
}

#[test]
fn the_version_of_glibc_that_is_missing_is_found() {
    let needed_versions = |version: &str| elf::SharedObject {
        needed_versions: BTreeMap::from([("libc.so.6".into(), [version.to_owned()].into())]),
        ..elf::SharedObject::default()
    };
    let has = |versions: &[&str]| {
        let defined_versions = versions.iter().map(|version| (*version).to_owned()).collect();
        BTreeMap::from([(
            "libc.so.6".into(),
            elf::SharedObject { defined_versions, ..Default::default() },
        )])
    };
    let old = has(&["GLIBC_2.2.5", "GLIBC_2.31"]);
    assert_eq!(missing(&needed_versions("GLIBC_2.31"), &old), None);
    assert_eq!(missing(&needed_versions("GLIBC_2.34"), &old), Some(("libc.so.6", "GLIBC_2.34")));
    assert_eq!(
        missing(&needed_versions("GLIBC_2.2.5"), &BTreeMap::new()).unwrap().1,
        "GLIBC_2.2.5"
    );
    assert_eq!(missing(&needed_versions("OTHER_1"), &old), None);
}
