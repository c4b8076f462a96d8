//! Places libraries and programs of the host in directories of a container, as mounts and links.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags};

use super::container_root::ContainerRoot;
use super::libraries::major;
use crate::error::{Context, Error, Result};
use crate::rootfs::root_dir::file_type;
use crate::site::reserved;

/// Directories that dynamic linkers search by default (ld.so(8)).
const DEFAULT_DIRECTORIES: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

impl ContainerRoot {
    /// Mounts the host's library `source` as `name` in the container's directory `folder`, and makes
    /// each of `aliases` lead to it. A file that is there is covered, not removed. A link to another
    /// major version is replaced; but one without a number, which only serves to link programs, stays.
    /// Returns the names by which the library is found.
    ///
    /// # Errors
    /// If something cannot be created there.
    pub fn add_library<'a>(
        &self,
        source: &Path,
        folder: &Path,
        name: &'a str,
        aliases: &'a [String],
    ) -> Result<Vec<&'a str>> {
        let context = || format!("cannot add the host's {}", source.display());
        let directory = self.directory(folder, name).context(context)?;
        let path = folder.join(name);
        self.remove_dangling(&directory, name, &path).context(context)?;
        if self.is_link_to_another(&path, major(name))? {
            self.remove_link(&directory, name).context(context)?;
        }
        if self.container.find(&path, OFlags::PATH)?.is_none() {
            self.create_file(&directory, name).context(context)?;
        }
        self.replace(source, &path)?;
        let mut names = vec![name];
        for alias in aliases {
            let path = folder.join(alias);
            if self.is_link_to_another(&path, major(alias).or_else(|| major(name)))? {
                if major(alias).is_none() {
                    continue;
                }
                self.remove_link(&directory, alias).context(context)?;
            }
            if !self.create_link(&directory, alias, &path, Path::new(name)).context(context)? {
                self.replace(source, &path)?;
            }
            names.push(alias);
        }
        Ok(names)
    }

    /// Mounts the host's program `source` as `name` in the container's directory `folder`. A link of
    /// that name is replaced: its target may serve under other names too.
    ///
    /// # Errors
    /// If it cannot be created there.
    pub fn replace_program(&self, source: &Path, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(name);
        let context = || format!("cannot replace {}", path.display());
        let directory = self.directory(folder, name).context(context)?;
        let found = self.container.find(&path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if found.is_some_and(|found| file_type(found).is_ok_and(|kind| kind == FileType::Symlink)) {
            self.remove_link(&directory, name).context(context)?;
        }
        self.add_library(source, folder, name, &[]).map(drop)
    }

    /// Creates links `name` to the container's file `target`: beside it, and in the directories that
    /// linkers search by default. Files that are there stay. Returns the path of the first new link.
    ///
    /// # Errors
    /// If a link cannot be created, or would be at a reserved path.
    pub fn link_library(&self, target: &Path, name: &str) -> Result<Option<PathBuf>> {
        let defaults = DEFAULT_DIRECTORIES.iter().map(Path::new);
        let mut first = None;
        for folder in target.parent().into_iter().chain(defaults) {
            let path = folder.join(name);
            let point = self.find_mount_point(folder)?;
            if !point.exists() {
                continue;
            }
            reserved::check(&point.path().join(name))?;
            let directory = point.create(FileType::Directory, &self.creator)?;
            if self.create_link(&directory, name, &path, target)? {
                first.get_or_insert(path);
            }
        }
        Ok(first)
    }

    /// True if `path` is a link to a library whose major number is not `wanted`.
    fn is_link_to_another(&self, path: &Path, wanted: Option<u32>) -> Result<bool> {
        // A name without a number fits libraries of every version.
        if wanted.is_none() {
            return Ok(false);
        }
        let Some((_, names)) = self.container.follow(path)? else { return Ok(false) };
        let end = names.last().filter(|_| names.len() > 1);
        Ok(end.is_some_and(|name| major(name) != wanted))
    }

    /// Creates the link `name` to `target` in `directory`, unless `path`, which is the same, exists.
    /// Returns true if it did.
    fn create_link(
        &self,
        directory: &OwnedFd,
        name: &str,
        path: &Path,
        target: &Path,
    ) -> Result<bool> {
        self.remove_dangling(directory, name, path)?;
        if self.container.find(path, OFlags::PATH)?.is_some() {
            return Ok(false);
        }
        let link = || {
            rustix::fs::symlinkat(target, directory, name)
                .context(|| format!("cannot create {}", path.display()))
        };
        self.creator.change(directory, link).map(|()| true)
    }

    /// Removes a link from one of the container's own mounts; a link on a mount of the host stays.
    fn remove_link(&self, directory: &OwnedFd, name: &str) -> Result<()> {
        if !self.creator.owns(directory)? {
            return Err(Error::new(format!("{name} is a link in a directory of the host")));
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())
            .context(|| format!("cannot remove {name}"))
    }

    /// Removes the link `name` from `directory` if it is dangling.
    fn remove_dangling(&self, directory: &OwnedFd, name: &str, path: &Path) -> Result<()> {
        let link = self.container.find(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if link.is_none() || self.container.find(path, OFlags::PATH)?.is_some() {
            return Ok(());
        }
        self.creator.change(directory, || {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())
                .context(|| format!("cannot replace {}", path.display()))
        })
    }
}
