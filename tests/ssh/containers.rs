//! SSH between the containers of a user, on two hosts: what users see.

use crate::support::hostile::{field, wait_until};
use crate::support::net::{ADDRESSES, HOSTS};
use crate::support::ssh::{Site, WAIT};
use crate::support::{IMAGE, Image, Installation, Output, Runtime, User};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a user's own `ssh` is in images that have one.
const OWN: &str = "#!/bin/sh\necho own\n";

#[test]
fn containers_on_two_hosts_reach_each_other_without_a_question() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let _blue = site.start(1, IMAGE);
        for target in [HOSTS[1], ADDRESSES[1]] {
            let output = site.run(0, &[IMAGE, "ssh", target, "hostname; id -u"]);
            let expected = format!("blue\n{}\n", site.installation.alice.uid);
            assert_eq!(output.clone().succeeds(), expected, "{runtime:?} {output}");
            // The home that /etc/passwd names is not in this container.
            let lines = output.stderr.lines();
            assert_eq!(lines.filter(|line| !line.starts_with("Could not chdir")).count(), 0);
        }
        // From a container to itself, and on to the other and back.
        let there_and_back = "ssh blue ssh red ssh blue hostname; exit 7";
        let output = site.run(0, &[IMAGE, "ssh", "localhost", there_and_back]);
        assert_eq!((output.status, output.stdout.as_str()), (7, "blue\n"), "{output}");
    }
}

#[test]
fn the_daemon_and_its_logins_have_no_more_rights_than_the_container() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let alice = &site.installation.alice;
        let _blue = site.start(1, IMAGE);
        let login = site.run(0, &[IMAGE, "ssh", "blue", "cat /proc/self/status"]).succeeds();
        let daemons = site.network.processes(1).into_iter();
        let daemons = daemons.filter(|(_, name)| name.starts_with("sshd"));
        let daemons = daemons.map(|(pid, _)| fs::read_to_string(format!("/proc/{pid}/status")));
        let daemons: Vec<_> = daemons.map(Result::unwrap).collect();
        assert_eq!(daemons.len(), 1);
        for status in daemons.iter().chain([&login]) {
            let (uid, groups) = (alice.uid, &alice.groups);
            assert_eq!(field(status, "Uid"), format!("{uid} {uid} {uid} {uid}"), "{runtime:?}");
            assert_eq!(field(status, "Gid"), format!("{uid} {uid} {uid} {uid}"));
            assert_eq!(field(status, "Groups"), format!("{} {}", groups[0], groups[1]));
            assert_eq!(field(status, "NoNewPrivs"), "1");
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(status, set), "0000000000000000", "{set} {status}");
            }
        }
        // All are in the container's namespaces, and below its root.
        let look = "for name in ns/pid ns/mnt ns/net root
                    do for pid in /proc/[0-9]*; do readlink $pid/$name; done | sort -u; done";
        let seen = site.run(0, &[IMAGE, "ssh", "blue", look]).succeeds();
        assert_eq!((seen.lines().count(), seen.ends_with("\n/\n")), (4, true), "{seen}");
    }
}

#[test]
fn logins_find_the_containers_environment_but_not_its_task() {
    let site = Site::new(Runtime::Crun);
    let alice = &site.installation.alice;
    site.installation.load(alice, &Image::busybox().env("FROM=the image").env("PMI_RANK=7"), "env");
    let script = ["load/library/env", "sh", "-c", WAIT];
    let mut command = site.command(1, alice, &script);
    command.env("QUOTE", "a \"b\" \\c 'd' $E #").env("SLURM_PROCID", "3").env("TWO", "a\nb");
    command.env("PATH", "/some/where:/bin");
    let blue = site.start_command(1, command);
    let seen = site.run(0, &[IMAGE, "ssh", "blue", "env"]).succeeds();
    for line in ["FROM=the image", "QUOTE=a \"b\" \\c 'd' $E #", "PATH=/some/where:/bin"] {
        assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
    }
    for name in ["PMI_RANK", "SLURM_PROCID", "TWO"] {
        assert!(!seen.contains(name), "{seen}");
    }
    // One that sshd cannot take does not keep anybody out.
    blue.end("TERM");
    let mut long = site.command(1, alice, &[IMAGE, "ssh", "localhost", "env"]);
    long.env("A", "x".repeat(100_000)).env("B", "x".repeat(100_000));
    let mut many = site.command(1, alice, &[IMAGE, "ssh", "localhost", "env"]);
    many.envs((0..1000).map(|number| (format!("VARIABLE{number}"), "x")));
    for mut command in [long, many] {
        let output = Output::of(&mut command);
        assert!(output.stderr.contains("the environment is too large"), "{output}");
        assert!(output.clone().succeeds().contains("SSH_CONNECTION="), "{output}");
    }
}

