//! Images that lie in wait for `mpi_hook` and `glibc_hook`, and users who call hooks themselves.

mod bounds;
mod door;
mod mount_points;
mod race;

use crate::support::bundle::Bundle;
use crate::support::{Image, Installation, Output, Runtime};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// `/etc/ld.so.cache` in the new format, with 64-bit libraries.
fn cache(libraries: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
    bytes.extend((libraries.len() as u32).to_le_bytes());
    bytes.resize(48, 0);
    let mut at = 48 + 24 * libraries.len();
    let mut strings = vec![];
    for (soname, path) in libraries {
        bytes.extend(0x0303u32.to_le_bytes());
        for text in [soname, path] {
            bytes.extend((at as u32).to_le_bytes());
            strings.extend(text.bytes().chain([0]));
            at += text.len() + 1;
        }
        bytes.extend([0; 12]);
    }
    bytes.extend(strings);
    bytes
}

/// A host with a tiny MPI, and a bundle of an image that has one too.
struct Scene {
    installation: Installation,
    bundle: Bundle,
    /// A directory and a file of root's that nothing may happen to.
    treasure: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let installation = Installation::new();
        let treasure = installation.path("treasure");
        fs::create_dir(&treasure).unwrap();
        fs::write(treasure.join("file"), "as it was").unwrap();
        compile(&installation.path("libmpi.so.12.1.0"), "libmpi.so.12");
        compile(&installation.path("libnew.so.3.0"), "libnew-own.so.3");
        let mut settings = vec![
            "LDCONFIG_PATH=/sbin/ldconfig".to_owned(),
            format!("MPI_LIBS={}", installation.path("libmpi.so.12.1.0").display()),
        ];
        settings
            .push(format!("MPI_DEPENDENCY_LIBS={}", installation.path("libnew.so.3.0").display()));
        settings.push(format!("BIND_MOUNTS={}", treasure.display()));
        let hook = installation.prefix().join("bin/mpi_hook");
        let script = "cat /etc/motd; ls -l /lib/ /usr/lib/";
        let place = installation.path("bundle");
        let bundle = Bundle::busybox(place, &installation.alice, &["sh", "-c", script])
            .annotation("com.hooks.mpi.enabled", "true")
            .prestart(&hook, &settings);
        let this = Self { installation, bundle, treasure };
        this.lay_out();
        this
    }

    /// The path of a file of the image.
    fn path(&self, name: &str) -> PathBuf {
        self.bundle.directory.join("rootfs").join(name)
    }

    /// Makes the image a good one again.
    fn lay_out(&self) {
        for name in ["lib", "usr/lib", "etc"] {
            let path = self.path(name);
            fs::remove_file(&path).ok();
            fs::remove_dir_all(&path).ok();
            fs::create_dir_all(&path).unwrap();
        }
        fs::write(self.path("etc/motd"), "hello\n").unwrap();
        fs::copy(self.installation.path("libmpi.so.12.1.0"), self.path("lib/libmpi.so.12.0.1"))
            .unwrap();
        symlink("libmpi.so.12.0.1", self.path("lib/libmpi.so.12")).unwrap();
        fs::write(self.path("etc/ld.so.cache"), cache(&[("libmpi.so.12", "/lib/libmpi.so.12")]))
            .unwrap();
    }

    /// Runs it with all runtimes; nothing may wait, and the treasure stay as it is.
    fn run(&self, check: impl Fn(&Output)) {
        for runtime in Runtime::ALL {
            let begin = Instant::now();
            let output = self.bundle.run(runtime);
            assert!(begin.elapsed() < Duration::from_secs(10), "{output}");
            let names: Vec<_> =
                fs::read_dir(&self.treasure).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["file"], "{output}");
            assert_eq!(fs::read_to_string(self.treasure.join("file")).unwrap(), "as it was");
            check(&output);
        }
    }

    fn refused(&self, why: &str) {
        self.run(|output| {
            let line = output.stderr.lines().next().unwrap_or_default();
            let begin = "sarus: cannot use the host's MPI in this container: ";
            assert!(
                output.status != 0 && line.starts_with(begin) && line.contains(why),
                "{why}: {output}"
            );
        });
    }
}

fn compile(path: &Path, soname: &str) {
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"]).arg(path);
    Output::of(gcc.arg(format!("-Wl,-soname,{soname}"))).succeeds();
}

