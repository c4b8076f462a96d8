//! `ld.so.cache` as `mpi_hook` writes it, beside what the real ldconfig writes, and as the dynamic
//! linkers of Debian 11 and 12 read it.

use crate::support::{Installation, Output, mpi};
use sarus::hook::libraries::ldcache::{self, Listing, RootLayout};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const RELEASES: [&str; 2] = ["bullseye", "bookworm"];

fn ldconfig(root: &Path, more: &[&str]) {
    Output::of(Command::new("ldconfig").arg("-X").arg("-r").arg(root).args(more)).succeeds();
}

/// The lines that ldconfig prints of a cache.
fn printed(cache: &Path) -> Vec<String> {
    let text = Output::of(Command::new("ldconfig").arg("-p").arg("-C").arg(cache)).succeeds();
    text.lines().filter(|line| line.contains(" => ")).map(str::to_owned).collect()
}

/// Where the linker finds each name: the first path that is for this machine and all processors.
fn resolved(cache: &Path) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    for line in printed(cache) {
        if line.contains("(libc6,x86-64)") {
            let (soname, rest) = line.trim().split_once(' ').unwrap();
            let (_, path) = rest.split_once("=> ").unwrap();
            paths.entry(soname.to_owned()).or_insert(path.to_owned());
        }
    }
    paths
}

/// Adds `libraries` to the cache of `root`, as it is in a new file beside it.
fn add(root: &Path, libraries: &[(&str, &str)]) -> PathBuf {
    let bytes = fs::read(root.join("etc/ld.so.cache")).unwrap();
    let listing =
        |(soname, path): &(&str, &str)| Listing { soname: (*soname).into(), path: (*path).into() };
    let libraries: Vec<_> = libraries.iter().map(listing).collect();
    let exists = |path: &[u8]| {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        root.join(path.strip_prefix("/").unwrap()).symlink_metadata().is_ok()
    };
    let new = root.join("etc/ld.so.cache.new");
    let is_merged = root.join("lib").is_symlink();
    let with = ldcache::add(&bytes, &libraries, RootLayout { is_merged, exists: &exists }).unwrap();
    fs::write(&new, with).unwrap();
    new
}

