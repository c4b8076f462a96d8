//! Tars made by the `tar` crate, by hand, and by chance.

use std::io::Write;

use tar::{Builder, Header};

use super::*;

fn entries(bytes: &[u8]) -> Result<Vec<TarEntry>> {
    let mut entries = TarEntries::from_blob(&Blob::from_bytes(bytes));
    let mut all = Vec::new();
    while let Some(entry) = entries.next()? {
        all.push(entry);
    }
    Ok(all)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_mtime(1_500_000_000);
    header.set_cksum();
    header
}

fn named(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = header(kind, size);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    header
}

fn append(tar: &mut Vec<u8>, header: &Header, data: &[u8]) {
    tar.write_all(header.as_bytes()).unwrap();
    tar.write_all(data).unwrap();
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        writeln!(bytes, "{length} {key}={value}").unwrap();
    }
    bytes
}

fn extended(records: &[(&str, &str)], header: &Header, data: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    let records = pax(records);
    append(&mut tar, &named(b"pax", EntryType::XHeader, records.len() as u64), &records);
    append(&mut tar, header, data);
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// One of each kind, with a long name and a long link.
fn sample() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let long = "l".repeat(200);
    tar.append_data(&mut header(EntryType::Directory, 0), "d/", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 5), &long, &b"hello"[..]).unwrap();
    tar.append_link(&mut header(EntryType::Symlink, 0), "s", &long).unwrap();
    tar.append_link(&mut header(EntryType::Link, 0), "h", &long).unwrap();
    tar.append_data(&mut header(EntryType::Fifo, 0), "f", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Char, 0), "c", &b""[..]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 513), "e", &[7; 513][..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn all_kinds_of_entries_are_read() {
    let long = vec![b'l'; 200];
    let found = entries(&sample()).unwrap();
    let kinds: Vec<_> = found.iter().map(|entry| &entry.kind).collect();
    let expected = [
        &TarEntryKind::Directory,
        &TarEntryKind::File(FileData::Plain { offset: 2048, length: 5 }),
        &TarEntryKind::Symlink(long.clone()),
        &TarEntryKind::Link(long.clone()),
        &TarEntryKind::Fifo,
        &TarEntryKind::Device,
        &TarEntryKind::File(FileData::Plain { offset: 7168, length: 513 }),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(found[1].path, long);
    assert_eq!((found[0].mode, found[0].mtime), (0o4755, 1_500_000_000));
}

#[test]
fn a_tar_cut_anywhere_is_an_error_or_a_whole_beginning() {
    let tar = sample();
    let all = entries(&tar).unwrap();
    for length in 0..tar.len() {
        match entries(&tar[..length]) {
            Err(error) => {
                let expected =
                    if length < 512 { "not a tar archive" } else { "truncated tar archive" };
                assert_eq!(error.to_string(), expected, "at {length}");
            }
            Ok(some) if some == all => {}
            Ok(some) => assert!(length % 512 == 0 && all.starts_with(&some), "at {length}"),
        }
    }
}

#[test]
fn damaged_tars_neither_panic_nor_hang() {
    let sparse = sparse_1_0();
    for tar in [sample(), sparse] {
        let mut state = 1u64;
        for _ in 0..4_000 {
            let mut damaged = tar.clone();
            for _ in 0..=state % 3 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (state >> 33) as usize % damaged.len();
                damaged[at] = (state >> 20) as u8;
                // A right checksum lets the damage through to what reads the fields.
                let block = at / 512 * 512;
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&damaged[block..block + 512]);
                header.set_cksum();
                damaged[block..block + 512].copy_from_slice(header.as_bytes());
            }
            let mut cursor = TarEntries::new(Bytes(&damaged));
            while let Ok(Some(_)) = cursor.next() {}
        }
    }
}

/// A tar in memory: the file system would make the test above slow.
struct Bytes<'a>(&'a [u8]);

impl TarInput for Bytes<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        bytes::fill(&mut self.0, buffer)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let count = usize::try_from(count).map_err(|_| truncated())?;
        self.0 = self.0.get(count..).ok_or_else(truncated)?;
        Ok(())
    }
}

