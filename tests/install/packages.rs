//! What administrators get on a bare machine: the archive of `make dist`, and packages for Debian's
//! and for Red Hat's package manager.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::machine::Machine;
use crate::support::registry::Registry;
use crate::support::{Image, Output, SOURCE, Scratch, binary};

/// Makes `target` ("dist", "deb", "rpm") into `directory`, of what is built already; the path that
/// make prints.
fn make(target: &str, directory: &Path, setup: &str) -> PathBuf {
    let script = format!(
        "{setup}; make --no-print-directory -C {SOURCE} --assume-old {0} \
         --assume-old {2}/share BINARY={0} DIST={1} {target}",
        binary().display(),
        directory.display(),
        binary().parent().unwrap().display(),
    );
    let output = Output::of(Command::new("bash").args(["-ec", &script])).succeeds();
    PathBuf::from(output.lines().last().unwrap())
}

/// A machine with the docker-archive of an image at /box.tar, which alice may read.
fn machine() -> Machine {
    let machine = Machine::new();
    fs::copy(Image::busybox().docker_archive(), machine.root().join("box.tar")).unwrap();
    machine
}

/// The same without the OpenSSH of containers, which takes long to build.
fn make_small(target: &str, directory: &Path, setup: &str) -> PathBuf {
    make(target, directory, &format!("{setup}; export ENABLE_SSH=0"))
}

/// A script as alice, who finds sarus in `path`.
fn alice(path: &str, script: &str) -> String {
    format!(
        "cd /home/alice; setpriv --reuid=alice --regid=alice --init-groups \
         env HOME=/home/alice PATH={path}:/usr/bin:/bin sh -ec '{script}'; cd /"
    )
}

#[test]
fn the_same_files_make_the_same_archive_and_packages() {
    let work = Scratch::new("dist");
    for target in ["dist", "deb", "rpm"] {
        let one = make_small(target, &work.path("one"), "umask 022; TZ=UTC");
        let two = make_small(
            target,
            &work.path("two"),
            "umask 077; export TZ=Asia/Tokyo LC_ALL=C.UTF-8; sleep 1.1",
        );
        assert_eq!(one.file_name(), two.file_name());
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "{target} differs");
    }
}

#[test]
fn the_archive_works_on_a_bare_machine_as_the_quickstart_says() {
    let machine = machine();
    let missing = machine.runs("for name in cc gcc make cargo rustc python3 mksquashfs skopeo; do command -v $name || echo no $name; done");
    assert_eq!(missing.lines().filter(|line| line.starts_with("no ")).count(), 8, "{missing}");
    let archive = make("dist", &machine.root().join("opt/sarus"), "true");
    let name = archive.file_name().unwrap().to_str().unwrap();
    let folder = name.strip_suffix(".tar.gz").unwrap();
    let shown = machine.runs(&format!(
        "cd /opt/sarus; sha256sum --check {name}.sha256; tar xf {name}; cd {folder}
         sha256sum --check --quiet SHA256SUMS; ls -lR; ./configure_installation.sh"
    ));
    assert!(shown.contains(&format!("{name}: OK")), "{shown}");
    for file in ["sarus.1", "sarus.json.5", "hooks.8", "_sarus", "sarus.fish", "LICENSE"] {
        assert!(shown.contains(file), "{file}: {shown}");
    }
    for file in ["sbin/sshd", "bin/ssh", "bin/ssh-keygen", "etc/sshd_config", "LICENCE"] {
        let file = machine.root().join("opt/sarus").join(folder).join("openssh").join(file);
        assert!(fs::metadata(&file).is_ok_and(|file| file.len() > 0), "{}", file.display());
    }
    assert!(!shown.contains("-rws"), "setuid before it was configured: {shown}");
    let path = format!("/opt/sarus/{folder}/bin");
    assert!(shown.contains(&format!("export PATH={path}:${{PATH}}")), "{shown}");

    let registry = Registry::plain();
    let image = format!("docker-archive:{}", Image::busybox().docker_archive().display());
    registry.push(&image, "library/box:latest", &[]);
    let name = format!("{}/library/box", registry.address());
    let shown = machine.runs(&alice(
        &path,
        &format!(
            "sarus pull {name}; sarus images; sarus run {name} cat /etc/os-release
         sarus load /box.tar box; sarus run load/library/box id; sarus check; sarus help run
         sarus ssh-keygen; sarus run --ssh {name} ssh 127.0.0.1 echo by ssh"
        ),
    ));
    for words in [
        "# image",
        "REPOSITORY",
        "PRETTY_NAME=",
        "(alice)",
        "is setuid root",
        "Usage: sarus run",
        "Successfully generated SSH keys",
        "by ssh",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("\nerror"), "{shown}");
}

