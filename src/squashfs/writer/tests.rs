//! Tables, read back with `backhand`, and the index of large directories, followed as the kernel
//! follows it. The kernel reads the images in `tests/image/squashfs.rs`.

use super::metadata::Place;
use super::reading::{self, FoundContent};
use super::*;
use crate::squashfs::validate::RESERVED;

const ALL: [Compression; 4] =
    [Compression::Zstd(3), Compression::Gzip(6), Compression::Lz4, Compression::None];

fn inode(kind: InodeKind) -> Inode {
    Inode { mode: 0o644, mtime: 7, links: 1, xattrs: None, kind }
}

/// An image whose root directory has these files.
fn image_of(files: Vec<(Vec<u8>, Inode)>, compression: Compression) -> Image {
    let mut inodes = vec![inode(InodeKind::Fifo)];
    let mut names = Vec::new();
    for (name, inode) in files {
        names.push((name.into(), inodes.len() as u32));
        inodes.push(inode);
    }
    inodes[0].kind = InodeKind::Directory(names);
    Image { inodes, uid: 5, gid: 6, compression, ..Image::default() }
}

/// The file as a whole.
fn written(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = vec![0; RESERVED as usize];
    let head = write(image, &mut bytes, RESERVED)?;
    bytes[..head.bytes.len()].copy_from_slice(&head.bytes);
    assert_eq!(bytes.len() as u64, head.bytes_used);
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    Ok(bytes)
}

#[test]
fn every_compressor_gives_tables_that_can_be_read() {
    for compression in ALL {
        let files = (0..3_000).map(|number| {
            let kind = match number % 2 {
                0 => InodeKind::Fifo,
                _ => InodeKind::Symlink(format!("to/{number}").into_bytes().into()),
            };
            (format!("name-{number:05}").into_bytes(), inode(kind))
        });
        let image = image_of(files.collect(), compression);
        let bytes = written(&image).unwrap();
        assert_eq!(bytes, written(&image).unwrap());
        let found = reading::read(&bytes);
        assert_eq!(found.len(), 3_001);
        let link = &found[&b"/name-00007"[..]];
        assert_eq!(link.content, FoundContent::Symlink(b"to/7".to_vec()));
        assert_eq!((link.mode, link.owner, link.mtime), (0o644, (5, 6), 7));
    }
}

#[test]
fn a_search_by_the_index_starts_near_the_name() {
    let names: Vec<_> = (0..20_000).map(|number| format!("sample-{number:06}")).collect();
    let mut chain = Chain::new(Compression::None).unwrap();
    // So that blocks of the table and of the listing do not coincide.
    chain.append(&[0; 1000]).unwrap();
    let entries = names.iter().enumerate().map(|(number, name)| {
        let inode = Place { block: number as u32 / 400 * 8194, offset: 0 };
        Ok(directory::Entry { name: name.as_bytes(), number: number as u32 + 1, inode, type_: 6 })
    });
    let listing = directory::append(&mut chain, entries).unwrap();
    let stored = chain.finish().unwrap().bytes;
    let raw: Vec<u8> = stored.chunks(8194).flat_map(|block| block[2..].to_vec()).collect();
    assert!(usize::from(listing.index.count) >= listing.size as usize / 8192 - 1);
    let mut index = &listing.index.bytes[..];
    let mut last = 0;
    while !index.is_empty() {
        let field = |at: usize| u32::from_le_bytes(index[at..at + 4].try_into().unwrap()) as usize;
        let (offset, block, length) = (field(0), field(4), field(8) + 1);
        let name = &index[12..12 + length];
        assert!(offset > last && offset - last <= 2 * 8192);
        // The header, and behind it the entry, that the index tells.
        let at = 1000 + offset;
        assert_eq!(block, at / 8192 * 8194);
        assert_eq!(&raw[at + 12 + 8..at + 12 + 8 + length], name);
        last = offset;
        index = &index[12 + length..];
    }
    assert!(listing.size as usize - last <= 2 * 8192);
}

#[test]
fn names_of_one_inode_may_be_far_apart() {
    let mut files: Vec<_> = (0..70_000)
        .map(|number| (format!("n{number:05}").into_bytes(), inode(InodeKind::Fifo)))
        .collect();
    files[3].1 = inode(InodeKind::Symlink(b"target"[..].into()));
    files[3].1.links = 2;
    let mut image = image_of(files, Compression::Zstd(1));
    let InodeKind::Directory(names) = &mut image.inodes[0].kind else { panic!() };
    names.push((b"zzz"[..].into(), 4));
    let found = reading::read(&written(&image).unwrap());
    assert_eq!(found.len(), 70_002);
    assert_eq!(found[&b"/zzz"[..]], found[&b"/n00003"[..]]);
}

#[test]
fn equal_attributes_are_stored_once() {
    let set = |value: &[u8]| -> Option<Arc<Xattrs>> {
        Some(Arc::new([(b"name"[..].into(), value.into())].into()))
    };
    let with = |name: &str, xattrs| {
        (name.as_bytes().to_vec(), Inode { xattrs, ..inode(InodeKind::File(File::default())) })
    };
    let files = vec![with("a", set(b"x")), with("b", set(b"y")), with("c", set(b"x"))];
    let image = image_of(files, Compression::default());
    let bytes = written(&image).unwrap();
    let table = u64::from_le_bytes(bytes[56..64].try_into().unwrap()) as usize;
    assert_eq!(u64::from_le_bytes(bytes[table + 8..table + 16].try_into().unwrap()), 2);
    assert_eq!(reading::read(&bytes).len(), 4);
}

#[test]
fn limits_of_the_format_are_errors() {
    let link = |length: usize| inode(InodeKind::Symlink(vec![b'x'; length].into()));
    let file = |length, runs: &[Run], fragment| {
        inode(InodeKind::File(File { length, runs: runs.into(), fragment }))
    };
    let fragment = Some(Fragment { index: 0, offset: 0 });
    let stored = Run::Stored { first: 0, count: 1 };
    let cases = [
        ("n".repeat(255), inode(InodeKind::Fifo), true),
        ("n".repeat(256), inode(InodeKind::Fifo), false),
        (String::new(), inode(InodeKind::Fifo), false),
        ("n".into(), link(4095), true),
        ("n".into(), link(4096), false),
        ("n".into(), link(0), false),
        ("n".into(), file(1, &[], None), false),
        ("n".into(), file(1, &[], fragment), true),
        ("n".into(), file(BLOCK as u64, &[Run::Hole(1)], fragment), false),
        ("n".into(), file(BLOCK as u64, &[Run::Hole(1)], None), true),
        ("n".into(), file(1, &[stored], None), false),
    ];
    for (name, inode, is_right) in cases {
        let about = format!("{} {:?}", name.len(), inode.kind);
        let image = image_of(vec![(name.into_bytes(), inode)], Compression::None);
        assert_eq!(written(&image).is_ok(), is_right, "{about}");
    }
}

#[test]
fn tables_are_compressed_where_files_are_small() {
    let files = || (0..100).map(|number| (vec![b'a' + number], inode(InodeKind::Fifo))).collect();
    let image = image_of(files(), Compression::default());
    assert_eq!(image.table_compression(100 * PLAIN_TABLES), Compression::default());
    assert_eq!(image.table_compression(101 * PLAIN_TABLES), Compression::None);
}
