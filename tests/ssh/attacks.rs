//! Other users of the nodes who are after the keys and the logins of `--ssh`, and images that lie in
//! wait for `ssh_hook`.

use crate::support::bundle::Bundle;
use crate::support::hostile::{give, snapshot, wait_until};
use crate::support::ssh::{SSHD, Site, WAIT};
use crate::support::{IMAGE, Image, Output, Runtime, User};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the keys are in a container.
const KEYS: &str = "/opt/sarus/openssh/etc/userkeys";

/// A site where bob, too, has keys and the image.
fn site(runtime: Runtime) -> Site {
    let site = Site::new(runtime);
    let bob = &site.installation.bob;
    site.installation.load(bob, &Image::busybox(), "bb");
    site.installation.sarus(bob, &["ssh-keygen"]).succeeds();
    site
}

fn keys(site: &Site, user: &User) -> PathBuf {
    site.installation.path("home").join(user.name).join(".oci-hooks/ssh/keys")
}

/// Debian's client on the first host, with the key of `user`, to `target`; `options` win.
fn debian(site: &Site, user: &User, options: &[&str], target: &str) -> Output {
    let copy = site.installation.path("key");
    fs::copy(keys(site, user).join("id_ed25519"), &copy).unwrap();
    let port = site.port(&site.installation.alice).to_string();
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-p", &port, "-o", "BatchMode=yes"]).args(options);
    command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    command.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(copy).args([target, "id", "-u"]);
    command.env("PATH", "/usr/bin:/bin");
    Output::of(&mut site.network.on(0, &command))
}

#[test]
fn nobody_logs_in_but_with_the_users_own_key() {
    for runtime in Runtime::ALL {
        let site = site(runtime);
        let (alice, bob) = (&site.installation.alice, &site.installation.bob);
        let blue = site.start(1, IMAGE);
        // This is how the user gets in.
        assert_eq!(debian(&site, alice, &[], "alice@blue").succeeds(), format!("{}\n", alice.uid));
        let refused = "Permission denied (publickey)";
        for name in ["alice", "bob", "root", "nobody"] {
            let output = debian(&site, bob, &[], &format!("{name}@blue"));
            assert!(output.status == 255 && output.stderr.contains(refused), "{name}: {output}");
        }
        for method in ["password", "keyboard-interactive", "hostbased", "none"] {
            let method = format!("PreferredAuthentications={method}");
            let output = debian(&site, alice, &["-o", &method], "alice@blue");
            assert!(output.status == 255 && output.stderr.contains(refused), "{method}: {output}");
        }
        // The key opens the own account and no other.
        for name in ["root", "bob"] {
            let output = debian(&site, alice, &[], &format!("{name}@blue"));
            assert!(output.status == 255 && output.stdout.is_empty(), "{name}: {output}");
        }
        // From another user's container, with all that is there for it.
        let port = site.port(alice).to_string();
        let login = [IMAGE, "ssh", "-p", &port, "alice@blue", "id"];
        let output = Output::of(&mut site.command(0, bob, &login));
        assert_eq!((output.status, output.stdout.as_str()), (255, ""), "{output}");
        blue.end("TERM");
    }
}

#[test]
fn daemons_of_two_users_do_not_meet() {
    for runtime in Runtime::ALL {
        let site = site(runtime);
        let (alice, bob) = (&site.installation.alice, &site.installation.bob);
        let bobs = site.start_as(1, bob, &[IMAGE, "sh", "-c", WAIT]);
        // All of it, so that what comes later is alice's.
        let sleeps = |(_, line): &(u32, String)| line == "sleep 1000";
        wait_until("bob's program", || site.network.processes(1).iter().any(sleeps));
        let alices = site.start(1, IMAGE);
        for user in [alice, bob] {
            let mut login = site.command(0, user, &[IMAGE, "ssh", "blue", "id", "-u"]);
            assert_eq!(Output::of(&mut login).succeeds(), format!("{}\n", user.uid));
        }
        assert_ne!(site.port(alice), site.port(bob));
        alices.end("TERM");
        bobs.end("TERM");
    }
}

