//! A small image in memory, valid and with single changes. `tests/attacks/squashfs.rs` shows that
//! images of mksquashfs and of ours are accepted.

use super::*;
use crate::mutate::{Random, mutate};

/// Appends a metadata block with `content`, marked as compressed. Returns its position.
fn block(image: &mut Vec<u8>, content: &[u8]) -> u64 {
    let position = image.len() as u64;
    image.extend((content.len() as u16).to_le_bytes());
    image.extend(content);
    position
}

/// Appends a table of one block, and its index. Returns the position of the index.
fn table(image: &mut Vec<u8>) -> u64 {
    let block = block(image, &[7; 40]);
    let index = image.len() as u64;
    image.extend(block.to_le_bytes());
    index
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An image with one block in every table and 70 KiB of data.
fn image() -> Vec<u8> {
    let mut image = vec![0; 70 << 10];
    let inodes = block(&mut image, &[1; 100]);
    let directories = block(&mut image, &[2; 30]);
    let fragments = table(&mut image);
    let export = table(&mut image);
    let ids = table(&mut image);
    let attributes = block(&mut image, &[3; 20]);
    let attribute_ids = block(&mut image, &[4; 20]);
    let xattrs = image.len() as u64;
    image.extend(attributes.to_le_bytes());
    image.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    image.extend(attribute_ids.to_le_bytes());
    let used = image.len() as u64;
    image.resize(image.len().next_multiple_of(4096), 0);
    put(&mut image, 0, b"hsqs\x05\0\0\0");
    put(&mut image, 12, &[0, 0, 2, 0, 1, 0, 0, 0, 6, 0, 17, 0, 0xc0, 0, 1, 0, 4, 0, 0, 0]);
    put(&mut image, 32, &32_u64.to_le_bytes());
    let positions = [used, ids, xattrs, inodes, directories, fragments, export];
    for (number, position) in positions.iter().enumerate() {
        put(&mut image, 40 + 8 * number, &position.to_le_bytes());
    }
    image
}

fn check(image: &[u8]) -> Result<Compressor> {
    let read = |buffer: &mut [u8], at: u64| {
        let at = usize::try_from(at).ok().and_then(|at| image.get(at..at + buffer.len()));
        buffer.copy_from_slice(at.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    super::check(&read, image.len() as u64)
}

#[test]
fn a_valid_image_passes() {
    assert_eq!(check(&image()).unwrap(), Compressor::Zstd);
    let mut longer = image();
    longer.extend([0; 4096]);
    check(&longer).unwrap();
}

#[test]
fn each_field_of_the_superblock_is_checked() {
    let none = u64::MAX.to_le_bytes();
    let table: &[(&str, usize, &[u8], &str)] = &[
        ("magic", 0, b"sqsh", "magic number"),
        ("no inodes", 4, &[0; 4], "0 entries"),
        ("inodes", 4, &[0xff; 4], "4294967295 entries"),
        ("inodes of another table", 4, &[0, 4, 0, 0], "1024 inodes in 1 blocks"),
        ("block size", 12, &[0, 0, 3, 0], "block size 196608"),
        ("block size 2 MiB", 12, &[0, 0, 32, 0, 1, 0, 0, 0, 6, 0, 21, 0], "block size"),
        ("block size 2 KiB", 12, &[0, 8, 0, 0, 1, 0, 0, 0, 6, 0, 11, 0], "block size"),
        ("block logarithm", 22, &[0xff, 0xff], "block size"),
        ("fragments", 16, &[0xff; 4], "4294967295 entries"),
        ("fragments of two blocks", 16, &[1, 2, 0, 0], "fragment table"),
        ("compressor 0", 20, &[0, 0], "unknown compressor"),
        ("lzma", 20, &[2, 0], "unknown compressor"),
        ("flags", 24, &[0, 0x10], "unknown flags"),
        ("options that are not there", 24, &[0, 4], "zstd options"),
        ("no ids", 26, &[0, 0], "0 entries"),
        ("ids", 26, &[0xff, 0xff], "id table"),
        ("version 3", 28, &[3, 0], "version 3.0"),
        ("version 4.1", 30, &[1, 0], "version 4.1"),
        ("offset of the root inode", 32, &[0xff, 0xff], "root inode"),
        ("block of the root inode", 34, &[2], "root inode"),
        ("block of the root inode", 32, &none, "root inode"),
        ("bytes used", 40, &[0, 0, 0, 0, 0, 0, 1, 0], "bytes are in use"),
        ("negative size", 40, &none, "bytes are in use"),
        ("no id table", 48, &none, "id table"),
        ("attributes", 56, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "xattr table"),
        ("attributes", 56, &[0; 8], "xattr table"),
        ("inode table", 64, &[0; 8], "inode table"),
        ("inode table", 64, &none, "inode table"),
        ("directory table", 72, &[0; 8], "directory table"),
        ("directory table", 72, &none, "directory table"),
        ("fragment table", 80, &[0; 8], "fragment table"),
        ("export table", 88, &[0; 8], "export table"),
        // An index that would start before the file: Linux allocates 32 MiB for it.
        ("index of 32 MiB", 4, &[0xff; 4], "export table"),
    ];
    for (name, at, bytes, expected) in table {
        let mut image = image();
        put(&mut image, *at, bytes);
        let error = check(&image).expect_err(name).to_string();
        assert!(
            error.starts_with("invalid squashfs ") && error.contains(expected),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_table_at_another_position_is_refused() {
    for field in [48, 56, 64, 72, 80, 88] {
        for distance in [-8_i64, -3, -2, -1, 1, 2, 3, 8, 42] {
            let mut image = image();
            let position = u64_of(&image, field).wrapping_add_signed(distance);
            put(&mut image, field, &position.to_le_bytes());
            assert!(check(&image).is_err(), "{field} {distance}");
        }
    }
    // Without a table, the one before it does not end where the next begins.
    for (field, may_be_absent) in [(88, false), (56, false), (80, false)] {
        let mut image = image();
        put(&mut image, field, &u64::MAX.to_le_bytes());
        assert_eq!(check(&image).is_ok(), may_be_absent, "{field}");
    }
}

fn u64_of(image: &[u8], at: usize) -> u64 {
    crate::bytes::u64_at(image, at).unwrap()
}

#[test]
fn pointers_and_headers_are_checked() {
    let good = image();
    for field in [48, 80, 88] {
        let index = u64_of(&good, field) as usize;
        for change in [1, 2, 0x40, 0x80] {
            let mut image = good.clone();
            image[index] ^= change;
            check(&image).expect_err("pointer");
        }
    }
    for field in [64, 72] {
        let header = u64_of(&good, field) as usize;
        for bytes in [[0, 0], [0, 0x80], [1, 0x20], [0xff, 0xff], [5, 0], [200, 0]] {
            let mut image = good.clone();
            put(&mut image, header, &bytes);
            check(&image).expect_err("header");
        }
    }
    let xattrs = u64_of(&good, 56) as usize;
    for (at, bytes) in [(0, &[0_u8; 8][..]), (0, &[0xff; 8]), (8, &[0; 4]), (8, &[0xff; 4])] {
        let mut image = good.clone();
        put(&mut image, xattrs + at, bytes);
        check(&image).expect_err("attributes");
    }
}

#[test]
fn options_must_be_those_of_the_compressor() {
    // Compressor, block of options, and whether the image is valid.
    let cases: &[(u8, &[u8], bool)] = &[
        (6, &[4, 0x80, 3, 0, 0, 0], true),
        (6, &[4, 0, 3, 0, 0, 0], false),
        (6, &[8, 0x80, 3, 0, 0, 0], false),
        (1, &[8, 0x80, 9, 0, 0, 0, 15, 0, 1, 0], true),
        (4, &[8, 0x80, 0, 0, 2, 0, 0, 0, 0, 0], true),
        // Dictionaries of 8 KiB and 96 KiB; of none, 5 bytes, 6 KiB, 40 KiB, 256 KiB and 2 GiB.
        (4, &[8, 0x80, 0, 0x20, 0, 0, 0, 0, 0, 0], true),
        (4, &[8, 0x80, 0, 0x80, 1, 0, 0, 0, 0, 0], true),
        (4, &[8, 0x80, 0, 0, 0, 0, 0, 0, 0, 0], false),
        (4, &[8, 0x80, 5, 0, 0, 0, 0, 0, 0, 0], false),
        (4, &[8, 0x80, 0, 0x18, 0, 0, 0, 0, 0, 0], false),
        (4, &[8, 0x80, 0, 0xa0, 0, 0, 0, 0, 0, 0], false),
        (4, &[8, 0x80, 0, 0, 4, 0, 0, 0, 0, 0], false),
        (4, &[8, 0x80, 0, 0, 0, 0x80, 0, 0, 0, 0], false),
        (5, &[0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0], false),
    ];
    for (compressor, options, right) in cases {
        let mut image = image();
        put(&mut image, 20, &[*compressor]);
        put(&mut image, 25, &[4]);
        put(&mut image, 96, options);
        assert_eq!(check(&image).is_ok(), *right, "{compressor} {options:?}");
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let good = image();
    let used = u64_of(&good, 40) as usize;
    for length in (0..100).chain(used - 100..used).chain([used + 1, used.next_multiple_of(512) - 1])
    {
        check(&good[..length]).expect_err("short");
    }
    check(&good[..used.next_multiple_of(512)]).unwrap();
}

#[test]
fn a_table_of_many_blocks_is_followed_through_all_windows() {
    let mut image = vec![0; 96];
    let inodes = image.len() as u64;
    for _ in 0..500 {
        block(&mut image, &[1; 400]);
    }
    let directories = image.len() as u64;
    let id_block = block(&mut image, &[7; 4]);
    let ids = image.len() as u64;
    image.extend(id_block.to_le_bytes());
    let used = image.len() as u64;
    image.resize(image.len().next_multiple_of(4096), 0);
    put(&mut image, 0, b"hsqs\x05\0\0\0");
    put(&mut image, 12, &[0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 17, 0, 0, 0, 1, 0, 4, 0, 0, 0]);
    put(&mut image, 32, &((402_u64 * 499) << 16).to_le_bytes());
    let positions = [used, ids, u64::MAX, inodes, directories, u64::MAX, u64::MAX];
    for (number, position) in positions.iter().enumerate() {
        put(&mut image, 40 + 8 * number, &position.to_le_bytes());
    }
    check(&image).unwrap();
    put(&mut image, 32, &((402_u64 * 500) << 16).to_le_bytes());
    check(&image).expect_err("root inode behind the table");
}

#[test]
fn signatures_of_others_are_refused() {
    let cases: &[(usize, &[u8])] = &[
        (512, b"LABELONE\x01\0\0\0\0\0\0\0"),
        (1536, b"LABELONE\x03\0\0\0\0\0\0\0"),
        (1080, b"\x53\xef"),
        (4086, b"SWAPSPACE2"),
        (65526, b"SWAPSPACE2"),
        (0x4000, b"SKUL\xba\xbe\0\x02"),
        (0x1000, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
        (0x10040, b"_BHRfS_M"),
        (0x8001, b"CD001"),
        (512, b"EFI PART"),
        (1024, b"H+\0\x04"),
        (0x3f8, b"\x20\x7e\x18\xfd"),
        (0x4bf8, b"\xfd\x18\x7e\x20"),
        (0x800, b"\x2b\x55\x44"),
        (0x800, b"\x44\x55\x2b"),
        (0x55c, b"\x19\x01\x54\x19"),
        (0x1055c, b"\x95\x21\x61\0"),
        (0x10004, b"\x8b\x42\x3c\x10"),
    ];
    for (at, bytes) in cases {
        let mut image = image();
        put(&mut image, *at, bytes);
        let error = check(&image).expect_err("signature").to_string();
        assert!(error.starts_with("the image has the signature of "), "{error}");
        // At another position it means nothing.
        let mut image = self::image();
        put(&mut image, *at + 1, bytes);
        check(&image).unwrap();
    }
    // Positions are also counted from the end of the file.
    let mut image = image();
    let end = image.len();
    put(&mut image, end - 8192, b"\xfc\x4e\x2b\xa9\x01\0\0\0");
    check(&image).unwrap_err();
    image.extend([0; 4096]);
    check(&image).unwrap();
}

#[test]
fn a_boot_sector_needs_a_table_of_partitions() {
    let with = |entry: &[u8]| {
        let mut image = image();
        put(&mut image, 446, entry);
        put(&mut image, 510, b"\x55\xaa");
        check(&image)
    };
    with(b"\x80\0\0\0\x83").unwrap_err();
    with(b"\0\0\0\0\x8e").unwrap_err();
    // No entry has a type; an entry has an invalid status.
    with(b"\0\0\0\0\0").unwrap();
    with(b"\x21\0\0\0\x83").unwrap();
}

#[test]
fn mutated_input_never_makes_the_validator_panic() {
    let mut random = Random::new();
    let seed = image();
    let (head, tables) = (&seed[..96], &seed[70 << 10..]);
    for _ in 0..20_000 {
        let dictionary = [0, 1, 2, 8, 0x1f, 0x20, 0x7f, 0x80, 0xff];
        let mut image = seed.clone();
        let head = mutate(head, &dictionary, &mut random);
        let length = head.len().min(96);
        put(&mut image, 0, &head[..length]);
        if random.below(2) == 0 {
            image.truncate(70 << 10);
            image.extend(mutate(tables, &dictionary, &mut random));
        }
        drop(check(&image));
    }
}
