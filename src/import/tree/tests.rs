//! Merging rules: layers in, a listing out.
//!
//! A layer is lines such as `d a/b 700`, `f a/b 3` (a file of 3 bytes), `s a/b -> c`, `h a/b => c`;
//! whiteouts are files with their real names. The listing shows mode, and for files layer:length.

use tar::{Builder, EntryType, Header};

use super::*;
use crate::import::blob::Blob;
use crate::import::layer;
use crate::import::tar::TarEntries;

fn tar_of(lines: &[&str]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let mut header = Header::new_gnu();
        header.set_mtime(100);
        header.set_mode(0o644);
        header.set_size(0);
        let path = words[1].as_bytes();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        let kind = match words[0] {
            "d" => EntryType::Directory,
            "f" => EntryType::Regular,
            "s" => EntryType::Symlink,
            "h" => EntryType::Link,
            "c" => EntryType::Char,
            "p" => EntryType::Fifo,
            other => panic!("{other}"),
        };
        header.set_entry_type(kind);
        match words[2..] {
            ["->" | "=>", target] => header.set_link_name_literal(target).unwrap(),
            [number] if words[0] == "d" => {
                header.set_mode(u32::from_str_radix(number, 8).unwrap());
            }
            [number] => header.set_size(number.parse().unwrap()),
            _ => header.set_mode(0o755),
        }
        header.set_cksum();
        let size = usize::try_from(header.size().unwrap()).unwrap();
        tar.append(&header, vec![1; size].as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn merged(layers: &[&[&str]]) -> Result<Tree> {
    let mut tree = Tree::new();
    for (index, lines) in layers.iter().enumerate() {
        let mut tar_entries = TarEntries::from_blob(&Blob::from_bytes(&tar_of(lines)));
        let entries = layer::entries(&mut tar_entries)?;
        tree.apply(u16::try_from(index).unwrap(), entries)?;
    }
    Ok(tree)
}

fn list(node: &Node, path: &str, lines: &mut Vec<String>) {
    let what = match &node.kind {
        NodeKind::Directory(_) => format!("{path}/ {:o}", node.mode),
        NodeKind::Symlink(target) => format!("{path} -> {}", target.escape_ascii()),
        NodeKind::Fifo => format!("{path} fifo"),
        NodeKind::File(Content::Whole { layer, length, .. }) => format!("{path} {layer}:{length}"),
        NodeKind::File(Content::Sparse { .. }) => format!("{path} sparse"),
    };
    if !path.is_empty() {
        lines.push(what);
    }
    if let NodeKind::Directory(directory) = &node.kind {
        for (name, node) in directory {
            let slash = if path.is_empty() { "" } else { "/" };
            list(node, &format!("{path}{slash}{}", name.escape_ascii()), lines);
        }
    }
}

#[test]
fn layers_merge_as_users_expect() {
    type Case = (&'static str, &'static [&'static [&'static str]], &'static [&'static str]);
    let cases: &[Case] = &[
        ("a later layer wins", &[&["f a 1", "f b 1"], &["f a 2"]], &["a 1:2", "b 0:1"]),
        ("the last of a layer wins", &[&["f a 1", "f a 2"]], &["a 0:2"]),
        ("missing parents are made", &[&["f a/b/c 1"]], &["a/ 755", "a/b/ 755", "a/b/c 0:1"]),
        (
            "names are normalised",
            &[&["d ./", "f ./a 1", "f /b//./c 1"]],
            &["a 0:1", "b/ 755", "b/c 0:1"],
        ),
        ("a whiteout removes a file below", &[&["f a 1", "f b 1"], &["f .wh.a 0"]], &["b 0:1"]),
        ("a whiteout removes a directory below", &[&["f a/b/c 1"], &["f a/.wh.b 0"]], &["a/ 755"]),
        (
            "a whiteout of a missing file",
            &[&["f a 1"], &["f .wh.b 0", "f x/y/.wh.b 0"]],
            &["a 0:1"],
        ),
        (
            "a whiteout spares its own layer, after",
            &[&["f a 1"], &["f .wh.a 0", "f a 2"]],
            &["a 1:2"],
        ),
        (
            "a whiteout spares its own layer, before",
            &[&["f a 1"], &["f a 2", "f .wh.a 0"]],
            &["a 1:2"],
        ),
        (
            "a whiteout spares what its layer put into the directory",
            &[&["f a/old 1"], &["f a/new 2", "f .wh.a 0"]],
            &["a/ 755", "a/new 1:2"],
        ),
        ("a hidden name can come back", &[&["f a 1"], &["f .wh.a 0"], &["f a 3"]], &["a 2:3"]),
        (
            "a hidden directory comes back empty",
            &[&["f a/b 1"], &["f .wh.a 0"], &["d a 700"]],
            &["a/ 700"],
        ),
        (
            "opaque hides all below, before",
            &[&["f a/b 1", "f a/c/d 1"], &["d a 711", "f a/.wh..wh..opq 0", "f a/e 2"]],
            &["a/ 711", "a/e 1:2"],
        ),
        (
            "opaque hides all below, after",
            &[&["f a/b 1", "f a/c/d 1"], &["d a 711", "f a/c/e 2", "f a/.wh..wh..opq 0"]],
            &["a/ 711", "a/c/ 755", "a/c/e 1:2"],
        ),
        ("an opaque root", &[&["f a 1"], &["f .wh..wh..opq 0", "f b 2"]], &["b 1:2"]),
        (
            "bookkeeping files of AUFS are dropped",
            &[&["f .wh..wh.aufs 0", "d .wh..wh.plnk", "f .wh..wh.plnk/1 1"]],
            &[],
        ),
        ("a file over a directory", &[&["f a/b 1"], &["f a 2"]], &["a 1:2"]),
        ("a directory over a file", &[&["f a 1"], &["d a 700", "f a/b 2"]], &["a/ 700", "a/b 1:2"]),
        ("a link over a directory", &[&["f a/b 1"], &["s a -> c"]], &["a -> c"]),
        (
            "a directory over a link replaces it",
            &[&["d c", "s a -> c"], &["d a 700", "f a/b 2"]],
            &["a/ 700", "a/b 1:2", "c/ 755"],
        ),
        (
            "a directory over a directory merges",
            &[&["d a 700", "f a/b 1"], &["d a 750", "f a/c 2"]],
            &["a/ 750", "a/b 0:1", "a/c 1:2"],
        ),
        ("the owner gets into directories", &[&["d a 0", "d b 55"]], &["a/ 700", "b/ 755"]),
        (
            "behind a link",
            &[&["d usr/lib", "s lib -> usr/lib"], &["f lib/x 2"]],
            &["lib -> usr/lib", "usr/ 755", "usr/lib/ 755", "usr/lib/x 1:2"],
        ),
        (
            "behind an absolute link",
            &[&["d a/b", "s a/l -> /a/b"], &["f a/l/x 2"]],
            &["a/ 755", "a/b/ 755", "a/b/x 1:2", "a/l -> /a/b"],
        ),
        (
            "behind links in links",
            &[&["d a/b", "s x -> y/l", "s y -> a", "s a/l -> ../a/./b/"], &["f x/f 2"]],
            &["a/ 755", "a/b/ 755", "a/b/f 1:2", "a/l -> ../a/./b/", "x -> y/l", "y -> a"],
        ),
        (
            "behind a dangling link",
            &[&["s l -> a/b"], &["f l/x 2"]],
            &["a/ 755", "a/b/ 755", "a/b/x 1:2", "l -> a/b"],
        ),
        (
            "a whiteout behind a link",
            &[&["f a/x 1", "s l -> a"], &["f l/.wh.x 0"]],
            &["a/ 755", "l -> a"],
        ),
        (
            "a whiteout of a link spares what it leads to",
            &[&["f a/x 1", "s l -> a"], &["f .wh.l 0"]],
            &["a/ 755", "a/x 0:1"],
        ),
        ("a hard link in its layer", &[&["f a 1", "h b => a"]], &["a 0:1", "b 0:1"]),
        (
            "a hard link to a layer below",
            &[&["f d/a 1"], &["h b => ./d/a"]],
            &["b 0:1", "d/ 755", "d/a 0:1"],
        ),
        (
            "a hard link behind a link",
            &[&["f d/a 1", "s l -> d"], &["h l/b => l/a"]],
            &["d/ 755", "d/a 0:1", "d/b 0:1", "l -> d"],
        ),
        ("a hard link to a symbolic link", &[&["s a -> x", "h b => a"]], &["a -> x", "b -> x"]),
        (
            "hard links are parted by later layers",
            &[&["f a 1", "h b => a"], &["f a 2"]],
            &["a 1:2", "b 0:1"],
        ),
        (
            "what a whiteout hid stays in other names",
            &[&["f a 1", "h b => a"], &["f .wh.a 0"]],
            &["b 0:1"],
        ),
        (
            "devices are left to the container",
            &[&["d dev 700", "c dev/null", "f dev/x/y 1", "c a", "p p"]],
            &["a 0:0", "dev/ 700", "p fifo"],
        ),
        (
            "also behind a link",
            &[&["d dev", "s l -> dev"], &["f l/x 1"]],
            &["dev/ 755", "l -> dev"],
        ),
        ("/dev is no link", &[&["s dev -> a", "f dev 1", "d a"]], &["a/ 755"]),
        (
            "dev elsewhere is nothing special",
            &[&["f a/dev/x 1"]],
            &["a/ 755", "a/dev/ 755", "a/dev/x 0:1"],
        ),
    ];
    for (name, layers, expected) in cases {
        let tree = merged(layers).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut lines = Vec::new();
        list(tree.root(), "", &mut lines);
        assert_eq!(lines, *expected, "{name}");
    }
}