/// A library of one function, `value`, below `root`.
fn compile(root: &Path, path: &str, value: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let source = root.join("value.c");
    fs::write(&source, format!("int value(void) {{ return {value}; }}")).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let soname = name.strip_suffix(".0").unwrap_or(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-nostdlib", "-o"]).arg(&path).arg(source);
    Output::of(gcc.arg(format!("-Wl,-soname,{soname}"))).succeeds();
}

#[test]
fn all_that_ldconfig_lists_is_kept_in_every_format() {
    let installation = Installation::new();
    for release in RELEASES {
        let root = mpi::copy(&installation, &mpi::rootfs(release), release);
        for folder in ["", "glibc-hwcaps/x86-64-v2/", "glibc-hwcaps/x86-64-v3/"] {
            compile(&root, &format!("usr/lib/x86_64-linux-gnu/{folder}libvalue.so.1"), 1);
        }
        ldconfig(&root, &["-c", "new"]);
        let of_new = printed(&root.join("etc/ld.so.cache"));
        for format in ["new", "compat", "old"] {
            ldconfig(&root, &["-c", format]);
            let old = match format {
                // ldconfig notes the names of processors where neither it nor the linker looks.
                "compat" => of_new.clone(),
                _ => printed(&root.join("etc/ld.so.cache")),
            };
            assert!(old.len() > 20, "{old:?}");
            let has = |text: &str| old.iter().any(|line| line.contains(text));
            assert_eq!(has("hwcap: \"x86-64-v3\""), format != "old", "{old:?}");
            assert_eq!(printed(&add(&root, &[])), old, "{release} {format}");
            let mut new = printed(&add(&root, &[("libadded.so.1", "/opt/added/libadded.so.1")]));
            new.retain(|line| line != "\tlibadded.so.1 (libc6,x86-64) => /opt/added/libadded.so.1");
            assert_eq!(new, old, "{release} {format}");
        }
    }
    // The host's own.
    let root = installation.path("host");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::copy("/etc/ld.so.cache", root.join("etc/ld.so.cache")).unwrap();
    assert_eq!(printed(&add(&root, &[])), printed(Path::new("/etc/ld.so.cache")));
}

#[test]
fn names_lead_to_the_same_libraries_as_when_ldconfig_writes_the_cache() {
    let installation = Installation::new();
    // Debian's ldconfig knows no lib64; so they are listed, as others search them without being told.
    let searched = "/lib\n/lib64\n/usr/lib\n/usr/lib64\n";
    let conf = format!("/opt/first\n/lib/x86_64-linux-gnu\n{}\n{searched}", mpi::LIBRARIES);
    for release in RELEASES {
        let root = mpi::copy(&installation, &mpi::rootfs(release), release);
        fs::write(root.join("etc/ld.so.conf"), &conf).unwrap();
        leads_to_the_same(&root, "/lib64");
    }
    // As on Red Hat: two directories have four names.
    let root = installation.path("merged");
    for name in ["lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name)).unwrap();
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/ld.so.conf"), format!("/opt/first\n{searched}")).unwrap();
    leads_to_the_same(&root, "/usr/lib");
}

/// Adds libraries to `root`, of which the image has some already: libearly in `/lib64`, instead of which
/// that of the directory `early` is found then.
fn leads_to_the_same(root: &Path, early: &str) {
    for path in [
        "opt/first/libboth.so.1",
        "opt/first/libgone.so.1",
        "usr/lib/libown.so.1",
        "usr/lib64/liblate.so.1",
        "lib64/libearly.so.1",
    ] {
        compile(root, path, 1);
    }
    ldconfig(root, &[]);
    fs::remove_file(root.join("opt/first/libgone.so.1")).unwrap();
    let names =
        ["added", "both", "gone", "own", "late", "early"].map(|name| format!("lib{name}.so.1"));
    let mut paths = vec![];
    for name in &names {
        compile(root, &format!("usr/lib/{name}.0"), 2);
        let link = root.join("usr/lib").join(name);
        fs::remove_file(&link).ok();
        symlink(format!("{name}.0"), link).unwrap();
        paths.push(format!("/usr/lib/{name}"));
    }
    let libraries: Vec<_> =
        names.iter().zip(&paths).map(|(name, path)| (name.as_str(), path.as_str())).collect();
    // ldconfig knows a directory by the first of its names.
    let real = |(name, path): (String, String)| {
        let merged = root.join("lib").is_symlink() && path.starts_with("/lib");
        (name, if merged { format!("/usr{path}") } else { path })
    };
    let resolved = |cache: &Path| resolved(cache).into_iter().map(real).collect::<BTreeMap<_, _>>();
    let ours = resolved(&add(root, &libraries));
    ldconfig(root, &[]);
    let theirs = resolved(&root.join("etc/ld.so.cache"));
    assert_eq!(ours, theirs, "{}", root.display());
    for (name, folder) in [
        ("libadded.so.1", "/usr/lib"),
        ("libboth.so.1", "/opt/first"),
        ("libgone.so.1", "/usr/lib"),
        ("libown.so.1", "/usr/lib"),
        ("liblate.so.1", "/usr/lib"),
        ("libearly.so.1", early),
    ] {
        assert_eq!(ours[name], format!("{folder}/{name}"), "{}", root.display());
    }
}

/// A program that needs no other library, and ends with the number that `value` gives.
const PROGRAM: &str = r#"
    extern int value(void);
    void _start(void) {
        __asm__ volatile("syscall" : : "a"(60), "D"(value()));
    }"#;

#[test]
fn the_images_own_linker_finds_what_was_added() {
    let installation = Installation::new();
    for release in RELEASES {
        let root = mpi::copy(&installation, &mpi::rootfs(release), release);
        // Nowhere that the linker looks by itself.
        compile(&root, "opt/added/libadded.so.1", 42);
        let source = root.join("program.c");
        fs::write(&source, PROGRAM).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-nostdlib", "-o"]).arg(root.join("program")).arg(source);
        gcc.arg(root.join("opt/added/libadded.so.1"));
        gcc.arg("-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2");
        Output::of(&mut gcc).succeeds();
        for format in ["new", "compat", "old"] {
            ldconfig(&root, &["-c", format]);
            let run = || Output::of(Command::new("chroot").arg(&root).arg("/program"));
            let text = run().fails(127);
            assert!(text.contains("libadded.so.1: cannot open shared object file"), "{text}");
            let new = add(&root, &[("libadded.so.1", "/opt/added/libadded.so.1")]);
            fs::rename(new, root.join("etc/ld.so.cache")).unwrap();
            run().fails(42);
            // The program of MPICH, whose libraries were in the cache before.
            let list = ["/lib64/ld-linux-x86-64.so.2", "--list", "/mpi"];
            let text = Output::of(Command::new("chroot").arg(&root).args(list)).succeeds();
            assert!(text.contains("libmpich.so.12 => ") && !text.contains("not found"), "{text}");
        }
    }
}
