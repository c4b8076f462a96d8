use super::super::read;
use super::super::tests::{LIBRARIES, both_formats, new_format, old_format};
use super::*;
use crate::mutate::{Random, mutate};

fn listing(soname: &str, path: &str) -> Listing {
    Listing { soname: soname.into(), path: path.into() }
}

/// A root directory with all files.
const HERE: RootLayout<'_> = RootLayout { is_merged: false, exists: &|_| true };

/// All entries of a cache: flags, name, path, version of the system, special processors.
fn all(bytes: &[u8]) -> Vec<(u32, String, String, u32, u64)> {
    let table = Table::parse(bytes).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let record = |record: Record<'_>| {
        (record.flags, text(record.soname), text(record.path), record.osversion, record.hwcap)
    };
    table.records().map(|one| record(one.unwrap())).collect()
}

fn with(bytes: &[u8], libraries: &[Listing]) -> Vec<u8> {
    add(bytes, libraries, HERE).unwrap()
}

#[test]
fn all_entries_of_either_format_are_kept() {
    let own = std::fs::read(super::super::PATH).unwrap();
    for bytes in [new_format(), old_format(), both_formats(), own] {
        let written = with(&bytes, &[]);
        assert_eq!(all(&written), all(&bytes));
        assert!(written.starts_with(NEW));
        // Once written it stays as it is.
        let new = [listing("libq.so.1", "/usr/lib/libq.so.1")];
        let written = with(&written, &new);
        assert_eq!(with(&written, &new), written);
    }
}

#[test]
fn a_new_library_stands_behind_those_of_its_name_and_kind() {
    for bytes in [new_format(), old_format(), both_formats()] {
        let libraries = [
            listing("libm.so.6", "/usr/lib/libm.so.6"),
            listing("libz.so.1", "/usr/lib/libz.so.1"),
            listing("libm.so.10", "/usr/lib/libm.so.10"),
            listing("liba.so", "/usr/lib/liba.so"),
            // Both are there already.
            listing("libz.so.1", "/usr/lib/libz.so.1"),
            listing(LIBRARIES[2].0, LIBRARIES[2].1),
        ];
        let entries = all(&with(&bytes, &libraries));
        let paths: Vec<_> = entries.iter().map(|one| one.2.as_str()).collect();
        let expected = [
            "/usr/lib/libz.so.1",
            "/usr/lib/libm.so.10",
            LIBRARIES[0].1,
            LIBRARIES[1].1,
            "/usr/lib/libm.so.6",
            LIBRARIES[2].1,
            "/usr/lib/liba.so",
        ];
        assert_eq!(paths, expected);
        assert_eq!(read(&with(&bytes, &libraries)).unwrap().len(), 6);
    }
}

#[test]
fn what_ldconfig_searches_later_stands_behind_a_new_library() {
    let old =
        [listing("libz.so.1", "/lib64/libz.so.1"), listing("libz.so.1", "/usr/lib64/libz.so.1")];
    let bytes = with(&new_format(), &old);
    let new = [listing("libz.so.1", "/usr/lib/libz.so.1")];
    for (is_merged, at) in [(false, 1), (true, 0)] {
        let bytes = add(&bytes, &new, RootLayout { is_merged, ..HERE }).unwrap();
        let paths: Vec<_> =
            read(&bytes).unwrap().iter().map(|entry| entry.path.to_owned()).collect();
        let mut expected: Vec<_> = old.iter().map(|one| one.path.clone()).collect();
        expected.insert(at, new[0].path.clone());
        assert_eq!(paths[..3], expected, "{is_merged}");
    }
}

#[test]
fn a_library_that_is_gone_does_not_stand_in_the_way() {
    let new = [listing("libm.so.6", "/usr/lib/libm.so.6")];
    let written = add(
        &new_format(),
        &new,
        RootLayout { exists: &|path| path != LIBRARIES[0].1.as_bytes(), ..HERE },
    )
    .unwrap();
    let found = read(&written).unwrap();
    let libm: Vec<_> = found.iter().filter(|one| one.soname == "libm.so.6").collect();
    assert_eq!(libm.len(), 1);
    assert_eq!(libm[0].path, "/usr/lib/libm.so.6");
    // Entries of other machines and names are kept without a look at their files.
    let written = add(&new_format(), &new, RootLayout { exists: &|_| false, ..HERE }).unwrap();
    assert_eq!(all(&written).len(), 3);
}