#[test]
fn logins_have_the_umask_of_the_container() {
    let site = Site::new(Runtime::Crun);
    let installation = &site.installation;
    for (umask, expected) in [("077", "0077\n"), ("027", "0027\n"), ("002", "0022\n")] {
        let enter = format!("umask {umask}; exec \"$@\"");
        let sarus = site.command(1, &installation.alice, &[IMAGE, "sh", "-c", WAIT]);
        let mut command = Command::new("sh");
        command.args(["-c", &enter, "sh"]).arg(sarus.get_program()).args(sarus.get_args());
        command.env_clear().envs(sarus.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let blue = site.start_command(1, command);
        let seen = site.run(0, &[IMAGE, "ssh", "blue", "umask"]).succeeds();
        // sshd itself lets nobody be more generous than that.
        assert_eq!(seen, expected);
        blue.end("TERM");
    }
}

#[test]
fn the_sites_user_database_may_be_large() {
    let site = Site::new(Runtime::Crun);
    let passwd = site.installation.prefix().join("etc/passwd");
    // So that the container gets a copy.
    let mut text = fs::read_to_string(&passwd).unwrap().replace("/bin/sh", "/none");
    for number in 0..80_000 {
        text += &format!("user{number}:x:{}:9:Some user of the site:/home:/none\n", 1u32 << 31);
    }
    fs::write(&passwd, text).unwrap();
    let look = "ssh localhost 'grep -c :/bin/sh /etc/passwd; wc -c </etc/passwd'";
    let seen = site.run(0, &[IMAGE, "sh", "-c", look]).succeeds();
    let (shells, bytes) = seen.trim_end().split_once('\n').unwrap();
    assert!(shells == "1" && bytes.parse::<u64>().unwrap() > 4 << 20, "{seen}");
}

#[test]
fn a_login_can_have_a_terminal() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let _blue = site.start(1, IMAGE);
        let output = site.run(0, &[IMAGE, "ssh", "-tt", "blue", "tty; [ -t 0 ] && echo is one"]);
        let seen = output.clone().succeeds();
        assert!(seen.contains("\n/dev/pts/") && seen.contains("\nis one"), "{output}");
    }
}

#[test]
fn the_daemon_ends_with_its_container_however_that_ends() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        for signal in ["TERM", "KILL"] {
            let blue = site.start(1, IMAGE);
            let red = site.start_as(
                0,
                &site.installation.alice,
                &[IMAGE, "ssh", "blue", "echo up; exec sleep 2000"],
            );
            let logged_in = || {
                let processes = site.network.processes(1);
                processes.iter().any(|(_, command)| command == "sleep 2000")
            };
            wait_until("the login", logged_in);
            drop(red);
            blue.end(signal);
        }
        // By itself: the port is free at once.
        for _ in 0..3 {
            let output = site.run(1, &[IMAGE, "ssh", "localhost", "hostname"]);
            assert_eq!(output.clone().succeeds(), "blue\n", "{output}");
            assert!(!output.stderr.contains("WARN"), "{output}");
            assert_eq!(site.network.processes(1), []);
        }
    }
}

#[test]
fn a_start_that_is_killed_at_any_moment_leaves_nothing() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let alice = &site.installation.alice;
        for moment in 0..24 {
            let mut engine = site.command(0, alice, &[IMAGE, "sleep", "3000"]).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(moment * 4));
            engine.kill().unwrap();
            engine.wait().unwrap();
            wait_until("the end of all", || site.network.processes(0).is_empty());
        }
        let output = site.run(0, &[IMAGE, "ssh", "red", "hostname"]);
        assert_eq!(output.clone().succeeds(), "red\n", "{output}");
        assert!(!output.stderr.contains("WARN"), "{output}");
    }
}

#[test]
fn a_start_that_fails_behind_the_daemon_ends() {
    for runtime in Runtime::ALL {
        let mut site = Site::new(runtime);
        let mut hooks: serde_json::Value =
            serde_json::from_str(&site.installation.ssh_hooks()).unwrap();
        let late = serde_json::json!({
            "path": site.installation.prefix().join("bin/timestamp_hook"),
            "env": ["TIMESTAMP_HOOK_MESSAGE=late"],
        });
        hooks["prestart"].as_array_mut().unwrap().push(late);
        site.installation = site.installation.set("OCIHooks", &hooks.to_string());
        let mut sarus = site.command(0, &site.installation.alice, &[IMAGE, "echo", "ran"]);
        sarus.env("TIMESTAMP_HOOK_LOGFILE", "/etc/times");
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "20"]).arg(sarus.get_program()).args(sarus.get_args());
        command.env_clear();
        command.envs(sarus.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let error = Output::of(&mut command).fails(125);
        assert!(error.contains("cannot write a timestamp to /etc/times"), "{error}");
        wait_until("the end of all", || site.network.processes(0).is_empty());
    }
}

