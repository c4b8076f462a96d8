//! Following symbolic links inside the tree, as a process whose root it is would, but never out of
//! it: `..` above the root is an error here, where `chroot(2)` would stay at the root.

use std::borrow::Cow;

use super::{Node, NodeKind, names};
use crate::error::{Error, Result};

/// Most links on one way, as the kernel's limit (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Where the directory at `path` lies: the same path, unless links lead elsewhere. What is missing
/// there is taken for directories that are yet to be made.
pub fn locate<'p>(root: &Node, path: &'p [u8]) -> Result<Cow<'p, [u8]>> {
    // Nearly all paths have no link in them, and cost no memory.
    let mut node = Some(root);
    for name in names(path) {
        node = match node.map(|node| &node.kind) {
            Some(NodeKind::Directory(directory)) => directory.get(name),
            Some(NodeKind::Symlink(_)) => return follow(root, path).map(Cow::Owned),
            _ => node,
        };
    }
    match node.map(|node| &node.kind) {
        Some(NodeKind::Symlink(_)) => follow(root, path).map(Cow::Owned),
        _ => Ok(Cow::Borrowed(path)),
    }
}

fn follow<'t>(root: &'t Node, path: &'t [u8]) -> Result<Vec<u8>> {
    // The way so far; a place where nothing is yet has no node.
    let mut way: Vec<(&'t [u8], Option<&'t Node>)> = Vec::new();
    let mut ahead = backwards(path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == b".." {
            if way.pop().is_none() {
                return Err(Error::new("a link leads out of the image"));
            }
            continue;
        }
        let here = way.last().map_or(Some(root), |(_, node)| *node);
        let found = match here.map(|node| &node.kind) {
            Some(NodeKind::Directory(directory)) => directory.get(name),
            Some(_) => return Err(super::not_a_directory()),
            None => None,
        };
        match found {
            Some(Node { kind: NodeKind::Symlink(target), .. }) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::new("too many links, maybe a loop"));
                }
                if target.starts_with(b"/") {
                    way.clear();
                }
                ahead.extend(backwards(target));
            }
            found => way.push((name, found)),
        }
    }
    Ok(way.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(&b'/'))
}

/// The names of a path, the last one first.
fn backwards(path: &[u8]) -> Vec<&[u8]> {
    let mut ahead: Vec<_> = names(path).filter(|name| *name != b".").collect();
    ahead.reverse();
    ahead
}
