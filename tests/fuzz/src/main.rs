//! One program with a target for each reader of what strangers write; `SARUS_FUZZ` names the target.
//! Whatever comes in, a reader must neither panic nor take long. See scripts/fuzz.sh.

#![no_main]

/// Reads images back, as in the tests of the library.
#[path = "../../../src/squashfs/writer/reading.rs"]
mod reading;
mod squashwriter;

use libfuzzer_sys::{Corpus, fuzz_target};
use sarus::container::plan::mounts::MountRequest;
use sarus::container::plan::namespaces::restrictions_of_proc;
use sarus::container::seccomp;
use sarus::hook::libraries::elf;
use sarus::hook::libraries::ldcache::{self, CacheEntry, Listing, RootLayout};
use sarus::hook::state::{Spec, State};
use sarus::image::reference::Reference;
use sarus::import::blob::Blob;
use sarus::import::tar::TarEntries;
use sarus::site::config::Config;
use sarus::squashfs::{self, validate};
use sarus::sys::process::seccomp::SockFilter;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

type Target = fn(&[u8]) -> Option<()>;

/// A new reader is one row here.
const TARGETS: [(&str, Target); 13] = [
    ("state", |bytes| State::parse(text(bytes)?).ok().map(drop)),
    ("spec", |bytes| Spec::parse(text(bytes)?, Path::new("/bundle")).ok().map(drop)),
    ("elf", library),
    ("ldcache", |bytes| ldcache::read(bytes).ok().map(drop)),
    ("ldcachewrite", rewritten),
    ("tar", archive),
    ("squashfs", image),
    ("squashwriter", squashwriter::written),
    ("reference", |bytes| text(bytes)?.parse::<Reference>().ok().map(drop)),
    ("mount", |bytes| MountRequest::parse(text(bytes)?, &mut Vec::new()).ok().map(drop)),
    ("mountinfo", |bytes| restrictions_of_proc(text(bytes)?).ok().map(drop)),
    ("config", |bytes| {
        let _faults = Config::parse("sarus.json", text(bytes)?, true);
        Some(())
    }),
    ("seccomp", profile),
];

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A profile becomes a filter that the kernel takes, or is refused.
fn profile(bytes: &[u8]) -> Option<()> {
    let (profile, _notes) = seccomp::parse("profile", text(bytes)?, true, (5, 10));
    let filter = seccomp::compile(&profile.ok()?).ok()?;
    assert!(filter.len() <= 4096);
    // The highest destination of any jump is the last instruction.
    let reach = |(at, step): (usize, &SockFilter)| match step.code {
        0x05 => at + 1 + step.k as usize,
        _ => at + 1 + usize::from(step.jt.max(step.jf)),
    };
    let jumps = |step: &SockFilter| step.code & 7 == 5;
    let steps = filter.iter().enumerate().filter(|(_, step)| jumps(step));
    assert!(steps.map(reach).all(|destination| destination < filter.len()));
    Some(())
}

fn library(bytes: &[u8]) -> Option<()> {
    let library = elf::read(bytes).ok()?;
    elf::glibc_version(bytes, &library).ok().map(drop)
}

/// A cache that is written again lists what it listed, and what was added.
fn rewritten(bytes: &[u8]) -> Option<()> {
    let listing = |name: &str| Listing { soname: name.into(), path: format!("/usr/lib/{name}") };
    let libraries = [listing("libfuzz.so.1"), listing("libc.so.6")];
    let root = RootLayout { is_merged: true, exists: &|_| true };
    let written = ldcache::add(bytes, &libraries, root).ok()?;
    let Ok(before) = ldcache::read(bytes) else {
        // A name that is not UTF-8 stays.
        assert!(ldcache::read(&written).is_err());
        return None;
    };
    let after = ldcache::read(&written).unwrap();
    let is_new = |entry: &&CacheEntry<'_>| {
        libraries.iter().any(|one| (&*one.soname, &*one.path) == (entry.soname, entry.path))
    };
    let kept = |list: &[CacheEntry<'_>]| -> Vec<(String, String)> {
        let list = list.iter().filter(|entry| !is_new(entry));
        list.map(|entry| (entry.soname.to_owned(), entry.path.to_owned())).collect()
    };
    assert_eq!(kept(&before), kept(&after));
    assert!(after.iter().filter(is_new).count() >= 2);
    // Nothing is added twice.
    assert_eq!(ldcache::read(&ldcache::add(&written, &libraries, root).unwrap()).unwrap(), after);
    Some(())
}

fn image(bytes: &[u8]) -> Option<()> {
    let read = |buffer: &mut [u8], at: u64| {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
        let range = rest.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(range.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    validate::check(&read, bytes.len() as u64).ok().map(drop)
}

fn archive(bytes: &[u8]) -> Option<()> {
    // A file in memory.
    let name = format!("/dev/shm/sarus-fuzz-{}", std::process::id());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(name).ok()?;
    file.write_all(bytes).ok()?;
    let mut entries = TarEntries::from_blob(&Blob::from_file(file).ok()?);
    while entries.next().ok()?.is_some() {}
    Some(())
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SARUS_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("no target '{name}' for SARUS_FUZZ")).1
});

// What is refused at once teaches nothing; what is read is kept.
fuzz_target!(|bytes: &[u8]| -> Corpus {
    TARGET(bytes);
    Corpus::Keep
});