#[test]
fn another_users_daemon_is_not_taken_for_ones_own() {
    for runtime in Runtime::ALL {
        let site = site(runtime).with_port(15263);
        let (alice, bob) = (&site.installation.alice, &site.installation.bob);
        let _bobs = site.start_as(1, bob, &[IMAGE, "sh", "-c", WAIT]);
        let output = site.run(0, &[IMAGE, "ssh", "blue", "cat"]);
        assert_eq!((output.status, output.stdout.as_str()), (255, ""), "{output}");
        assert!(output.stderr.contains("Host key verification failed"), "{output}");
        // Nor does a container of alice's start where nobody could reach it.
        let error = site.run(1, &[IMAGE, "echo", "ran"]).fails(125);
        let why = format!(
            "cannot start sshd in the container: user id {} has port 15263 of this node",
            bob.uid
        );
        assert!(error.contains(&why), "{error}");
        assert!(error.contains("hint: wait until that process has ended"), "{error}");
        assert_ne!(alice.uid, bob.uid);
    }
}

#[test]
fn a_port_where_nobody_listens_is_no_daemon_of_ones_own() {
    let site = site(Runtime::Crun).with_port(15263);
    let source = r#"
        #include <netinet/in.h>
        #include <stdio.h>
        #include <unistd.h>
        int main() {
            struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(15263)};
            int port = socket(AF_INET, SOCK_STREAM, 0);
            if (bind(port, (void *)&at, sizeof at) || puts("up") < 0 || fflush(stdout)) return 1;
            pause();
        }"#;
    let installation = &site.installation;
    let taker = installation.compile("take", source);
    let taker = installation.as_user(&installation.bob, taker, [""; 0]);
    let taker = site.start_command(1, site.network.on(1, &taker));
    let error = site.run(1, &[IMAGE, "echo", "ran"]).fails(125);
    let why = "cannot start sshd in the container: a process that does not listen has port 15263 of \
               this node";
    assert!(error.contains(why) && error.contains("use another node"), "{error}");
    // Who gives way in time does no harm.
    let late = site.command(1, &installation.alice, &[IMAGE, "ssh", "localhost", "hostname"]);
    let late = { late }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    taker.end("KILL");
    let late = late.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&late.stdout), "blue\n", "{late:?}");
}

#[test]
fn no_other_user_reaches_the_keys_in_a_container() {
    for runtime in Runtime::ALL {
        let site = site(runtime);
        let (alice, bob) = (&site.installation.alice, &site.installation.bob);
        let _blue = site.start(1, IMAGE);
        let modes = format!("stat -c '%n %a %u' {KEYS} {KEYS}/*; grep {KEYS} /proc/mounts");
        let seen = site.run(0, &[IMAGE, "ssh", "blue", &modes]).succeeds();
        for (name, mode) in [("", 700), ("/id_ed25519", 600), ("/ssh_host_ed25519_key", 600)] {
            let line = format!("{KEYS}{name} {mode} {}", alice.uid);
            assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
        }
        assert!(seen.contains("tmpfs rw,nosuid,nodev,noexec"), "{seen}");
        // Neither by path, nor through any of the processes, nor in its memory or words.
        let bundle = site.installation.prefix().join("var/OCIBundleDir");
        let mut tries = vec![format!("cat {}/id_ed25519", keys(&site, alice).display())];
        tries.push(format!("find {} -name '*ed25519*'", bundle.display()));
        tries.push(format!("ls {KEYS}"));
        for (pid, _) in site.network.processes(1) {
            for name in ["id_ed25519", "authorized_keys", "sshd_config", "sshd.log"] {
                tries.push(format!(
                    "cat /proc/{pid}/root{KEYS}/{name} /proc/{pid}/cwd{KEYS}/{name}"
                ));
            }
            tries.push(format!("cat /proc/{pid}/environ /proc/{pid}/mem /proc/{pid}/fd/*"));
            tries.push(format!("nsenter -t {pid} -m cat {KEYS}/id_ed25519"));
        }
        assert!(tries.len() > 15, "{tries:?}");
        for attempt in tries {
            let mut command =
                site.installation.as_user(bob, "timeout", ["5", "sh", "-c", &attempt]);
            let output = Output::of(&mut command);
            assert_eq!(output.stdout, "", "{attempt}");
        }
        // What users pass by the environment is in no command line.
        let mut secret = site.command(0, alice, &[IMAGE, "sh", "-c", WAIT]);
        secret.env("SECRET", "sesame");
        let _red = site.start_command(0, secret);
        let processes = site.network.processes(0);
        assert!(processes.iter().all(|(_, line)| !line.contains("sesame")), "{processes:?}");
    }
}