#[test]
fn what_leads_out_is_refused() {
    let cases: &[(&[&[&str]], &str)] = &[
        (&[&["f ../a 1"]], "path with `..`"),
        (&[&["f a/../../b 1"]], "path with `..`"),
        (&[&["h a => ../b"]], "path with `..`"),
        (&[&["s l -> .."], &["f l/x 1"]], "symbolic link leads out of the image"),
        (&[&["d a", "s a/l -> ../../etc"], &["f a/l/x 1"]], "symbolic link leads out of the image"),
        (&[&["s l -> /../etc"], &["h x => l/passwd"]], "symbolic link leads out of the image"),
        (&[&["s l -> /../etc"], &["f l/.wh.passwd 0"]], "symbolic link leads out of the image"),
        (&[&["s a -> b", "s b -> a"], &["f a/x 1"]], "too many levels of symbolic links"),
        (&[&["s a -> a/a"], &["f a/x 1"]], "too many levels of symbolic links"),
        (&[&["f a 1"], &["f a/b 1"]], "the parent is not a directory"),
        (&[&["f a 1", "s l -> a"], &["f l/b 1"]], "the parent is not a directory"),
        (&[&["h a => b"]], "no such file in this or a lower layer"),
        (&[&["d a", "h b => a"]], "is a directory"),
        (&[&["s . -> a"]], "the root is not a directory"),
        (&[&["f .wh... 0"]], "whiteout without a file name"),
    ];
    for (layers, expected) in cases {
        let error = merged(layers).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{layers:?}: {error}");
    }
}

#[test]
fn depth_and_times_have_bounds() {
    let deep = ["d"; MAX_DEPTH + 1].join("/");
    let entry = |path: &str, mtime| LayerEntry {
        path: path.as_bytes().into(),
        kind: EntryKind::Directory,
        mode: 0,
        mtime,
        xattrs: None,
    };
    let mut tree = Tree::new();
    tree.apply(0, vec![entry(&deep, 0)]).unwrap();
    assert!(tree.apply(0, vec![entry(&format!("{deep}/d"), 0)]).is_err());
    for (mtime, expected) in [(-1, 0), (7, 7), (i64::MAX, u32::MAX), (i64::MIN, 0)] {
        tree.apply(0, vec![entry("", mtime)]).unwrap();
        assert_eq!(tree.root().mtime, expected);
    }
}

#[test]
fn there_is_always_a_place_for_devices() {
    let root = Tree::new().into_root();
    assert_eq!(root.directory().unwrap().keys().next().unwrap().as_ref(), b"dev");
}

#[test]
fn nodes_stay_small() {
    assert!(size_of::<Node>() <= 48, "{}", size_of::<Node>());
    assert!(size_of::<LayerEntry>() <= 64, "{}", size_of::<LayerEntry>());
}