#[test]
fn what_follows_the_end_must_be_zeros() {
    let mut tar = sample();
    tar.resize(tar.len() + 9000, 0);
    assert_eq!(entries(&tar).unwrap().len(), 7);
    *tar.last_mut().unwrap() = 1;
    assert!(entries(&tar).unwrap_err().to_string().contains("after the end-of-archive marker"));
}

#[test]
fn a_bad_checksum_is_reported_with_its_position() {
    let mut tar = sample();
    tar[512] ^= 1;
    let error = entries(&tar).unwrap_err().to_string();
    assert_eq!(error, "bad checksum in the tar header at byte 512");
}

#[test]
fn pax_records_override_the_header() {
    let huge = (9u64 << 30).to_string();
    let records = [
        ("path", "a\nb=\u{fc}"),
        ("size", "3"),
        ("mtime", "1700000000.999999999"),
        ("comment", ""),
    ];
    let tar = extended(&records, &named(b"x", EntryType::Regular, 0), b"abc");
    let found = entries(&tar).unwrap();
    assert_eq!(found[0].path, "a\nb=\u{fc}".as_bytes());
    assert_eq!(found[0].mtime, 1_700_000_000);
    assert_eq!(found[0].kind, TarEntryKind::File(FileData::Plain { offset: 1536, length: 3 }));
    let tar = extended(&[("linkpath", &huge)], &named(b"x", EntryType::Symlink, 0), b"");
    assert_eq!(entries(&tar).unwrap()[0].kind, TarEntryKind::Symlink(huge.clone().into_bytes()));
    let tar = extended(&[("mtime", "-5.5")], &named(b"x", EntryType::Directory, 0), b"");
    assert_eq!(entries(&tar).unwrap()[0].mtime, -5);
    // Larger than the archive: found when the next header is read.
    let tar = extended(&[("size", &huge)], &named(b"x", EntryType::Regular, 0), b"abc");
    assert_eq!(entries(&tar).unwrap_err().to_string(), "truncated tar archive");
    for bad in ["5 a=b\n", "6 ab\n\n", "99 a=b\n", "x a=b\n", "7 size=\n", "a=b"] {
        let mut tar = Vec::new();
        append(&mut tar, &named(b"pax", EntryType::XHeader, bad.len() as u64), bad.as_bytes());
        append(&mut tar, &named(b"x", EntryType::Directory, 0), b"");
        assert!(entries(&tar).is_err(), "{bad}");
    }
}

#[test]
fn extended_attributes_of_users_are_kept() {
    let records = [
        ("SCHILY.xattr.user.note", "old"),
        ("SCHILY.xattr.user.note", "a=b"),
        ("SCHILY.xattr.user.empty", ""),
        ("SCHILY.xattr.security.capability", "x"),
        ("SCHILY.xattr.trusted.overlay.opaque", "y"),
        ("SCHILY.xattr.user.overlay.opaque", "y"),
    ];
    let tar = extended(&records, &named(b"x", EntryType::Regular, 0), b"");
    let found = entries(&tar).unwrap().remove(0).xattrs.unwrap();
    let expected = [(b"empty"[..].into(), b""[..].into()), (b"note"[..].into(), b"a=b"[..].into())];
    assert_eq!(*found, Xattrs::from(expected));

    let long = "v".repeat((64 << 10) + 1);
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    for (key, value) in [("SCHILY.xattr.user.x", &*long), (&name, ""), ("SCHILY.xattr.user.", "")] {
        let tar = extended(&[(key, value)], &named(b"x", EntryType::Regular, 0), b"");
        let error = entries(&tar).unwrap_err().to_string();
        assert!(error.starts_with("extended attribute user."), "{error}");
    }
}

#[test]
fn numbers_are_octal_or_binary() {
    let cases: [(&[u8], Option<u64>); 9] = [
        (b"0000644\0", Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"77777777777\0", Some(0o77_777_777_777)),
        (b"777777777777", Some(0o777_777_777_777)),
        (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(8 << 30)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(u64::MAX)),
        (b"\x80\x01\0\0\0\0\0\x02\0\0\0\0", None),
        (b"12x\0", None),
    ];
    for (field, expected) in cases {
        assert_eq!(number(field), expected, "{}", field.escape_ascii());
    }
}