#[test]
fn images_lead_the_hook_nowhere() {
    for runtime in Runtime::ALL {
        let mut site = site(runtime);
        let outside = site.installation.path("outside");
        for directory in ["sarus/openssh/etc/userkeys", "bin"] {
            fs::create_dir_all(outside.join(directory)).unwrap();
        }
        fs::write(outside.join("bin/ssh"), "the host's").unwrap();
        fs::write(outside.join("passwd"), "root::0:0::/:/bin/sh\n").unwrap();
        let mount = format!(
            r#"[{{"type": "bind", "source": "{0}", "destination": "{0}"}}]"#,
            outside.display()
        );
        site.installation = site.installation.set("siteMounts", &mount);
        let before = snapshot(&outside);
        let at = |name: &str| outside.join(name);
        type Change<'a> = Box<dyn Fn(&Path) + 'a>;
        let images: Vec<(&str, Change<'_>)> = vec![
            ("opt-out", Box::new(|root| symlink(&outside, root.join("opt")).unwrap())),
            ("opt-up", Box::new(|root| symlink("../../../../..", root.join("opt")).unwrap())),
            ("opt-self", Box::new(|root| symlink("opt", root.join("opt")).unwrap())),
            ("opt-proc", Box::new(|root| symlink("/proc/1/root/tmp", root.join("opt")).unwrap())),
            ("opt-file", Box::new(|root| fs::write(root.join("opt"), "x").unwrap())),
            (
                "openssh-file",
                Box::new(|root| {
                    fs::create_dir_all(root.join("opt/sarus")).unwrap();
                    fs::write(root.join("opt/sarus/openssh"), "x").unwrap();
                }),
            ),
            (
                "keys-link",
                Box::new(|root| {
                    fs::create_dir_all(root.join("opt/sarus/openssh/etc")).unwrap();
                    let keys = root.join("opt/sarus/openssh/etc/userkeys");
                    symlink(at("sarus"), keys).unwrap();
                }),
            ),
            (
                "ssh-link",
                Box::new(|root| symlink(at("bin/ssh"), root.join("usr/bin/ssh")).unwrap()),
            ),
            (
                "bin-link",
                Box::new(|root| {
                    fs::remove_dir(root.join("usr/bin")).unwrap();
                    symlink(at("bin"), root.join("usr/bin")).unwrap();
                }),
            ),
            (
                "ssh-fifo",
                Box::new(|root| {
                    Output::of(Command::new("mkfifo").arg(root.join("usr/bin/ssh"))).succeeds();
                }),
            ),
            (
                "shell-link",
                Box::new(|root| {
                    fs::remove_file(root.join("bin/sh")).unwrap();
                    symlink("/proc/self/exe", root.join("bin/sh")).unwrap();
                }),
            ),
        ];
        for (name, change) in images {
            let image = site.image(name, change);
            let mut command =
                site.command(0, &site.installation.alice, &[&image, "busybox", "true"]);
            let output = Output::of(&mut command);
            assert!([0, 125].contains(&output.status), "{name} {output}");
            let told = output.status == 0 || output.stderr.starts_with("sarus: cannot ");
            assert!(told, "{name} {output}");
            assert_eq!(snapshot(&outside), before, "{name}");
        }
    }
}

