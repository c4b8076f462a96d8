//! The files that an image consists of, by name: in a directory, or in a tar that is plain or
//! compressed, in a file or on stdin.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::progress::{Meter, Progress};
use crate::error::{Context, Error, Result};
use crate::import::blob::Blob;
use crate::import::layer::decompressed;
use crate::import::tar::{self, FileData, TarEntries, TarEntryKind};
use crate::import::temp::TempDir;

/// Most files of an archive: a few for each layer, of each image in it.
const MAX_FILES: usize = 100_000;
/// Longest name of a file in an archive: a digest and a few folders.
const MAX_NAME: usize = 1024;
/// Most links from one name to the next: old `docker save` makes one for a layer that is there
/// twice.
const MAX_LINKS: usize = 8;

/// The files of one archive or directory.
#[derive(Debug)]
pub struct Files {
    /// How messages name it.
    name: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Tar { blob: Blob, index: HashMap<String, Found> },
}

#[derive(Debug)]
enum Found {
    File { offset: u64, length: u64 },
    Link(String),
}

impl Files {
    /// Opens `path`, `-` being stdin. What cannot be read in place is put into `space` once.
    pub fn open(path: &OsStr, temp_dir: &TempDir, progress: Progress) -> Result<Self> {
        let base = Path::new(path).file_name().unwrap_or(path);
        let name = temp_dir.path().join(if path == "-" { OsStr::new("stdin") } else { base });
        let name = name.display().to_string();
        let file = if path == "-" {
            let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned();
            stdin.context(|| "cannot read it".into())?.into()
        } else {
            File::open(path).context(|| "cannot open it".into())?
        };
        let kind = file.metadata().context(|| "cannot examine it".into())?.file_type();
        if kind.is_dir() {
            return Ok(Self { name, place: Place::Directory(path.into()) });
        }
        let blob = if kind.is_file() {
            Blob::from_file(file).context(|| "cannot examine it".into())?
        } else {
            progress.during(0, |meter| kept(file, temp_dir, meter))?
        };
        let length = blob.length();
        let blob = progress.during(length, |meter| decompressed(&blob, temp_dir, meter))?;
        let index = index(&blob)?;
        Ok(Self { name, place: Place::Tar { blob, index } })
    }

    /// How messages name the whole, as the manual shows it: in the temporary directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of this name.
    pub fn get(&self, name: &str) -> Result<Blob> {
        let found = self.find(name)?;
        found.ok_or_else(|| Error::new(format!("{name:.200} is missing in it")))
    }

    /// The file of this name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Blob>> {
        let safe = |name: &str| {
            resolved(name)
                .ok_or_else(|| Error::new(format!("not the name of a file in it: {name:.200}")))
        };
        let mut name = safe(name)?;
        match &self.place {
            Place::Directory(directory) => match File::open(directory.join(&name)) {
                Ok(file) => {
                    Blob::from_file(file).map(Some).context(|| format!("cannot examine {name}"))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).context(|| format!("cannot open {name}")),
            },
            Place::Tar { blob, index } => {
                for _ in 0..MAX_LINKS {
                    match index.get(&name) {
                        None => return Ok(None),
                        Some(Found::File { offset, length }) => {
                            let part = blob.slice(*offset, *length);
                            let part = part.ok_or_else(|| Error::new("the tar is truncated"));
                            return part.map(Some);
                        }
                        Some(Found::Link(target)) => name = safe(target)?,
                    }
                }
                Err(Error::new(format!("too many links from {name:.200}")))
            }
        }
    }
}

/// A path within the archive without `.` and `..`; nothing if it leads out.
fn resolved(path: &str) -> Option<String> {
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

/// What comes from a pipe, in a file.
fn kept(mut file: File, temp_dir: &TempDir, meter: &Meter) -> Result<Blob> {
    let mut temp_file = temp_dir.create_file()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return temp_file.into_blob(),
            Ok(count) => {
                temp_file.append(buffer.get(..count).unwrap_or_default())?;
                meter.add(count as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context(|| "cannot read it".into()),
        }
    }
}

/// Where the files of a tar lie.
fn index(blob: &Blob) -> Result<HashMap<String, Found>> {
    let mut members = TarEntries::from_blob(blob);
    let mut index = HashMap::new();
    while let Some(tar::TarEntry { path, kind, .. }) = members.next()? {
        if index.len() >= MAX_FILES {
            return Err(Error::new(format!("more than {MAX_FILES} files in it")));
        }
        // No name that an image gives can mean what is not UTF-8, too long or outside.
        let Some(name) = text(&path) else { continue };
        let found = match kind {
            TarEntryKind::File(FileData::Plain { offset, length }) => {
                Found::File { offset, length }
            }
            // Relative to the directory that the link is in.
            TarEntryKind::Symlink(target) => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                match text(&[folder.as_bytes(), b"/", &target].concat()) {
                    Some(target) => Found::Link(target),
                    None => continue,
                }
            }
            TarEntryKind::Link(target) => match text(&target) {
                Some(target) => Found::Link(target),
                None => continue,
            },
            _ => continue,
        };
        index.insert(name, found);
    }
    Ok(index)
}

fn text(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok().filter(|path| path.len() <= MAX_NAME)?;
    resolved(path)
}