fn extents(tar: &[u8]) -> (u64, Vec<(u64, u64, u64)>) {
    match &entries(tar).unwrap()[0].kind {
        TarEntryKind::File(FileData::Sparse(sparse)) => {
            let pieces = sparse.extents.iter().map(|e| (e.at, e.length, e.offset)).collect();
            (sparse.length, pieces)
        }
        other => panic!("{other:?}"),
    }
}

fn sparse_1_0() -> Vec<u8> {
    let mut data = b"2\n0\n4\n1048576\n3\n".to_vec();
    data.resize(512, 0);
    data.extend(b"head");
    data.extend(b"end");
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.realsize", "2000000"),
    ];
    extended(&records, &named(b"GNUSparseFile.1/real", EntryType::Regular, 519), &data)
}

#[test]
fn all_forms_of_sparse_files_are_understood() {
    let tar = sparse_1_0();
    assert_eq!(entries(&tar).unwrap()[0].path, b"real");
    assert_eq!(extents(&tar), (2_000_000, vec![(0, 4, 2048), (1_048_576, 3, 2052)]));

    let records = [
        ("GNU.sparse.size", "100"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "10"),
        ("GNU.sparse.numbytes", "2"),
        ("GNU.sparse.offset", "100"),
        ("GNU.sparse.numbytes", "0"),
    ];
    let tar = extended(&records, &named(b"x", EntryType::Regular, 2), b"ab");
    assert_eq!(extents(&tar), (100, vec![(10, 2, 1536)]));

    let records = [("GNU.sparse.size", "100"), ("GNU.sparse.map", "10,2,50,1")];
    let tar = extended(&records, &named(b"x", EntryType::Regular, 3), b"abc");
    assert_eq!(extents(&tar), (100, vec![(10, 2, 1536), (50, 1, 1538)]));

    let mut old = named(b"x", EntryType::GNUSparse, 2);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(512);
    gnu.sparse[0].set_length(1);
    gnu.set_is_extended(true);
    gnu.set_real_size(5000);
    old.set_cksum();
    let mut more = tar::GnuExtSparseHeader::new();
    more.sparse_mut()[0].set_offset(4096);
    more.sparse_mut()[0].set_length(1);
    let mut tar = old.as_bytes().to_vec();
    tar.extend(more.as_bytes());
    tar.extend([b'a', b'b']);
    tar.resize(4096, 0);
    assert_eq!(extents(&tar), (5000, vec![(512, 1, 1024), (4096, 1, 1025)]));
}

#[test]
fn maps_that_lie_are_refused() {
    for map in
        ["10,2,5,1", "10,2,11,1", "99,3", "0,1", "0,4", "0,3,7", "18446744073709551615,3", ""]
    {
        let records = [("GNU.sparse.size", "100"), ("GNU.sparse.map", map)];
        let tar = extended(&records, &named(b"x", EntryType::Regular, 3), b"abc");
        assert!(entries(&tar).is_err(), "{map}");
    }
}

#[test]
fn unknown_types_and_endless_headers_are_refused() {
    let mut tar = named(b"x", EntryType::new(b'V'), 0).as_bytes().to_vec();
    tar.resize(2048, 0);
    assert_eq!(entries(&tar).unwrap_err().to_string(), "x: unknown tar entry type 'V'");
    let tar = named(b"x", EntryType::GNULongName, 1 << 30).as_bytes().to_vec();
    assert!(entries(&tar).unwrap_err().to_string().contains("1073741824 bytes"));
    let tar = named(b"x", EntryType::Regular, 8 << 30).as_bytes().to_vec();
    assert!(entries(&tar).is_err());
    let mut tar = Vec::new();
    append(&mut tar, &named(b"x", EntryType::GNULongName, 3), b"abc");
    tar.resize(4096, 0);
    assert_eq!(entries(&tar).unwrap_err().to_string(), "truncated tar archive");
}