#[test]
fn a_good_image_is_served() {
    let scene = Scene::new();
    scene.run(|output| {
        let text = output.clone().succeeds();
        assert!(text.starts_with("hello\n"), "{output}");
        for name in ["libnew.so", "libnew.so.3", "libnew-own.so.3"] {
            assert!(text.contains(&format!("{name} -> libnew.so.3.0\n")), "{output}");
        }
    });
}

#[test]
fn libraries_that_are_none_are_refused() {
    let scene = Scene::new();
    let library = scene.path("lib/libmpi.so.12.0.1");
    let with = |prepare: &dyn Fn(), why: &str| {
        scene.lay_out();
        fs::remove_file(&library).unwrap();
        prepare();
        scene.refused(why);
    };
    let none = "the image has none of libmpi.so";
    let link = |target: &Path| symlink(target, &library).unwrap();
    with(&|| link(Path::new("/etc/shadow")), none);
    with(&|| link(&scene.treasure.join("file")), none);
    with(&|| link(Path::new("../../../../../../../../../../etc/shadow")), none);
    with(&|| link(&scene.installation.path("libmpi.so.12.1.0")), none);
    with(&|| link(Path::new("/etc/motd")), "file too short");
    with(&|| fs::write(&library, [b'x'; 99]).unwrap(), "not an ELF file");
    with(&|| link(Path::new("libmpi.so.12")), "too many links");
    with(&|| link(Path::new("/proc/self/exe")), none);
    with(&|| fs::create_dir(&library).unwrap(), "not a regular file");
    with(&|| fs::write(&library, "").unwrap(), "file too short");
    let mknod = |args: &[&str]| {
        Output::of(Command::new("mknod").arg(&library).args(args)).succeeds();
        fs::set_permissions(&library, PermissionsExt::from_mode(0o666)).unwrap();
    };
    with(&|| mknod(&["p"]), "not a regular file");
    with(&|| mknod(&["c", "1", "5"]), "not a regular file");
    let huge = || {
        fs::remove_file(&library).unwrap();
        fs::copy(scene.installation.path("libmpi.so.12.1.0"), &library).unwrap();
        let mut bytes = fs::read(&library).unwrap();
        bytes[32..40].copy_from_slice(&(1u64 << 39).to_le_bytes());
        fs::write(&library, bytes).unwrap();
        fs::File::options().write(true).open(&library).unwrap().set_len(1 << 40).unwrap();
    };
    // Zeroes where the program headers should be: nothing of the rest is read, nor is it needed.
    scene.lay_out();
    huge();
    scene.run(|output| drop(output.clone().succeeds()));
}

#[test]
fn caches_that_are_none_are_refused() {
    let scene = Scene::new();
    let path = scene.path("etc/ld.so.cache");
    let with = |prepare: &dyn Fn(), why: &str| {
        scene.lay_out();
        fs::remove_file(&path).unwrap();
        prepare();
        scene.refused(why);
    };
    with(&|| (), "the image has no /etc/ld.so.cache");
    with(&|| symlink("/etc/shadow", &path).unwrap(), "the image has no /etc/ld.so.cache");
    with(&|| symlink(&scene.treasure, &path).unwrap(), "the image has no /etc/ld.so.cache");
    with(&|| fs::write(&path, "ld.so-1.7.0\0").unwrap(), "damaged");
    with(&|| fs::write(&path, [0; 99]).unwrap(), "not a cache of ld.so");
    with(
        &|| fs::File::create(&path).unwrap().set_len(1 << 40).unwrap(),
        "larger than 8388608 bytes",
    );
    with(&|| drop(Output::of(Command::new("mkfifo").arg(&path)).succeeds()), "not a regular file");
    let lists = |library: &'static str| {
        let path = path.clone();
        move || fs::write(&path, cache(&[("libmpi.so.12", library)])).unwrap()
    };
    with(&lists("lib/libmpi.so.12"), "the image has none of libmpi.so");
    with(&lists("/../../../../../../../../lib/libmpi.so.12/"), "");
    with(&lists("/dev/stdin/libmpi.so.12"), "");
    with(&lists("/lib/libmpi.so.40"), "the image has none of libmpi.so");
}

