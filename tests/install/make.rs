//! `make install`, `make dist` and configure_installation.sh: what an administrator gets.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Image, Installation, Output, Runtime, SOURCE, User, binary};

/// `make` in the source tree, with the binary under test taken as built.
fn make(args: &[&str]) -> Output {
    let mut command = Command::new("make");
    command.args(["--no-print-directory", "-C", SOURCE, "--assume-old"]).arg(binary());
    command.arg("--assume-old").arg(binary().with_file_name("share"));
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
        "bin/ssh_hook",
        "bin/timestamp_hook",
        "configure_installation.sh",
        "etc/sarus.schema.json",
        "etc/templates/sarus.json",
        "etc/templates/passwd",
        "etc/templates/group",
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
    // As a user leaves it who unpacks the archive.
    let completion = prefix.join("share/completion");
    fs::create_dir_all(prefix.join("share")).unwrap();
    fs::write(&completion, "").unwrap();
    fs::set_permissions(&completion, PermissionsExt::from_mode(0o666)).unwrap();
    let link = prefix.join("bin/mpi_hook");
    for path in [&completion, &link] {
        std::os::unix::fs::lchown(path, Some(installation.alice.uid), None).unwrap();
    }
    Output::of(&mut Command::new(prefix.join("configure_installation.sh"))).succeeds();

    assert_eq!(mode(prefix.join("bin/sarusbox")), 0o4755);
    assert_eq!((mode(&completion), fs::metadata(&completion).unwrap().uid()), (0o644, 0));
    assert_eq!(fs::symlink_metadata(&link).unwrap().uid(), 0);
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
    fs::copy(Runtime::Crun.path(), prefix.join("bin/crun")).unwrap();
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
fn openssh_is_installed_unless_the_administrator_leaves_it_out() {
    let installation = Installation::new();
    let install = |name: &str, ssh: &str| {
        let destdir = format!("DESTDIR={}", installation.path(name).display());
        make(&["install", "PREFIX=/opt/sarus", &destdir, ssh]).succeeds();
        installation.path(name).join("opt/sarus")
    };
    let prefix = install("with", "ENABLE_SSH=1");
    for (file, bits) in [
        ("bin/ssh", 0o755),
        ("bin/ssh-keygen", 0o755),
        ("sbin/sshd", 0o755),
        ("etc/ssh_config", 0o644),
        ("etc/sshd_config", 0o644),
        ("etc/userkeys", 0o755),
        ("var/empty", 0o755),
        ("SOURCE", 0o644),
    ] {
        assert_eq!(mode(prefix.join("openssh").join(file)), bits, "{file}");
    }
    let sums = fs::read_to_string(prefix.join("openssh/SOURCE")).unwrap();
    assert!(sums.lines().all(|line| line.len() > 66 && line.contains("  openssh")), "{sums}");
    // sshd itself finds no fault in its configuration, once there are keys.
    let keys = installation.path("key");
    let keygen = prefix.join("openssh/bin/ssh-keygen");
    Output::of(Command::new(keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&keys))
        .succeeds();
    let alice = &installation.alice;
    std::os::unix::fs::chown(&keys, Some(alice.uid), None).unwrap();
    let config = prefix.join("openssh/etc/sshd_config");
    let args = ["-T", "-f", config.to_str().unwrap(), "-o"].map(str::to_owned);
    let args = args.into_iter().chain([format!("HostKey={}", keys.display())]);
    let mut sshd = installation.as_user(alice, prefix.join("openssh/sbin/sshd"), args);
    let settings = Output::of(&mut sshd).succeeds();
    for setting in [
        "authenticationmethods publickey",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permituserenvironment no",
        "authorizedkeysfile /opt/sarus/openssh/etc/userkeys/authorized_keys",
    ] {
        assert!(settings.lines().any(|line| line == setting), "{setting}: {settings}");
    }
    for none in ["0", "FALSE"] {
        let prefix = install(none, &format!("ENABLE_SSH={none}"));
        assert!(prefix.join("bin/ssh_hook").exists() && !prefix.join("openssh").exists());
    }
}

#[test]
fn configuring_makes_openssh_roots_alone() {
    let installation = Installation::with_ssh();
    let openssh = installation.prefix().join("openssh");
    let sshd = openssh.join("sbin/sshd");
    std::os::unix::fs::chown(&sshd, Some(installation.alice.uid), None).unwrap();
    fs::set_permissions(&sshd, PermissionsExt::from_mode(0o777)).unwrap();
    let script = installation.prefix().join("configure_installation.sh");
    Output::of(&mut Command::new(script)).succeeds();
    assert_eq!((fs::metadata(&sshd).unwrap().uid(), mode(&sshd)), (0, 0o755));
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
fn configuring_can_keep_what_the_site_configured() {
    let installation = Installation::new().config(|_| "the site's own".into());
    let script = installation.prefix().join("configure_installation.sh");
    let output = Output::of(Command::new(&script).arg("--keep")).succeeds();
    assert!(output.contains("Keeping etc/sarus.json"), "{output}");
    assert_eq!(fs::read_to_string(installation.config_file()).unwrap(), "the site's own");
    // Users, too, but for those that there are before there are any.
    let etc = installation.prefix().join("etc");
    let users = || fs::read_to_string(etc.join("passwd")).unwrap();
    assert!(users().contains("alice") && output.contains("Keeping etc/passwd"), "{output}");
    fs::remove_file(installation.config_file()).unwrap();
    fs::copy(etc.join("templates/passwd"), etc.join("passwd")).unwrap();
    Output::of(Command::new(&script).arg("--keep")).succeeds();
    assert!(installation.config_file().exists());
    let system = Output::of(Command::new("getent").arg("passwd")).succeeds();
    assert_eq!(users(), system);
    fs::write(etc.join("passwd"), "old").unwrap();
    fs::write(installation.config_file(), "the site's own").unwrap();
    Output::of(Command::new(&script).arg("--users")).succeeds();
    assert_eq!(users(), system);
    assert_eq!(fs::read_to_string(installation.config_file()).unwrap(), "the site's own");
    let error = Output::of(Command::new(&script).arg("--nonsense")).fails(1);
    assert!(error.contains("unknown option '--nonsense'"), "{error}");
}

#[test]
fn an_upgrade_leaves_running_containers_and_images_alone() {
    let installation = Installation::new();
    let alice = &installation.alice;
    installation.load(alice, &Image::busybox(), "box");
    let mut command = installation.sarus_command(
        alice,
        &["run", "load/library/box", "sh", "-c", "echo started; read line; echo $line"],
    );
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut shown = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(shown.next().unwrap().unwrap(), "started");

    let program = installation.prefix().join("bin/sarusbox");
    let old = fs::metadata(&program).unwrap().ino();
    make(&["install", &format!("PREFIX={}", installation.prefix().display())]).succeeds();
    assert_ne!(fs::metadata(&program).unwrap().ino(), old);
    assert_eq!(mode(&program), 0o4755);
    let again = installation.sarus(alice, &["run", "load/library/box", "echo", "new"]);
    assert_eq!(again.succeeds(), "new\n");

    running.stdin.take().unwrap().write_all(b"ended well\n").unwrap();
    assert_eq!(shown.next().unwrap().unwrap(), "ended well");
    assert!(running.wait().unwrap().success());
}

#[test]
fn uninstalling_leaves_images_and_what_the_site_made() {
    let installation = Installation::new();
    let prefix = installation.prefix();
    let central = prefix.join("var/images");
    let installation = installation.set("centralizedRepositoryDir", &format!("{central:?}"));
    let (alice, root) = (&installation.alice, &User::root());
    installation.load(alice, &Image::busybox(), "box");
    let archive = installation.archive(&Image::busybox());
    let load = ["load", "--centralized-repository", archive.to_str().unwrap(), "box"];
    installation.sarus(root, &load).succeeds();
    for file in ["bin/runc", "share/man/man1/other.1", "share/sites/own"] {
        let file = prefix.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "the site's own").unwrap();
    }
    let prefix_is = format!("PREFIX={}", prefix.display());
    make(&["install", &prefix_is]).succeeds();
    assert!(prefix.join("share/man/man1/sarus.1").exists());
    let said = make(&["uninstall", &prefix_is]).succeeds();
    assert!(said.contains("etc/sarus.json stays"), "{said}");
    let mut find = Command::new("find");
    find.arg(&prefix).args(["-type", "f", "-printf", "%P\\n"]);
    let mut left: Vec<_> = Output::of(&mut find).succeeds().lines().map(str::to_owned).collect();
    left.sort();
    let images = "var/images/images/load/library/box/latest";
    let expected = [
        "bin/runc".to_owned(),
        "etc/sarus.json".to_owned(),
        "share/man/man1/other.1".to_owned(),
        "share/sites/own".to_owned(),
        format!("{images}.meta"),
        format!("{images}.squashfs"),
        "var/images/metadata.json".to_owned(),
    ];
    left.retain(|file| !file.ends_with(".lock"));
    assert_eq!(left, expected);
    assert!(installation.repository(alice).join("images/load/library/box").exists());
    let error = make(&["uninstall", &prefix_is]).fails(2);
    assert!(error.contains("is not an installation of Sarus"), "{error}");
}

/// As the C++ Sarus left them: a sarus.json of its manual's, and a repository with an image that
/// mksquashfs made.
#[test]
fn configuration_and_images_of_the_engine_of_before_are_used() {
    let manual = include_str!("manual.json");
    let installation = Installation::new();
    let prefix = installation.prefix();
    let runc = Runtime::Runc.path();
    let mut old: serde_json::Value = serde_json::from_str(manual).unwrap();
    // What a site would have there.
    for (key, value) in [
        ("OCIBundleDir", prefix.join("var/OCIBundleDir")),
        ("prefixDir", prefix.clone()),
        ("tempDir", installation.path("tmp")),
        ("localRepositoryBaseDir", installation.path("home")),
        ("runcPath", runc),
        ("initPath", prefix.join("bin/init")),
        ("mksquashfsPath", "/usr/bin/mksquashfs".into()),
    ] {
        assert!(old[key].is_string() || key == "initPath", "{key}");
        old[key] = value.to_str().unwrap().into();
    }
    old["siteMounts"] = serde_json::json!([]);
    old["OCIHooks"] = serde_json::json!({});
    let installation = installation.config(|_| old.to_string());

    let alice = &installation.alice;
    let repository = installation.repository(alice);
    let folder = repository.join("images/index.docker.io/library/old");
    fs::create_dir_all(&folder).unwrap();
    let root = installation.rootfs("root");
    let image = folder.join("1.0.squashfs");
    let mut mksquashfs = Command::new("mksquashfs");
    Output::of(mksquashfs.arg(&root).arg(&image).arg("-quiet")).succeeds();
    let meta = r#"{"Cmd":["/bin/sh"],"Entrypoint":[],"WorkingDir":"/tmp","Env":["FROM=old"]}"#;
    fs::write(folder.join("1.0.meta"), meta).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let index = serde_json::json!({"images": [{
        "uniqueKey": "index.docker.io/library/old/1.0", "server": "index.docker.io",
        "namespace": "library", "image": "old", "tag": "1.0", "digest": "65e50dd72f89",
        "imagePath": path("1.0.squashfs"), "metadataPath": path("1.0.meta"),
        "datasize": "2.59MB", "created": "2019-08-21T16:07:06",
    }]});
    fs::write(repository.join("metadata.json"), index.to_string()).unwrap();
    let owner = format!("{}:{}", alice.uid, alice.gid);
    Output::of(Command::new("chown").args(["-R", &owner]).arg(&repository)).succeeds();

    let sarus = |args: &[&str]| installation.sarus(alice, args).succeeds();
    let listed = sarus(&["images"]);
    assert!(listed.contains("65e50dd72f89   2019-08-21T16:07:06   2.59MB"), "{listed}");
    let shown = sarus(&["run", "--init", "old:1.0", "sh", "-c", "pwd; echo $FROM"]);
    assert_eq!(shown, "/tmp\nold\n");
    installation.load(alice, &Image::busybox(), "new");
    assert_eq!(sarus(&["images", "-q"]), "old:1.0\nload/library/new:latest\n");
    assert_eq!(sarus(&["rmi", "old:1.0"]), "removed index.docker.io/library/old/1.0\n");
    assert!(!image.exists());
}

#[test]
fn uninstalling_takes_no_users_from_a_system() {
    let installation = Installation::new();
    let node = installation.path("node");
    let args = [format!("DESTDIR={}", node.display()), "PREFIX=/".to_owned()];
    let run = |what: &str| make(&[what, &args[0], &args[1]]);
    run("install").succeeds();
    fs::create_dir(node.join("usr")).unwrap();
    let error = run("uninstall").fails(2);
    assert!(error.contains("is the root of a system"), "{error}");
    assert!(node.join("etc/passwd").exists());
}
