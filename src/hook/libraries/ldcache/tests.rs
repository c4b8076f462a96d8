use super::*;
use crate::mutate::{Random, mutate};

pub(super) const LIBRARIES: [(&str, &str, u32); 3] = [
    ("libm.so.6", "/lib/x86_64-linux-gnu/libm.so.6", FLAGS),
    ("libm.so.6", "/lib32/libm.so.6", 0x0803),
    ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6", FLAGS),
];

/// Strings from `base` on, and for each library its flags and the offsets of its strings.
fn strings(base: usize) -> (Vec<u8>, Vec<[u32; 3]>) {
    let mut text = vec![];
    let mut add = |word: &str| {
        let at = base + text.len();
        text.extend(word.bytes().chain([0]));
        at as u32
    };
    let entries = LIBRARIES.map(|(soname, path, flags)| [flags, add(soname), add(path)]);
    (text, entries.to_vec())
}

pub(super) fn new_format() -> Vec<u8> {
    let (text, entries) = strings(48 + 24 * LIBRARIES.len());
    let mut bytes = NEW.to_vec();
    bytes.extend((LIBRARIES.len() as u32).to_le_bytes());
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.resize(48, 0);
    for entry in entries {
        bytes.extend(entry.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend([0; 12]);
    }
    bytes.extend(text);
    bytes
}

pub(super) fn old_format() -> Vec<u8> {
    let (text, entries) = strings(0);
    let mut bytes = OLD.to_vec();
    bytes.extend((LIBRARIES.len() as u32).to_le_bytes());
    bytes.extend(entries.iter().flatten().flat_map(|number| number.to_le_bytes()));
    bytes.extend(text);
    bytes
}

/// Both formats in one file, the default of ldconfig before glibc 2.32.
pub(super) fn both_formats() -> Vec<u8> {
    // The strings of the old format are those of the new one, which follows the entries.
    let mut bytes = OLD.to_vec();
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(new_format());
    bytes
}

fn entry(soname: &'static str, path: &'static str) -> CacheEntry<'static> {
    CacheEntry { soname, path }
}

#[test]
fn both_formats_tell_of_the_same_libraries() {
    let expected: Vec<_> = [0, 2].map(|at| entry(LIBRARIES[at].0, LIBRARIES[at].1)).into();
    for bytes in [new_format(), old_format(), both_formats()] {
        assert_eq!(read(&bytes).unwrap(), expected);
    }
}

#[test]
fn the_machines_own_cache_is_read_as_ldconfig_reads_it() {
    let bytes = std::fs::read(PATH).unwrap();
    let ours = read(&bytes).unwrap();
    #[allow(clippy::disallowed_methods)]
    let output = std::process::Command::new("/sbin/ldconfig").arg("-p").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<_> = text
        .lines()
        .filter(|line| line.contains("(libc6,x86-64") || line.contains("(libc6,AArch64"))
        .map(|line| {
            let (soname, rest) = line.trim().split_once(' ').unwrap();
            let path = rest.split_once("=> ").unwrap().1;
            CacheEntry { soname, path }
        })
        .collect();
    assert!(!ours.is_empty());
    assert_eq!(ours, theirs);
}

#[test]
fn what_is_damaged_is_refused() {
    for mut bytes in [new_format(), old_format(), both_formats()] {
        let whole = bytes.clone();
        bytes.pop(); // the end of the last name
        assert!(read(&bytes).is_err());
        for at in 0..bytes.len() - 20 {
            read(&whole[..at]).ok();
        }
    }
    for at in [20, 48 + 4, 48 + 8] {
        let mut bytes = new_format();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&bytes).is_err(), "{at}");
    }
    assert!(read(b"").is_err() && read(NEW).is_err() && read(OLD).is_err());
    let long = [&new_format()[..], &[b'a'; 2 * MAX_NAME]].concat();
    let mut bytes = long.clone();
    bytes[48 + 8..48 + 12].copy_from_slice(&(new_format().len() as u32).to_le_bytes());
    assert!(read(&bytes).is_err());
}

#[test]
fn what_lists_too_many_or_is_of_another_byte_order_is_refused() {
    for (mut bytes, at) in [(new_format(), 20), (old_format(), 12)] {
        bytes[at..at + 4].copy_from_slice(&(MAX_ENTRIES as u32 + 1).to_le_bytes());
        let error = read(&bytes).unwrap_err().to_string();
        assert_eq!(error, "more than 32768 libraries");
    }
    let with = |flags: u8| {
        let mut bytes = new_format();
        bytes[28] = flags;
        read(&bytes).is_ok()
    };
    assert_eq!([0, 1, 2, 3, 4, 6].map(with), [true, false, true, false, false, true]);
}

#[test]
fn mutated_input_never_makes_the_reader_panic() {
    let mut random = Random::new();
    for seed in [new_format(), old_format(), both_formats()] {
        for _ in 0..20_000 {
            let dictionary = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8];
            read(&mutate(&seed, &dictionary, &mut random)).ok();
        }
    }
}
