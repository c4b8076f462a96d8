//! `docs/security.md` and the tests that it names.

use crate::support::SOURCE;
use std::fs;
use std::path::Path;

/// Adds the text of all Rust files below `directory` to `text`.
fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.extension() {
            _ if entry.is_dir() => sources(&entry, text),
            Some(extension) if extension == "rs" => {
                *text += &fs::read_to_string(entry).unwrap();
            }
            _ => {}
        }
    }
}

/// A promise whose test was renamed or removed is one that nobody keeps.
#[test]
fn every_test_that_the_security_model_names_exists() {
    let mut text = String::new();
    for directory in ["src", "applets", "tests"] {
        sources(&Path::new(SOURCE).join(directory), &mut text);
    }
    let document = fs::read_to_string(Path::new(SOURCE).join("docs/security.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names: Vec<_> = last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(text.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}
