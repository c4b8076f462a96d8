//! The order of the rooms of this crate, held by a test.

use std::path::{Path, PathBuf};

/// The rooms from bottom to top: a room may use those above it in this table, and no other. Rooms of
/// one row do not use each other.
const ROOMS: &[&[&str]] = &[
    &["error", "log", "sync"],
    &["user", "bytes"],
    &["sys"],
    &["image", "cli", "squashfs"],
    &["site", "registry"],
    &["store", "rootfs"],
    &["hook"],
    &["import", "container"],
    &["check"],
];

/// `error` escapes what strangers wrote as `log` does.
const ALLOWED: &[(&str, &str)] = &[("error", "log")];

fn floor(room: &str) -> Option<usize> {
    ROOMS.iter().position(|row| row.contains(&room))
}

/// All source files below `directory`, those of tests excepted.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            "lib.rs" | "rooms.rs" | "tests.rs" | "mutate.rs" => {}
            _ if path.is_dir() => found.extend(sources(&path)),
            _ => found.push(path),
        }
    }
    found
}

/// The rooms that `text` names as `crate::ROOM`, in code and in documentation.
fn rooms_in(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let name = |rest: &str| {
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        rest.get(..end.unwrap_or(rest.len())).unwrap().to_owned()
    };
    let mut rooms: Vec<_> = code.split("crate::").skip(1).map(name).collect();
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn no_room_uses_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut arrows = Vec::new();
    for file in sources(&src) {
        let path = file.strip_prefix(&src).unwrap().with_extension("");
        let room = path.iter().next().unwrap().to_str().unwrap().to_owned();
        let above = floor(&room).unwrap_or_else(|| panic!("{room} is not in ROOMS"));
        for used in rooms_in(&std::fs::read_to_string(&file).unwrap()) {
            let below = floor(&used).unwrap_or_else(|| panic!("{used} is not in ROOMS"));
            let allowed = ALLOWED.contains(&(&room, &used));
            if used != room && below >= above && !allowed {
                arrows.push(format!("{}: {room} uses {used}", file.display()));
            }
        }
    }
    assert!(arrows.is_empty(), "{}", arrows.join("\n"));
}

#[test]
fn every_module_of_the_crate_is_a_room() {
    let lib = include_str!("lib.rs");
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        assert!(floor(module.trim_end_matches(';')).is_some(), "{module}");
    }
}
