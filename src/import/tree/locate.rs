//! Resolution of symbolic links inside the tree, as after `chroot(2)` into it; but `..` above the
//! root, which would stay there, is an error.

use std::borrow::Cow;

use super::{Node, NodeKind, names};
use crate::error::{Error, Result};

/// Maximum number of links that are followed, as in the kernel (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Returns the path of the directory at `path` after following symbolic links. Missing components
/// are taken for directories that are yet to be created.
pub fn locate<'p>(root: &Node, path: &'p [u8]) -> Result<Cow<'p, [u8]>> {
    // Nearly all paths have no link, and need no allocation.
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
    // Resolved components; one that does not exist has no node.
    let mut resolved: Vec<(&'t [u8], Option<&'t Node>)> = Vec::new();
    let mut remaining = reversed(path);
    let mut links = 0;
    while let Some(name) = remaining.pop() {
        if name == b".." {
            if resolved.pop().is_none() {
                return Err(Error::new("symbolic link leads out of the image"));
            }
            continue;
        }
        let here = resolved.last().map_or(Some(root), |(_, node)| *node);
        let found = match here.map(|node| &node.kind) {
            Some(NodeKind::Directory(directory)) => directory.get(name),
            Some(_) => return Err(super::not_a_directory()),
            None => None,
        };
        match found {
            Some(Node { kind: NodeKind::Symlink(target), .. }) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::new("too many levels of symbolic links"));
                }
                if target.starts_with(b"/") {
                    resolved.clear();
                }
                remaining.extend(reversed(target));
            }
            found => resolved.push((name, found)),
        }
    }
    Ok(resolved.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(&b'/'))
}

/// Returns the components of a path, the last one first.
fn reversed(path: &[u8]) -> Vec<&[u8]> {
    let mut remaining: Vec<_> = names(path).filter(|name| *name != b".").collect();
    remaining.reverse();
    remaining
}
