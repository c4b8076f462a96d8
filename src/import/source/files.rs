//! Files of an image by name: in a directory, or in a tar archive, plain or compressed, from a file
//! or stdin.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::progress::{Meter, Progress};
use crate::error::{Cause, Context, Error, Result};
use crate::import::blob::{Blob, CHUNK};
use crate::import::layer::decompressed;
use crate::import::tar::{self, FileData, TarEntries, TarEntryKind};
use crate::import::temp::TempDir;

/// Maximum number of files in an archive: a few for each layer of each image.
const MAX_FILES: usize = 100_000;
/// Longest file name in bytes: a digest and a few directories.
const MAX_NAME: usize = 1024;
/// Maximum number of links that are followed: old `docker save` writes one for a layer that occurs
/// twice.
const MAX_LINKS: usize = 8;

/// Files of an archive or a directory.
#[derive(Debug)]
pub struct Files {
    /// Path in messages.
    name: String,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Directory(PathBuf),
    Tar { blob: Blob, index: HashMap<String, IndexEntry> },
}

#[derive(Debug)]
enum IndexEntry {
    File { offset: u64, length: u64 },
    Link(String),
}

impl Files {
    /// Opens `path`, where `-` is stdin. Input from a pipe and compressed archives are copied to
    /// `temp_dir`.
    /// `temp_dir`.
    pub fn open(path: &OsStr, temp_dir: &TempDir, progress: Progress) -> Result<Self> {
        let base = Path::new(path).file_name().unwrap_or(path);
        let name = temp_dir.path().join(if path == "-" { OsStr::new("stdin") } else { base });
        let name = name.display().to_string();
        let file = if path == "-" {
            let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned();
            stdin.map_err(Cause::into_error)?.into()
        } else {
            File::open(path).map_err(Cause::into_error)?
        };
        let kind = file.metadata().map_err(Cause::into_error)?.file_type();
        if kind.is_dir() {
            return Ok(Self { name, storage: Storage::Directory(path.into()) });
        }
        let blob = if kind.is_file() {
            Blob::from_file(file).map_err(Cause::into_error)?
        } else {
            progress.during(0, |meter| copy_to_temp_file(file, temp_dir, meter))?
        };
        let length = blob.length();
        let blob = progress.during(length, |meter| decompressed(&blob, temp_dir, meter))?;
        let index = index(&blob)?;
        Ok(Self { name, storage: Storage::Tar { blob, index } })
    }

    /// Path in messages: as in the manual, in the temporary directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file with this name.
    pub fn get(&self, name: &str) -> Result<Blob> {
        let found = self.find(name)?;
        found.ok_or_else(|| Error::new(format!("no file {name:.200} in it")))
    }

    /// Returns the file with this name, if it exists.
    pub fn find(&self, name: &str) -> Result<Option<Blob>> {
        let safe = |name: &str| {
            resolve(name).ok_or_else(|| Error::new(format!("invalid file name {name:.200}")))
        };
        let mut name = safe(name)?;
        match &self.storage {
            Storage::Directory(directory) => match File::open(directory.join(&name)) {
                Ok(file) => {
                    Blob::from_file(file).map(Some).context(|| format!("cannot examine {name}"))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).context(|| format!("cannot open {name}")),
            },
            Storage::Tar { blob, index } => {
                for _ in 0..MAX_LINKS {
                    match index.get(&name) {
                        None => return Ok(None),
                        Some(IndexEntry::File { offset, length }) => {
                            let part = blob.slice(*offset, *length);
                            let part = part.ok_or_else(tar::truncated);
                            return part.map(Some);
                        }
                        Some(IndexEntry::Link(target)) => name = safe(target)?,
                    }
                }
                Err(Error::new(format!("too many links from {name:.200}")))
            }
        }
    }
}

/// Resolves `.` and `..` of a path. Returns `None` if it leads out of the archive.
fn resolve(path: &str) -> Option<String> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => _ = names.pop()?,
            name => names.push(name),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}

/// Copies a pipe to a temporary file.
fn copy_to_temp_file(mut file: File, temp_dir: &TempDir, meter: &Meter) -> Result<Blob> {
    let mut temp_file = temp_dir.create_file()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return temp_file.into_blob(),
            Ok(count) => {
                temp_file.append(buffer.get(..count).unwrap_or_default())?;
                meter.add(count as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into_error()),
        }
    }
}

/// Reads the positions of all files of a tar archive.
fn index(blob: &Blob) -> Result<HashMap<String, IndexEntry>> {
    let mut entries = TarEntries::from_blob(blob);
    let mut index = HashMap::new();
    while let Some(tar::TarEntry { path, kind, .. }) = entries.next()? {
        if index.len() >= MAX_FILES {
            return Err(Error::new(format!("more than {MAX_FILES} files in the archive")));
        }
        // A name that is not UTF-8, too long or leads out cannot be in a manifest.
        let Some(name) = file_name(&path) else { continue };
        let entry = match kind {
            TarEntryKind::File(FileData::Plain { offset, length }) => {
                IndexEntry::File { offset, length }
            }
            // Relative to the directory of the link.
            TarEntryKind::Symlink(target) => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                match file_name(&[folder.as_bytes(), b"/", &target].concat()) {
                    Some(target) => IndexEntry::Link(target),
                    None => continue,
                }
            }
            TarEntryKind::Link(target) => match file_name(&target) {
                Some(target) => IndexEntry::Link(target),
                None => continue,
            },
            _ => continue,
        };
        index.insert(name, entry);
    }
    Ok(index)
}

fn file_name(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok().filter(|path| path.len() <= MAX_NAME)?;
    resolve(path)
}
