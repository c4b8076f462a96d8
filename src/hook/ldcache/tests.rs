use super::*;
use crate::nonsense::{Numbers, spoil};

const LIBRARIES: [(&str, &str, u32); 3] = [
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

fn new_format() -> Vec<u8> {
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

fn old_format() -> Vec<u8> {
    let (text, entries) = strings(0);
    let mut bytes = OLD.to_vec();
    bytes.extend((LIBRARIES.len() as u32).to_le_bytes());
    bytes.extend(entries.iter().flatten().flat_map(|number| number.to_le_bytes()));
    bytes.extend(text);
    bytes
}

/// As ldconfig wrote by default before 2.32.
fn both_formats() -> Vec<u8> {
    // Its own strings are those of the new one, which begins right behind the entries.
    let mut bytes = OLD.to_vec();
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(new_format());
    bytes
}

fn entry(soname: &str, path: &str, special: bool) -> Entry {
    Entry { soname: soname.into(), path: path.into(), special }
}

#[test]
fn only_directories_are_named_to_ldconfig() {
    for (path, special, folder) in [
        ("/opt/mpich/lib/libmpi.so.12", false, Some("/opt/mpich/lib")),
        ("/usr/lib/glibc-hwcaps/x86-64-v3/libm.so.6", true, None),
        ("-r/etc/libc.so.6", false, None),
        ("libc.so.6", false, None),
        ("/libc.so.6", false, None),
        ("/opt/a=libc5/libc.so.6", false, None),
    ] {
        assert_eq!(entry("libm.so.6", path, special).folder(), folder, "{path}");
    }
    let mut bytes = new_format();
    bytes[48 + 22] = 4;
    assert!(read(&bytes).unwrap()[0].special && !read(&bytes).unwrap()[1].special);
}

#[test]
fn both_formats_tell_of_the_same_libraries() {
    let expected: Vec<_> = [0, 2].map(|at| entry(LIBRARIES[at].0, LIBRARIES[at].1, false)).into();
    for bytes in [new_format(), old_format(), both_formats()] {
        assert_eq!(read(&bytes).unwrap(), expected);
    }
}

#[test]
fn the_machines_own_cache_is_read_as_ldconfig_reads_it() {
    let ours = read(&std::fs::read("/etc/ld.so.cache").unwrap()).unwrap();
    #[allow(clippy::disallowed_methods)]
    let output = std::process::Command::new("/sbin/ldconfig").arg("-p").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<_> = text
        .lines()
        .filter(|line| line.contains("(libc6,x86-64") || line.contains("(libc6,AArch64"))
        .map(|line| {
            let (soname, rest) = line.trim().split_once(' ').unwrap();
            let path = rest.split_once("=> ").unwrap().1;
            entry(soname, path, line.contains("hwcap"))
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
fn no_nonsense_makes_the_reader_panic() {
    let mut numbers = Numbers::new();
    for seed in [new_format(), old_format(), both_formats()] {
        for _ in 0..20_000 {
            let spice = [0, 1, 0x7f, 0x80, 0xff, numbers.below(256) as u8];
            read(&spoil(&seed, &spice, &mut numbers)).ok();
        }
    }
}