#[test]
fn the_second_container_on_a_node_says_so_and_goes_on() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let _first = site.start(0, IMAGE);
        let _blue = site.start(1, IMAGE);
        let output = site.run(0, &[IMAGE, "ssh", "blue", "hostname"]);
        assert_eq!(output.clone().succeeds(), "blue\n", "{output}");
        let port = site.port(&site.installation.alice);
        let said = format!(
            "[SSH hook] [WARN] sshd not started: another container of yours has port {port} of this \
             node, and logins to this node lead there"
        );
        assert!(output.stderr.contains(&said), "{output}");
    }
}

#[test]
fn of_many_containers_that_start_at_once_one_has_the_daemon() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let rank = |_| {
            let script = "sleep 2; ssh red hostname; sleep 2";
            let alice = &site.installation.alice;
            let mut rank = site.command(0, alice, &[IMAGE, "sh", "-c", script]);
            rank.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let ranks: Vec<_> = (0..6).map(rank).collect();
        let mut without = 0;
        for rank in ranks {
            let output = rank.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "red\n", "{text}");
            without += usize::from(text.contains("sshd not started"));
        }
        assert_eq!(without, 5, "{runtime:?}");
    }
}

#[test]
fn the_program_is_not_the_parent_of_the_daemon() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        // A program that waits for all of its children would wait for ever.
        let script =
            "sleep 0.1 & wait; echo $(cat /proc/self/task/$$/children); ps -o comm | head -2";
        let seen = site.run(0, &[IMAGE, "sh", "-c", script]).succeeds();
        assert!(seen.contains("init\n"), "{runtime:?} {seen}");
        assert!(!seen.lines().next().unwrap().contains(' '), "{runtime:?} {seen}");
    }
}

#[test]
fn images_of_all_kinds_can_be_logged_in_to() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let program = |path: &Path| {
            fs::write(path, OWN).unwrap();
            fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        let images = [
            site.image("no-usr-bin", |root| fs::remove_dir_all(root.join("usr")).unwrap()),
            site.image("own-ssh", |root| program(&root.join("usr/bin/ssh"))),
            site.image("link", |root| {
                // As images have it whose programs are all one.
                fs::copy(root.join("bin/busybox"), root.join("usr/bin/multi")).unwrap();
                symlink("multi", root.join("usr/bin/ssh")).unwrap();
                symlink("multi", root.join("usr/bin/hostname")).unwrap();
            }),
            site.image("dangling", |root| symlink("/gone", root.join("usr/bin/ssh")).unwrap()),
            site.image("merged", |root| {
                fs::remove_dir(root.join("usr/bin")).unwrap();
                fs::rename(root.join("bin"), root.join("usr/bin")).unwrap();
                symlink("usr/bin", root.join("bin")).unwrap();
            }),
            site.image("locked", |root| {
                // As in images that were made with an account of the user's name.
                fs::write(root.join("etc/shadow"), "alice:!:19000:0:99999:7:::\n").unwrap();
            }),
            site.image("open", |root| {
                // Directories that sshd would not like above its keys.
                fs::create_dir_all(root.join("opt/sarus/openssh/etc")).unwrap();
                for directory in ["opt/sarus/openssh/etc", "opt/sarus", "opt", ""] {
                    let mode = PermissionsExt::from_mode(0o777);
                    fs::set_permissions(root.join(directory), mode).unwrap();
                }
            }),
        ];
        for name in &images {
            let blue = site.start(1, name);
            let output = site.run(0, &[name, "ssh", "blue", "hostname"]);
            assert_eq!(output.clone().succeeds(), "blue\n", "{name} {output}");
            blue.end("TERM");
        }
        let kept = site.run(0, &[&images[2], "hostname"]).succeeds();
        assert_eq!(kept, "red\n");
        let directory = site.image("directory", |root| {
            fs::create_dir(root.join("usr/bin/ssh")).unwrap();
        });
        let error = site.run(0, &[&directory, "true"]).fails(125);
        assert!(error.contains("the container's /usr/bin/ssh is not a regular file"), "{error}");
    }
}