/// A cache with two kinds of libraries for some processors only, as glibc has them since 2.33.
fn with_extension(prefix: &[u8]) -> Vec<u8> {
    let begin = prefix.len();
    let mut bytes = new_format();
    bytes[28] = 2;
    bytes[48 + 16..48 + 24].copy_from_slice(&(1u64 << 62 | 3 << 32 | 1).to_le_bytes());
    let names = bytes.len();
    bytes.extend(b"x86-64-v2\0x86-64-v3\0");
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let at = begin + bytes.len();
    bytes[32..36].copy_from_slice(&(at as u32).to_le_bytes());
    let sections = [(0, at + 56 + 8, 12), (1, at + 56, 8), (7, at, 4)];
    bytes.extend([MAGIC, 3].iter().flat_map(|number| number.to_le_bytes()));
    for (tag, offset, size) in sections {
        bytes.extend([tag, 0, offset as u32, size].iter().flat_map(|one: &u32| one.to_le_bytes()));
    }
    bytes.extend([names, names + 10].iter().flat_map(|at| (*at as u32).to_le_bytes()));
    bytes.extend(b"ldconfig 2.x");
    [prefix, &bytes].concat()
}

#[test]
fn names_of_processors_keep_their_numbers() {
    let old = [&b"ld.so-1.7.0\0"[..], &[0; 4]].concat();
    for bytes in [with_extension(b""), with_extension(&old)] {
        let written = with(&bytes, &[listing("liba.so.1", "/usr/lib/liba.so.1")]);
        assert!(all(&written).contains(&all(&bytes)[0]), "{:?}", all(&written));
        assert_eq!(written[28], 2);
        let table = Table::parse(&written).unwrap();
        let extension = Extension::parse(&table).unwrap();
        assert_eq!(extension.generator, b"ldconfig 2.x");
        let names: Vec<_> = extension.hwcaps.iter().map(|at| table.text(*at).unwrap()).collect();
        assert_eq!(names, [b"x86-64-v2", b"x86-64-v3"]);
        let at = u32_at(&written, 32).unwrap();
        assert_eq!(at % 4, 0);
    }
    let mut bytes = with_extension(b"");
    let end = bytes.len();
    // The linker would look for a name beyond the end.
    bytes[end - 16..end - 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(add(&bytes, &[listing("liba.so.1", "/usr/lib/liba.so.1")], HERE).is_err());
}

#[test]
fn names_are_compared_as_the_linker_does() {
    for (left, right, order) in [
        ("liba.so.1", "liba.so.1", Ordering::Equal),
        ("liba.so.9", "liba.so.10", Ordering::Less),
        ("liba.so.010", "liba.so.10", Ordering::Equal),
        ("liba.so", "liba.so.1", Ordering::Less),
        ("liba.so.1", "liba.so", Ordering::Greater),
        ("liba1", "liba", Ordering::Greater),
        ("liba", "liba1", Ordering::Less),
        ("lib1", "liba", Ordering::Greater),
        ("libz", "lib1", Ordering::Less),
        ("libb.so", "liba.so", Ordering::Greater),
        ("", "1", Ordering::Less),
        // 2^32 is 0 in an `int`.
        ("a4294967296", "a0", Ordering::Equal),
    ] {
        assert_eq!(compare(left.as_bytes(), right.as_bytes()), order, "{left} {right}");
    }
}

#[test]
fn what_cannot_stand_in_a_cache_is_refused() {
    for (soname, path) in [("", "/a"), ("a\0b", "/a"), ("a", "a"), ("a", ""), ("a", "/\0")] {
        assert!(add(&new_format(), &[listing(soname, path)], HERE).is_err());
    }
    assert!(add(b"", &[], HERE).is_err());
}

#[test]
fn many_entries_with_one_string_stay_small() {
    let count = 30_000u32;
    let base = 48 + 24 * count;
    let mut bytes = NEW.to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.resize(48, 0);
    for at in 0..count {
        let offsets = [FLAGS, base + at % 4000, base];
        bytes.extend(offsets.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend([0; 12]);
    }
    bytes.extend([[b'/'; 4095].as_slice(), &[0]].concat());
    let written = with(&bytes, &[listing("liba.so.1", "/usr/lib/liba.so.1")]);
    assert!(written.len() < bytes.len() + 100, "{}", written.len());
    assert_eq!(all(&written).len(), 30_001);
}

#[test]
fn whatever_is_written_can_be_read_and_says_the_same() {
    let mut random = Random::new();
    let new = [listing("libq.so.1", "/usr/lib/libq.so.1")];
    let mut written = 0;
    for seed in [new_format(), old_format(), both_formats(), with_extension(b"")] {
        for _ in 0..10_000 {
            let dictionary = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8];
            let bytes = mutate(&seed, &dictionary, &mut random);
            let Ok(result) = add(&bytes, &new, HERE) else { continue };
            let records = |bytes: &[u8]| -> Vec<(u32, Vec<u8>, Vec<u8>, u64)> {
                let table = Table::parse(bytes).unwrap();
                let records = table.records().map(Result::unwrap);
                records.map(|l| (l.flags, l.soname.to_vec(), l.path.to_vec(), l.hwcap)).collect()
            };
            let mut after = records(&result);
            let at = after.iter().position(|record| record.1 == b"libq.so.1").unwrap();
            after.remove(at);
            assert_eq!(after, records(&bytes));
            written += 1;
        }
    }
    assert!(written > 1000, "{written}");
}