#[test]
fn directories_that_lead_elsewhere_lead_nowhere() {
    let scene = Scene::new();
    let elsewhere = |name: &str, target: &Path| {
        scene.lay_out();
        fs::remove_dir_all(scene.path(name)).unwrap();
        symlink(target, scene.path(name)).unwrap();
    };
    let climb =
        Path::new("../../../../../../../..").join(scene.treasure.strip_prefix("/").unwrap());
    for target in [&scene.treasure, &climb] {
        elsewhere("lib", target);
        scene.refused("the image has none of libmpi.so");
        elsewhere("usr/lib", target);
        scene.refused("cannot create");
        elsewhere("etc", target);
        scene.refused("the image has no /etc/ld.so.cache");
    }
    // Nor to where the runtime goes on to work as root.
    scene.lay_out();
    let shared = scene.path(scene.treasure.strip_prefix("/").unwrap().to_str().unwrap());
    fs::create_dir_all(shared.parent().unwrap()).unwrap();
    for target in ["/", "/dev", "/dev/null", "/proc", "/sys"] {
        fs::remove_dir(&shared).or_else(|_| fs::remove_file(&shared)).ok();
        symlink(target, &shared).unwrap();
        scene.refused(&format!("{target} is reserved for the container itself"));
    }
    fs::remove_file(&shared).unwrap();
    // Where links stay inside, all is well: `/lib` as an absolute link.
    elsewhere("usr/lib", Path::new("/lib"));
    scene.run(|output| drop(output.clone().succeeds()));
    // What is there already is covered, not replaced; but a link to something else gives way.
    scene.lay_out();
    symlink("/etc/motd", scene.path("usr/lib/libnew.so.3.0")).unwrap();
    fs::write(scene.path("usr/lib/libnew.so.3"), "mine").unwrap();
    symlink(scene.treasure.join("file"), scene.path("usr/lib/libnew.so")).unwrap();
    scene.run(|output| assert!(output.clone().succeeds().starts_with("hello\n"), "{output}"));
    assert_eq!(fs::read_to_string(scene.path("etc/motd")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(scene.path("usr/lib/libnew.so.3")).unwrap(), "mine");
}

#[test]
fn a_new_cache_is_written_through_no_link() {
    let scene = Scene::new();
    let path = scene.path("etc/ld.so.cache");
    let owner = scene.installation.alice.uid;
    chown(&path, Some(owner), Some(owner)).unwrap();
    scene.run(|output| drop(output.clone().succeeds()));
    let status = fs::symlink_metadata(&path).unwrap();
    assert_eq!((status.mode() & 0o7777, status.uid()), (0o644, owner));
    let old = fs::read(&path).unwrap();
    assert!(String::from_utf8_lossy(&old).contains("/usr/lib/libnew-own.so.3\0"));
    // A link gives way to the new file, and what it leads to stays.
    scene.lay_out();
    fs::rename(&path, scene.path("etc/real")).unwrap();
    symlink("real", &path).unwrap();
    let before = fs::read(scene.path("etc/real")).unwrap();
    scene.run(|output| drop(output.clone().succeeds()));
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read(scene.path("etc/real")).unwrap(), before);
    let names: Vec<_> = fs::read_dir(scene.path("etc")).unwrap().flatten().collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn no_program_of_the_site_is_needed_for_a_new_cache() {
    for program in ["/bin/ls", "/no/such/ldconfig", ""] {
        let mut scene = Scene::new();
        scene.bundle.config["hooks"]["prestart"][0]["env"][0] =
            format!("LDCONFIG_PATH={program}").into();
        scene.run(|output| drop(output.clone().succeeds()));
    }
}

#[test]
fn what_users_mount_is_touched_with_their_rights() {
    for runtime in Runtime::ALL {
        let scene = Scene::new();
        let env = scene.bundle.config["hooks"]["prestart"][0]["env"].to_string();
        let hook = scene.installation.prefix().join("bin/mpi_hook");
        let hooks = format!(r#"{{"prestart": [{{"path": {hook:?}, "env": {env}}}]}}"#);
        let Scene { installation, treasure, .. } = scene;
        let installation = installation.runtime(runtime).set("OCIHooks", &hooks);
        let alice = &installation.alice;
        installation.load(alice, &Image::busybox(), "bb");
        let libraries = installation.path("home/alice/lib");
        fs::create_dir(&libraries).unwrap();
        fs::copy(installation.path("libmpi.so.12.1.0"), libraries.join("libmpi.so.12.0.1"))
            .unwrap();
        let etc = installation.path("home/alice/etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("ld.so.cache"), cache(&[("libmpi.so.12", "/lib/libmpi.so.12.0.1")]))
            .unwrap();
        Output::of(
            Command::new("chown").arg("-R").arg(alice.uid.to_string()).args([&etc, &libraries]),
        )
        .succeeds();
        let run = |mounts: &[(&Path, &str)]| {
            let mut args = vec!["run".to_owned(), "--mpi".into()];
            for (source, destination) in mounts {
                args.push(format!(
                    "--mount=type=bind,source={},destination={destination}",
                    source.display()
                ));
            }
            args.extend(["load/library/bb".into(), "true".into()]);
            installation.sarus(alice, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let good: [(&Path, &str); 2] = [(&libraries, "/lib"), (&etc, "/etc")];
        run(&good).succeeds();
        // The new cache is in the user's own directory, and the user's.
        assert_eq!(fs::metadata(etc.join("ld.so.cache")).unwrap().uid(), alice.uid);
        // Once more there is nothing to add.
        let written = fs::read(etc.join("ld.so.cache")).unwrap();
        run(&good).succeeds();
        assert_eq!(fs::read(etc.join("ld.so.cache")).unwrap(), written);
        assert_eq!(fs::read_dir(&etc).unwrap().count(), 1);
        fs::write(etc.join("ld.so.cache"), cache(&[("libmpi.so.12", "/lib/libmpi.so.12.0.1")]))
            .unwrap();
        let text = run(&[good[0], good[1], (&treasure, "/usr/lib")]).fails(125);
        assert!(text.contains("cannot create libnew.so.3.0: Permission denied"), "{text}");
        // A directory that the user may not read tells nothing.
        let hidden = installation.path("hidden");
        fs::create_dir(&hidden).unwrap();
        fs::copy(etc.join("ld.so.cache"), hidden.join("ld.so.cache")).unwrap();
        fs::set_permissions(hidden.join("ld.so.cache"), PermissionsExt::from_mode(0o600)).unwrap();
        let text = run(&[good[0], (&hidden, "/etc")]).fails(125);
        assert!(text.contains("ld.so.cache: Permission denied"), "{text}");
        // Readable, but not writable.
        fs::set_permissions(hidden.join("ld.so.cache"), PermissionsExt::from_mode(0o644)).unwrap();
        let before = fs::read(hidden.join("ld.so.cache")).unwrap();
        let text = run(&[good[0], (&hidden, "/etc")]).fails(125);
        assert!(text.contains("cannot rewrite the container's /etc/ld.so.cache"), "{text}");
        assert_eq!(fs::read(hidden.join("ld.so.cache")).unwrap(), before);
        assert_eq!(fs::read_dir(&hidden).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&treasure).unwrap().count(), 1);
    }
}

#[test]
fn users_who_call_hooks_change_nothing() {
    let scene = Scene::new();
    let (installation, alice) = (&scene.installation, &scene.installation.alice);
    let place = installation.path("home/alice/b");
    Output::of(Command::new("cp").arg("-a").args([&scene.bundle.directory, &place])).succeeds();
    fs::write(place.join("config.json"), scene.bundle.config.to_string()).unwrap();
    let names = [
        "mpi_hook",
        "glibc_hook",
        "ssh_hook start-sshd",
        "slurm_global_sync_hook",
        "timestamp_hook",
    ];
    for name in names {
        for pid in ["$$", "1", "0", "999999"] {
            let program = installation.prefix().join("bin").join(name);
            let script = format!(
                r#"echo '{{"ociVersion":"1.0","id":"x","status":"creating","pid":'{pid}',"bundle":"{}",
                   "annotations":{{"com.hooks.glibc.enabled":"true"}}}}' | {}"#,
                place.display(),
                program.display()
            );
            let output = Output::of(&mut installation.as_user(alice, "sh", ["-c", &script]));
            // The others have nothing to do here.
            if name.starts_with("mpi") || name.starts_with("glibc") {
                assert!(output.clone().fails(1).starts_with("sarus: cannot "), "{output}");
            }
        }
    }
}

/// A directory of the host in place of what the runtime goes on to work on as root.
#[test]
fn nothing_is_shared_where_the_runtime_works() {
    for path in
        ["/", "/dev", "/dev/./null/", "/dev/null/x", "/dev/shm", "/dev/ptmx", "/proc", "/sys"]
    {
        let mut scene = Scene::new();
        let env = scene.bundle.config["hooks"]["prestart"][0]["env"].as_array_mut().unwrap();
        env.retain(|variable| !variable.as_str().unwrap().starts_with("BIND_MOUNTS="));
        env.push(format!("BIND_MOUNTS={path}").into());
        scene.refused("is reserved for the container itself");
    }
}
