//! Images with MPICH from Debian's packages, and a program that tells which library it runs with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Installation, Output, SOURCE, kept};

/// What all images are given: it prints rank, size, and where MPI and the C library come from.
const PROGRAM: &str = r#"
    #include <mpi.h>
    #include <stdio.h>
    #include <string.h>
    #include <gnu/libc-version.h>
    int main(int argc, char **argv) {
        int rank, size, length, sum;
        char version[MPI_MAX_LIBRARY_VERSION_STRING], line[4096], path[4096] = "?";
        MPI_Init(&argc, &argv);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
        MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        MPI_Get_library_version(version, &length);
        strtok(version, "\n");
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            if (strstr(line, "libmpich.so") && strchr(line, '/'))
                sscanf(strchr(line, '/'), "%s", path);
        for (char *c = version; *c; c++) if (*c == '\t') *c = ' ';
        printf("rank %d of %d sum %d, %s, %s, glibc %s\n",
               rank, size, sum, version, path, gnu_get_libc_version());
        MPI_Finalize();
        return 0;
    }"#;

/// Where Debian keeps libraries.
pub const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// The root file system of a Debian release with MPICH and the program `/mpi`, made once for all.
pub fn rootfs(release: &str) -> PathBuf {
    kept(&format!("mpi-{release}"), |root| {
        let mut make = Command::new(Path::new(SOURCE).join("scripts/debian-rootfs.sh"));
        make.arg(root).args([release, "busybox-static", "libmpich12", "libc6-dev"]);
        Output::of(&mut make).succeeds();
        for name in ["sh", "cat", "ls", "readlink", "id", "stat", "true"] {
            let link = root.join("bin").join(name);
            if !link.exists() {
                symlink("busybox", link).unwrap();
            }
        }
        compile(root);
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    })
}

/// Links with the C library of the release, so that the program runs with that one too.
fn compile(root: &Path) {
    let source = root.join("mpi.c");
    fs::write(&source, PROGRAM).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.arg("--sysroot").arg(root).arg("-B").arg(root.join(&LIBRARIES[1..]));
    gcc.arg("-I/usr/include/x86_64-linux-gnu/mpich").arg("-o").arg(root.join("mpi")).arg(source);
    gcc.arg(root.join(&LIBRARIES[1..]).join("libmpich.so.12")).arg("-Wl,--allow-shlib-undefined");
    // The linker does not follow an absolute link inside its sysroot.
    let loader = root.join("lib64/ld-linux-x86-64.so.2");
    let target = fs::read_link(&loader).unwrap();
    fs::remove_file(&loader).unwrap();
    symlink(Path::new("..").join(target.strip_prefix("/").unwrap_or(&target)), &loader).unwrap();
    Output::of(&mut gcc).succeeds();
    fs::remove_file(&loader).unwrap();
    symlink(target, &loader).unwrap();
}

/// A copy of a root file system in `installation`, to be changed.
pub fn copy(installation: &Installation, root: &Path, name: &str) -> PathBuf {
    let copy = installation.path(name);
    Output::of(Command::new("cp").arg("-a").arg(root).arg(&copy)).succeeds();
    copy
}

/// Gives the libraries of MPICH in `root` another version number, and the text of another version.
pub fn renumber(root: &Path, number: &str) {
    let folder = root.join(&LIBRARIES[1..]);
    let real = fs::canonicalize(folder.join("libmpich.so.12")).unwrap();
    let mut bytes = fs::read(&real).unwrap();
    for at in 0..bytes.len() - 5 {
        if &bytes[at..at + 5] == b"4.0.2" {
            bytes[at..at + 5].copy_from_slice(b"4.0.0");
        }
    }
    fs::remove_file(&real).unwrap();
    fs::remove_file(folder.join("libmpich.so.12")).unwrap();
    let major = number.split('.').next().unwrap();
    fs::write(folder.join(format!("libmpich.so.{number}")), bytes).unwrap();
    let link = format!("libmpich.so.{number}");
    symlink(&link, folder.join("libmpich.so.12")).unwrap();
    if major != "12" {
        symlink(&link, folder.join(format!("libmpich.so.{major}"))).unwrap();
    }
    Output::of(Command::new("ldconfig").arg("-r").arg(root)).succeeds();
}

/// The host's MPICH with all that it needs and images may lack or have in an older version.
pub fn settings() -> Vec<String> {
    let libmpi = fs::canonicalize(Path::new(LIBRARIES).join("libmpich.so.12")).unwrap();
    let needed = Output::of(Command::new("ldd").arg(&libmpi)).succeeds();
    let paths = needed.lines().filter_map(|line| line.split_whitespace().nth(2));
    let paths = paths.filter(|path| !path.contains("/libc.so") && !path.contains("/libm.so"));
    vec![
        "LDCONFIG_PATH=/sbin/ldconfig".into(),
        format!("MPI_LIBS={}", libmpi.display()),
        format!("MPI_DEPENDENCY_LIBS={}", paths.collect::<Vec<_>>().join(":")),
    ]
}

/// The host's C library, for `GLIBC_LIBS`.
pub fn glibc_libraries() -> String {
    let names = ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"];
    let more = ["ld-linux-x86-64.so.2", "libresolv.so.2", "libutil.so.1", "libnss_files.so.2"];
    let paths = names.iter().chain(&more).map(|name| format!("/lib/x86_64-linux-gnu/{name}"));
    format!("GLIBC_LIBS={}", paths.collect::<Vec<_>>().join(":"))
}

/// `OCIHooks` of sarus.json: the glibc hook if `glibc`, then the MPI hook, and timestamps around
/// them, as in the manual's example.
pub fn hooks(installation: &Installation, glibc: bool, settings: &[String]) -> String {
    let bin = installation.prefix().join("bin");
    let hook = |name: &str, env: &[String]| serde_json::json!({"path": bin.join(name), "env": env});
    let stamp = |message| hook("timestamp_hook", &[format!("TIMESTAMP_HOOK_MESSAGE={message}")]);
    let mut list = vec![stamp("After-runc")];
    if glibc {
        list.extend([hook("glibc_hook", &[glibc_libraries()]), stamp("After-glibc-hook")]);
    }
    list.extend([hook("mpi_hook", settings), stamp("After-MPI-hook")]);
    serde_json::json!({ "prestart": list }).to_string()
}