/// What a site and its users have is what they have after an upgrade, and images even after all of
/// it was removed. `install` and `remove` are commands of the machine's root.
fn survives(machine: &Machine, install: &dyn Fn(), remove: &dyn Fn()) {
    install();
    let binary = machine.root().join("opt/sarus/bin/sarusbox");
    let status = fs::metadata(&binary).unwrap();
    assert_eq!((status.uid(), status.gid(), status.mode() & 0o7777), (0, 0, 0o4755));
    let shown = machine.runs(&alice("/usr/bin", "sarus load /box.tar box; sarus run load/library/box id; sarus check; ls /usr/share/man/man1/sarus-run.1.gz"));
    assert!(shown.contains("(alice)") && !shown.contains("\nerror"), "{shown}");

    let configuration = machine.root().join("opt/sarus/etc/sarus.json");
    let text = fs::read_to_string(&configuration).unwrap();
    let text = text.replace("\"rootfs\"", "\"the-site-s-own\"");
    fs::write(&configuration, &text).unwrap();
    install();
    assert_eq!(fs::read_to_string(&configuration).unwrap(), text);
    assert_ne!(fs::metadata(&binary).unwrap().ino(), status.ino(), "it was replaced");
    let shown = machine.runs(&alice("/usr/bin", "sarus images -q; sarus run load/library/box id"));
    assert!(shown.contains("load/library/box:latest") && shown.contains("(alice)"), "{shown}");

    remove();
    for path in
        ["opt/sarus/bin", "opt/sarus/etc/passwd", "usr/bin/sarus", "usr/share/man/man1/sarus.1.gz"]
    {
        assert!(fs::symlink_metadata(machine.root().join(path)).is_err(), "{path} is left");
    }
    let image = "home/alice/.sarus/images/load/library/box/latest.squashfs";
    assert!(machine.root().join(image).exists());
}

#[test]
fn a_debian_package_is_installed_upgraded_and_removed() {
    let machine = machine();
    let package = make_small("deb", &machine.root(), "true");
    let package = package.file_name().unwrap().to_str().unwrap();
    let install = || drop(machine.runs(&format!("dpkg --install /{package}")));
    survives(&machine, &install, &|| drop(machine.runs("dpkg --remove sarus")));
    assert!(machine.root().join("opt/sarus/etc/sarus.json").exists());
    machine.runs("dpkg --purge sarus");
    assert!(!machine.root().join("opt/sarus").exists());
}

#[test]
fn an_upgrade_of_the_package_leaves_running_containers_alone() {
    let machine = machine();
    let package = make_small("deb", &machine.root(), "true");
    let package = package.file_name().unwrap().to_str().unwrap();
    let install = format!("dpkg --install /{package}");
    machine.runs(&install);
    machine.runs(&alice("/usr/bin", "sarus load /box.tar box"));
    let wait = "until [ -s /home/alice/started ]; do sleep 0.1; done";
    let container = alice(
        "/usr/bin",
        "sarus run --mount=type=bind,source=/home/alice,destination=/mine load/library/box \
         sh -c \"echo yes >/mine/started; until [ -e /mine/upgraded ]; do sleep 0.1; done; echo ended well\"",
    );
    let shown = machine
        .runs(&format!("({container}) & {wait}; {install}; touch /home/alice/upgraded; wait $!"));
    assert!(shown.contains("ended well"), "{shown}");
}

#[test]
fn an_rpm_package_is_installed_upgraded_and_removed() {
    let machine = machine();
    let package = make_small("rpm", &machine.root(), "true");
    let rpm = |args: &[&str]| {
        let mut command = Command::new("rpm");
        // Its dependencies are there, as packages of Debian.
        command.arg("--root").arg(machine.root()).arg("--nodeps").args(args);
        Output::of(&mut command).succeeds()
    };
    let install = || drop(rpm(&["--upgrade", "--replacepkgs", package.to_str().unwrap()]));
    survives(&machine, &install, &|| drop(rpm(&["--erase", "sarus"])));
    let left = machine.runs("find /opt/sarus");
    assert_eq!(left, "/opt/sarus\n/opt/sarus/etc\n/opt/sarus/etc/sarus.json\n");
}

/// The recipe itself, with the words of Spack's language put in by a script: there is no Spack here.
#[test]
fn the_recipe_for_spack_installs_what_its_variants_say() {
    let work = Scratch::new("spack");
    let recipe = Path::new(SOURCE).join("scripts/spack/packages/sarus/package.py");
    let install = |name: &str, variants: &[&str]| {
        let prefix = work.path(name);
        let mut command = Command::new("python3");
        command.args(["-B".as_ref(), Path::new(SOURCE).join("tests/install/spack.py").as_os_str()]);
        command.arg(&recipe).arg(SOURCE).arg(&prefix).args(variants);
        command.args(["--", "make", "--no-print-directory", "--assume-old"]).arg(binary());
        command.arg("--assume-old").arg(binary().with_file_name("share"));
        let said = Output::of(command.arg(format!("BINARY={}", binary().display()))).succeeds();
        for words in ["variant ssh", "variant configure_installation", "depends_on runc run"] {
            assert!(said.contains(words), "{said}");
        }
        prefix
    };
    let configured = install("configured", &["+configure_installation"]);
    let text = fs::read_to_string(configured.join("etc/sarus.json")).unwrap();
    assert!(text.contains(&format!("\"prefixDir\": \"{}\"", configured.display())), "{text}");
    let plain = install("plain", &[]);
    assert!(plain.join("bin/sarus").exists());
    assert!(!plain.join("etc/sarus.json").exists());
    assert!(!plain.join("openssh").exists());
}