#[test]
fn keys_never_lie_in_a_directory_that_users_mount() {
    for runtime in Runtime::ALL {
        let site = site(runtime);
        let alice = &site.installation.alice;
        let own = site.installation.path("home/alice/own");
        for directory in ["opt", "bin", "etc"] {
            fs::create_dir_all(own.join(directory)).unwrap();
            give(&own.join(directory), alice);
        }
        give(&own, alice);
        fs::write(own.join("etc/passwd"), format!("alice:x:{}:1::/:/none\n", alice.uid)).unwrap();
        fs::write(own.join("bin/ssh"), "alice's").unwrap();
        let mounts = [("opt", "/opt"), ("bin", "/usr/bin"), ("etc", "/etc")].map(|(from, to)| {
            format!("--mount=type=bind,source={},destination={to}", own.join(from).display())
        });
        let mut args: Vec<_> = mounts.iter().map(String::as_str).collect();
        args.extend([IMAGE, "sh", "-c", "cat /etc/passwd; ssh 127.0.0.1 hostname; ls /opt/sarus"]);
        let output = site.run(0, &args);
        let seen = output.clone().succeeds();
        assert!(seen.ends_with(":/bin/sh\nred\nopenssh\n"), "{output}");
        let found = Output::of(Command::new("find").arg(&own).args(["-type", "f"])).succeeds();
        let mut found: Vec<_> = found.lines().collect();
        found.sort();
        // What the hook had to make there, as alice, is empty.
        let expected = ["bin/ssh", "etc/passwd"].map(|name| own.join(name).display().to_string());
        assert_eq!(found, expected);
        assert_eq!(fs::read_to_string(own.join("bin/ssh")).unwrap(), "alice's");
        assert!(fs::read_to_string(own.join("etc/passwd")).unwrap().ends_with("/none\n"));
        // A link there is the host's, and stays.
        fs::remove_file(own.join("bin/ssh")).unwrap();
        symlink("/bin/busybox", own.join("bin/ssh")).unwrap();
        let error = site.run(0, &args).fails(125);
        assert!(error.contains("ssh is a link in a directory of the host"), "{error}");
        assert!(fs::symlink_metadata(own.join("bin/ssh")).unwrap().is_symlink());
    }
}

/// A bundle for runtimes without an engine, with the hook.
fn bundle(site: &Site, user: &User) -> Bundle {
    let prefix = site.installation.prefix();
    let env = site.installation.ssh_settings();
    let place = site.installation.path("bundle");
    fs::remove_dir_all(&place).ok();
    let mut bundle =
        Bundle::busybox(place, user, &["sh", "-c", &format!("{SSHD}ssh 127.0.0.1 id -u")]);
    bundle = bundle.annotation("com.hooks.ssh.enabled", "true");
    bundle = bundle.prestart(&prefix.join("bin/ssh_hook"), &env);
    bundle.config["hooks"]["prestart"][0]["args"] = serde_json::json!(["ssh_hook", "start-sshd"]);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let tmpfs = serde_json::json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"});
    mounts.push(tmpfs);
    bundle
}

#[test]
fn the_hook_starts_nothing_in_the_container() {
    let site = site(Runtime::Runc);
    let alice = &site.installation.alice;
    for runtime in Runtime::ALL {
        let mut bundle = bundle(&site, alice);
        let rootfs = bundle.directory.join("rootfs");
        fs::copy(site.installation.prefix().join("etc/passwd"), rootfs.join("etc/passwd")).unwrap();
        Output::of(Command::new("chown").arg("-R").arg(alice.uid.to_string()).arg(&rootfs))
            .succeeds();
        let on_red = |bundle: &Bundle| {
            let mut command = bundle.command(runtime);
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            Output::of(&mut site.network.on(0, &command))
        };
        // What the container's own command starts is as good.
        let output = on_red(&bundle);
        assert_eq!(output.clone().succeeds(), format!("{}\n", alice.uid), "{output}");
        bundle.config["process"]["args"][2] = "ps -o comm; ls /opt/sarus/openssh/sbin".into();
        let output = on_red(&bundle).succeeds();
        assert_eq!(output.matches("sshd").count(), 1, "{output}");
        assert_eq!(site.network.processes(0), []);
    }
}

