use super::*;
use crate::mutate::Random;

/// The C library of the machine that runs the tests.
fn libc() -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().find_map(|line| {
        let path = line.split_whitespace().nth(5)?;
        path.contains("/libc.so.6").then(|| path.to_owned())
    });
    std::fs::read(path.expect("the tests run with glibc")).unwrap()
}

#[test]
fn the_machines_own_c_library_is_understood() {
    let bytes = libc();
    let library = read(&bytes[..]).unwrap();
    assert_eq!(library.soname.as_deref(), Some("libc.so.6"));
    assert!(library.needed.iter().any(|name| name.starts_with("ld-linux")), "{library:?}");
    assert!(library.defined_versions.contains("GLIBC_2.17"), "{library:?}");
    let loader = library.needed_versions.iter().find(|(name, _)| name.starts_with("ld-linux"));
    assert!(loader.unwrap().1.contains("GLIBC_PRIVATE"), "{library:?}");
    // The version in the file, and that of gnu_get_libc_version(3).
    let (major, minor) = glibc_version(&bytes[..], &library).unwrap();
    let output = {
        #[allow(clippy::disallowed_methods)]
        std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output().unwrap()
    };
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), format!("glibc {major}.{minor}"));
    // Without the line with the version, the defined versions count.
    let silent: Vec<u8> = {
        let at = bytes.windows(13).position(|window| window == b"GNU C Library").unwrap();
        let mut silent = bytes.clone();
        silent[at] = b'X';
        silent
    };
    let (_, offered) = glibc_version(&silent[..], &library).unwrap();
    assert!(offered <= minor && offered > 16);
}

#[test]
fn a_file_and_its_bytes_read_alike() {
    let path = std::env::current_exe().unwrap();
    let file: OwnedFd = std::fs::File::open(&path).unwrap().into();
    let library = read(&file).unwrap();
    assert_eq!(library, read(&std::fs::read(&path).unwrap()[..]).unwrap());
    assert!(library.interpreter.as_deref().is_some_and(|path| path.contains("ld-linux")));
    assert!(file.read_at(u64::MAX, 1).is_err() && file.read_at(0, u64::MAX).is_err());
}

#[test]
fn other_files_are_refused() {
    let mut small = libc()[..4096].to_vec();
    for (at, byte, why) in [
        (0, b'E', "not an ELF"),
        (4, 1, "not for this kind"),  // 32-bit
        (5, 2, "not for this kind"),  // big-endian
        (16, 1, "not for this kind"), // an object file
        (18, 3, "not for this kind"), // i386
        (54, 1, "damaged"),
        (57, 9, "damaged"),
        (39, 0xff, "file too short"),
    ] {
        let old = std::mem::replace(&mut small[at], byte);
        let error = read(&small[..]).unwrap_err().to_string();
        assert!(error.contains(why), "{at}: {error}");
        small[at] = old;
    }
    for text in [&b""[..], b"\x7fELF", b"INPUT(libmpi.so.12)"] {
        assert!(read(text).is_err());
        assert!(glibc_version(text, &SharedObject::default()).is_err());
    }
}

#[test]
fn endless_chains_of_versions_end() {
    let mut bytes = libc();
    let offset = {
        let segments = segments(&bytes[..]).unwrap();
        let dynamic = segments.iter().find(|segment| segment.kind == DYNAMIC).unwrap();
        let section = bytes.read_at(dynamic.offset, dynamic.size).unwrap();
        let entry = section.chunks(16).find(|entry| u64_at(entry, 0) == Some(tag::VERDEF)).unwrap();
        file_offset(&segments, u64_at(entry, 8).unwrap()).unwrap() as usize
    };
    // The first leads to itself but for one byte; so there are more than the file can hold.
    bytes[offset + 16..offset + 20].copy_from_slice(&1u32.to_le_bytes());
    read(&bytes[..]).unwrap_err();
}

/// A library that needs `count` others, all by the same name of 100 bytes.
fn crowded(count: u64) -> Vec<u8> {
    let dynamic = 64 + 2 * 56;
    let strings = dynamic + 16 * (count + 3);
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(strings as usize, 0);
    for (at, number) in [(16, 3), (18, MACHINE), (54, 56), (56, 2)] {
        bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    }
    let mut put = |at: u64, number: u64| {
        bytes[at as usize..at as usize + 8].copy_from_slice(&number.to_le_bytes());
    };
    put(32, 64);
    for (at, kind, offset) in [(64, LOAD, 0), (120, DYNAMIC, dynamic)] {
        put(at, kind.into());
        put(at + 8, offset);
        put(at + 16, offset);
        put(at + 32, strings - offset + if offset == 0 { 101 } else { 0 });
    }
    for number in 0..count {
        put(dynamic + 16 * number, tag::NEEDED);
    }
    for (number, (tag, value)) in [(tag::STRTAB, strings), (tag::STRSZ, 101)].iter().enumerate() {
        put(dynamic + 16 * (count + number as u64), *tag);
        put(dynamic + 16 * (count + number as u64) + 8, *value);
    }
    [&bytes, &[b'a'; 100][..], &[0]].concat()
}

#[test]
fn a_library_with_too_many_names_is_refused() {
    assert_eq!(read(&crowded(400)[..]).unwrap().needed.len(), 400);
    let error = read(&crowded(4000)[..]).unwrap_err().to_string();
    assert_eq!(error, "too many names");
}

#[test]
fn mutated_input_never_makes_the_reader_panic() {
    let mut random = Random::new();
    let mut next = |end| random.below(end);
    let original = libc();
    // The reader reads headers, dynamic section and versions.
    let segments = segments(&original[..]).unwrap();
    let dynamic = *segments.iter().find(|segment| segment.kind == DYNAMIC).unwrap();
    let section = original.read_at(dynamic.offset, dynamic.size).unwrap();
    let mut targets = vec![(0, 64 + 56 * segments.len()), (dynamic.offset as usize, 600)];
    for entry in section.chunks(16) {
        if let Some(tag::VERDEF | tag::VERNEED) = u64_at(entry, 0) {
            let at = file_offset(&segments, u64_at(entry, 8).unwrap()).unwrap();
            targets.push((at as usize, 200));
        }
    }
    let mut bytes = original.clone();
    for _ in 0..20_000 {
        let mut changed = vec![];
        for _ in 0..=next(3) {
            let (begin, length) = targets[next(targets.len())];
            let at = begin + next(length);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
            changed.push(at);
        }
        read(&bytes[..]).ok();
        for at in changed {
            bytes[at] = original[at];
        }
    }
    for _ in 0..200 {
        read(&original[..next(original.len())]).ok();
    }
}