#[test]
fn a_shell_that_the_image_lacks_is_replaced_or_missed() {
    for runtime in Runtime::ALL {
        let site = Site::new(runtime);
        let passwd = site.installation.prefix().join("etc/passwd");
        let text = fs::read_to_string(&passwd).unwrap().replace("/bin/sh", "/usr/bin/zsh");
        // Databases are older than UTF-8.
        fs::write(&passwd, [text.as_bytes(), b"bjorn:x:9:9:Bj\xf6rn:/:/none\n"].concat()).unwrap();
        let blue = site.start(1, IMAGE);
        let look = "grep alice /etc/passwd; grep -c zsh /etc/passwd; echo $SHELL";
        let seen = site.run(0, &[IMAGE, "ssh", "blue", look]).succeeds();
        // The others' are not its business.
        assert!(seen.contains("/home/alice:/bin/sh\n2\n/bin/sh\n"), "{seen}");
        blue.end("TERM");
        let none = site.image("none", |root| fs::remove_file(root.join("bin/sh")).unwrap());
        let output = site.run(1, &[&none, "ls", "/opt/sarus/openssh/bin"]);
        assert_eq!(output.clone().succeeds(), "ssh\nssh-keygen\n", "{output}");
        let said = "[WARN] nobody can log in to this container: the image has no shell";
        assert!(output.stderr.contains(said), "{output}");
        // It can still log in to others.
        let _blue = site.start(1, IMAGE);
        assert_eq!(site.run(0, &[&none, "ssh", "blue", "hostname"]).succeeds(), "blue\n");
    }
}

#[test]
fn any_recent_ssh_can_log_in_with_the_users_key() {
    let site = Site::new(Runtime::Runc);
    let alice = &site.installation.alice;
    let _blue = site.start(1, IMAGE);
    let keys = site.installation.path("home/alice/.oci-hooks/ssh/keys");
    // Debian's client knows its caller by the host's user database, which has no alice.
    let copy = site.installation.path("key");
    fs::copy(keys.join("id_ed25519"), &copy).unwrap();
    let known = site.installation.path("known");
    let public = fs::read_to_string(keys.join("ssh_host_ed25519_key.pub")).unwrap();
    let number = site.port(alice).to_string();
    fs::write(&known, format!("[blue]:{number} {public}")).unwrap();
    let file = site.installation.path("tmp/file");
    let client = |program: &str, port: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]);
        command.arg(format!("-oUserKnownHostsFile={}", known.display()));
        command.arg("-i").arg(&copy).args([port, &number]).args(args).env("PATH", "/usr/bin:/bin");
        Output::of(&mut site.network.on(0, &command))
    };
    let shown = client("ssh", "-p", &["alice@blue", "id -u; cat >/tmp/it; wc -c </tmp/it"]);
    assert_eq!(shown.succeeds(), format!("{}\n0\n", alice.uid));
    let path = file.to_str().unwrap();
    client("scp", "-P", &["alice@blue:/etc/os-release", path]).succeeds();
    assert_eq!(fs::read(&file).unwrap(), fs::read("/etc/os-release").unwrap());
}

#[test]
fn without_keys_a_run_ends_before_anything_is_set_up() {
    let installation = Installation::with_ssh();
    let hooks = installation.ssh_hooks();
    installation.load(&installation.alice, &Image::busybox(), "bb");
    let alice = &installation.alice;
    let run = || installation.sarus(alice, &["run", "--ssh", IMAGE, "echo", "ran"]).fails(125);
    assert_eq!(
        run(),
        "sarus: cannot use SSH: this site configured no ssh_hook\n\
         hint: the administrator names it in OCIHooks of sarus.json\n"
    );
    let installation = installation.set("OCIHooks", &hooks);
    let alice = &installation.alice;
    let sarus = |args: &[&str]| installation.sarus(alice, args);
    let keys = installation.path("home/alice/.oci-hooks/ssh/keys");
    let check = installation.prefix().join("bin/ssh_hook");
    let check = |user: &User| {
        let mut command = installation.as_user(user, &check, ["check-user-has-sshkeys"]);
        command.env("HOOK_BASE_DIR", installation.path("home"));
        Output::of(command.env("PASSWD_FILE", installation.prefix().join("etc/passwd")))
    };
    let missing = format!(
        "sarus: failed to check the SSH keys: {} has no ssh_host_ed25519_key\n\
         hint: try to generate the SSH keys with 'sarus ssh-keygen'\n",
        keys.display()
    );
    // Not even the image is looked for.
    assert_eq!(sarus(&["run", "--ssh", "nowhere", "true"]).fails(125), missing);
    assert_eq!(check(alice).fails(1), missing);
    assert_eq!(sarus(&["ssh-keygen"]).succeeds(), "Successfully generated SSH keys\n");
    check(alice).succeeds();
    check(&installation.bob).fails(1);
    assert_eq!(
        sarus(&["run", "--ssh", "nowhere", "true"]).fails(125).matches("nowhere").count(),
        1
    );
}