#[test]
fn logins_do_not_have_the_keys_of_who_starts_the_container() {
    let site = site(Runtime::Runc);
    let source = r#"
        #include <linux/keyctl.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "admins");
            syscall(SYS_add_key, "user", "admins-secret", "x", 1, KEY_SPEC_SESSION_KEYRING);
            return execvp(argv[1], argv + 1);
        }"#;
    let admin = site.installation.compile("admin", source);
    let mut bundle = bundle(&site, &site.installation.alice);
    let rootfs = bundle.directory.join("rootfs");
    fs::copy(site.installation.prefix().join("etc/passwd"), rootfs.join("etc/passwd")).unwrap();
    let look = Output::of(Command::new(&admin).args(["cat", "/proc/keys"])).succeeds();
    assert!(look.contains("admins-secret"), "{look}");
    bundle.config["process"]["args"][2] =
        format!("{SSHD}ssh 127.0.0.1 'cat /proc/keys; echo end'").into();
    for runtime in Runtime::ALL {
        let command = bundle.command(runtime);
        let mut started = Command::new(&admin);
        started.arg(command.get_program()).args(command.get_args());
        started.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let seen = Output::of(&mut site.network.on(0, &started)).succeeds();
        assert!(seen.ends_with("end\n") && !seen.contains("admins"), "{seen}");
    }
}

#[test]
fn root_gets_no_daemon() {
    let site = site(Runtime::Runc);
    let root = User::root();
    fs::create_dir(site.installation.path("home/root")).unwrap();
    site.installation.load(&root, &Image::busybox(), "bb");
    site.installation.sarus(&root, &["ssh-keygen"]).succeeds();
    let output = Output::of(&mut site.command(0, &root, &[IMAGE, "true"]));
    let error = output.fails(125);
    assert!(error.contains("cannot start sshd for root"), "{error}");
    assert_eq!(site.network.processes(0), []);
}

#[test]
fn openssh_that_others_can_change_is_not_used() {
    let site = site(Runtime::Runc);
    let openssh = site.installation.prefix().join("openssh");
    let sshd = openssh.join("sbin/sshd");
    let mode = |mode| fs::set_permissions(&sshd, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o775);
    let error = site.run(0, &[IMAGE, "true"]).fails(125);
    assert!(error.contains("sbin/sshd is writable for its group"), "{error}");
    mode(0o755);
    // One that takes what it loads from the image is none.
    fs::copy("/bin/true", &sshd).unwrap();
    let error = site.run(0, &[IMAGE, "true"]).fails(125);
    assert!(error.contains("not statically linked"), "{error}");
    fs::remove_dir_all(&openssh).unwrap();
    let error = site.run(0, &[IMAGE, "true"]).fails(125);
    assert!(
        error.contains("sbin/sshd") && error.contains("'make openssh' builds OpenSSH"),
        "{error}"
    );
    // Who does not ask for it does not miss it.
    let alice = &site.installation.alice;
    site.installation.sarus(alice, &["run", IMAGE, "true"]).succeeds();
}

#[test]
fn a_user_who_calls_the_hook_starts_nothing() {
    let site = site(Runtime::Runc);
    let (alice, bob) = (&site.installation.alice, &site.installation.bob);
    let _blue = site.start(1, IMAGE);
    let bundle = bundle(&site, alice);
    fs::write(bundle.directory.join("config.json"), bundle.config.to_string()).unwrap();
    let prefix = site.installation.prefix();
    for user in [alice, bob] {
        for (pid, _) in site.network.processes(1) {
            let script = format!(
                r#"echo '{{"ociVersion":"1.0","id":"x","status":"creating","pid":{pid},"bundle":"{}"}}' |
                   {}/bin/ssh_hook start-sshd"#,
                bundle.directory.display(),
                prefix.display()
            );
            let mut command = site.installation.as_user(user, "sh", ["-c", &script]);
            command.env("HOOK_BASE_DIR", site.installation.path("home"));
            command.env("PASSWD_FILE", prefix.join("etc/passwd"));
            command.env("OPENSSH_DIR", prefix.join("openssh"));
            let output = Output::of(&mut command);
            assert!(output.clone().fails(1).starts_with("sarus: "), "{output}");
        }
    }
    let daemons = site.network.processes(1);
    let daemons = daemons.iter().filter(|(_, command)| command.starts_with("sshd:"));
    assert_eq!(daemons.count(), 1);
}
