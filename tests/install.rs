//! `make install`, `make dist` and configure_installation.sh: what an administrator gets.

#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "tests start programs")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::{Installation, Output, SOURCE, binary};

/// `make` in the source tree, with the binary under test taken as built.
fn make(args: &[&str]) -> Output {
    let mut command = Command::new("make");
    command.args(["--no-print-directory", "-C", SOURCE, "--assume-old"]).arg(binary());
    Output::of(command.arg(format!("BINARY={}", binary().display())).args(args))
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path.as_ref()).unwrap().permissions().mode() & 0o7777
}

/// The applets that the binary lists when it is called by its own name.
fn applets() -> Vec<String> {
    let list = Output::of(&mut Command::new(binary())).succeeds();
    let rows = list.lines().filter_map(|line| line.strip_prefix("   ")?.split_once(": "));
    rows.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_file_is_where_the_manual_says() {
    let installation = Installation::new();
    let prefix = installation.prefix();
    for file in [
        "bin/sarusbox",
        "bin/sarus",
        "bin/init",
        "bin/launch",
        "bin/confine_hook",
        "bin/glibc_hook",
        "bin/mpi_hook",
        "bin/slurm_global_sync_hook",
        "bin/timestamp_hook",
        "configure_installation.sh",
        "etc/sarus.schema.json",
        "etc/templates/sarus.json",
        "etc/container/nsswitch.conf",
        "etc/passwd",
        "etc/group",
        "var/OCIBundleDir",
    ] {
        assert!(prefix.join(file).exists(), "{file} is missing");
    }
}

#[test]
fn the_binary_is_setuid_root_and_never_setgid() {
    let installation = Installation::new();
    let binary = fs::metadata(installation.prefix().join("bin/sarusbox")).unwrap();
    assert_eq!((binary.uid(), binary.gid(), binary.mode() & 0o7777), (0, 0, 0o4755));
}

#[test]
fn there_is_a_relative_link_for_each_applet() {
    let installation = Installation::new();
    for applet in applets() {
        let link = fs::read_link(installation.prefix().join("bin").join(&applet));
        assert_eq!(link.unwrap(), Path::new("sarusbox"), "link of {applet}");
    }
}

#[test]
fn nothing_in_the_prefix_can_be_written_by_others() {
    let installation = Installation::new();
    let list = Output::of(Command::new("find").arg(installation.prefix()).args([
        "(", "!", "-user", "root", "-o", "-perm", "/022", "!", "-type", "l", ")", "-print",
    ]));
    assert_eq!(list.succeeds(), "");
}

#[test]
fn configuring_prints_what_the_manual_shows() {
    let installation = Installation::new();
    let prefix = installation.prefix();
    let script = prefix.join("configure_installation.sh");
    let expected = format!(
        "Setting Sarus as SUID root\n\
         Successfully set Sarus as SUID root\n\
         Creating cached passwd database\n\
         Successfully created cached passwd database\n\
         Creating cached group database\n\
         Successfully created cached group database\n\
         Configuring etc/sarus.json\n\
         Successfully configured etc/sarus.json.\n\
         To execute sarus commands run first:\n\
         export PATH={}/bin:${{PATH}}\n\
         To persist that for future sessions, consider adding the previous line to your .bashrc \
         or equivalent file\n",
        prefix.display()
    );
    assert_eq!(Output::of(&mut Command::new(script)).succeeds(), expected);
}

#[test]
fn configuring_sets_what_depends_on_the_machine() {
    let installation = Installation::new();
    let prefix = installation.prefix();
    fs::set_permissions(prefix.join("bin/sarusbox"), PermissionsExt::from_mode(0o777)).unwrap();
    Output::of(&mut Command::new(prefix.join("configure_installation.sh"))).succeeds();

    assert_eq!(mode(prefix.join("bin/sarusbox")), 0o4755);
    for database in ["passwd", "group"] {
        let system = Output::of(Command::new("getent").arg(database)).succeeds();
        assert_eq!(fs::read_to_string(prefix.join("etc").join(database)).unwrap(), system);
    }
    let config = fs::read_to_string(prefix.join("etc/sarus.json")).unwrap();
    assert!(config.contains(&format!("\"prefixDir\": \"{}\"", prefix.display())), "{config}");
    assert!(config.contains("/runc\""), "{config}");
    assert!(config.contains("\"squashfsCompression\": \"zstd\""), "{config}");
    assert!(!config.contains('@'), "a placeholder is left: {config}");
}

#[test]
fn configuring_again_keeps_the_old_configuration_beside() {
    let installation = Installation::new().config(|_| "the site's own".into());
    let etc = installation.prefix().join("etc");
    let configure = || {
        let mut script = Command::new(installation.prefix().join("configure_installation.sh"));
        Output::of(&mut script).succeeds()
    };
    configure();
    assert_eq!(fs::read_to_string(etc.join("sarus.json.bak")).unwrap(), "the site's own");
    let first = fs::read_to_string(etc.join("sarus.json")).unwrap();
    configure();
    assert_eq!(fs::read_to_string(etc.join("sarus.json.bak")).unwrap(), first);
    assert_eq!(fs::read_to_string(etc.join("sarus.json")).unwrap(), first);
}

#[test]
fn a_runtime_beside_the_binary_wins() {
    let installation = Installation::new();
    let prefix = installation.prefix();
    fs::copy(common::Runtime::Crun.path(), prefix.join("bin/crun")).unwrap();
    Output::of(&mut Command::new(prefix.join("configure_installation.sh"))).succeeds();
    let config = fs::read_to_string(prefix.join("etc/sarus.json")).unwrap();
    assert!(config.contains(&format!("\"runcPath\": \"{}/bin/crun\"", prefix.display())));
}

#[test]
fn configuring_needs_root() {
    let installation = Installation::new();
    let script = installation.prefix().join("configure_installation.sh");
    let alice = &installation.alice;
    let error = Output::of(&mut installation.as_user(alice, script, [""; 0])).fails(1);
    assert!(error.contains("only root can set"), "{error}");
}

#[test]
fn configuring_needs_an_installation() {
    let installation = Installation::new();
    let stray = installation.path("configure_installation.sh");
    fs::copy(installation.prefix().join("configure_installation.sh"), &stray).unwrap();
    let error = Output::of(&mut Command::new(stray)).fails(1);
    assert!(error.contains("is not an installation of Sarus"), "{error}");
}

#[test]
fn installing_again_keeps_what_the_site_changed() {
    let installation = Installation::new().config(|_| "the site's own".into());
    let prefix = installation.prefix();
    make(&["install", &format!("PREFIX={}", prefix.display())]).succeeds();
    assert_eq!(fs::read_to_string(installation.config_file()).unwrap(), "the site's own");
    assert!(fs::read_to_string(prefix.join("etc/passwd")).unwrap().contains("alice"));
}

#[test]
fn destdir_is_not_part_of_what_is_configured() {
    let installation = Installation::new();
    let destination = installation.path("image-of-a-node");
    let destdir = format!("DESTDIR={}", destination.display());
    make(&["install", "PREFIX=/opt/sarus", &destdir]).succeeds();
    let prefix = destination.join("opt/sarus");
    let config = fs::read_to_string(prefix.join("etc/sarus.json")).unwrap();
    assert!(config.contains("\"prefixDir\": \"/opt/sarus\""), "{config}");
    assert!(!config.contains('@'), "a placeholder is left: {config}");
    assert_eq!(mode(prefix.join("bin/sarusbox")), 0o4755);
}

#[test]
fn a_user_can_install_below_destdir() {
    let installation = Installation::new();
    let home = installation.path("home").join(installation.alice.name);
    // Copies, because the source tree may lie where alice cannot look.
    let sources = installation.path("sources");
    fs::create_dir(&sources).unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-r").args(["scripts", "etc"].map(|part| Path::new(SOURCE).join(part)));
    Output::of(copy.arg(&sources)).succeeds();
    let program = sources.join("sarusbox");
    fs::copy(binary(), &program).unwrap();

    let stage = home.join("stage/opt/sarus");
    let args = [program.as_os_str(), stage.as_os_str(), "/opt/sarus".as_ref()];
    let mut install =
        installation.as_user(&installation.alice, sources.join("scripts/install.sh"), args);
    let note = Output::of(&mut install);
    assert!(note.stderr.contains("configure_installation.sh as root"), "{note}");
    note.succeeds();
    assert_eq!(mode(stage.join("bin/sarusbox")), 0o755);
}

#[test]
fn the_archive_holds_an_installation_to_be_configured() {
    let installation = Installation::new();
    let dist = installation.path("dist");
    make(&["dist", &format!("DIST={}/sarus-1-test", dist.display())]).succeeds();
    let archive = dist.join("sarus-1-test.tar.gz");
    Output::of(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&dist)).succeeds();
    let prefix = dist.join("sarus-1-test");

    // Whose accounts and paths are in there is for the target machine to say.
    assert!(!prefix.join("etc/sarus.json").exists());
    assert_eq!(mode(prefix.join("bin/sarusbox")), 0o755);
    Output::of(&mut Command::new(prefix.join("configure_installation.sh"))).succeeds();
    assert_eq!(mode(prefix.join("bin/sarusbox")), 0o4755);
    let config = fs::read_to_string(prefix.join("etc/sarus.json")).unwrap();
    assert!(config.contains(&format!("\"prefixDir\": \"{}\"", prefix.display())), "{config}");
}
