//! The stages of a start: who could get into the container before its program starts, and what
//! becomes of one whose mounts have changed until then.

use super::*;
use serde_json::{Value, json};
use std::process::Child;

/// Looks for processes with another root directory or mount namespace that whoever runs it can enter:
/// prints `early`, and what it found, as long as the file `argv[1]` is missing, else `late`. Ends with
/// the file `argv[2]`.
const WATCHER: &str = r#"
    #include <dirent.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        struct stat own, other, own_mounts, mounts;
        char path[300], line[200];
        stat("/", &own);
        stat("/proc/self/ns/mnt", &own_mounts);
        setbuf(stdout, NULL);
        puts("watching");
        while (access(argv[2], F_OK)) {
            DIR *all = opendir("/proc");
            struct dirent *entry;
            while ((entry = readdir(all))) {
                if (atoi(entry->d_name) <= 0) continue;
                snprintf(path, sizeof path, "/proc/%s/root/.", entry->d_name);
                int early = access(argv[1], F_OK);
                if (stat(path, &other)) continue;
                snprintf(path, sizeof path, "/proc/%s/ns/mnt", entry->d_name);
                int same = own.st_dev == other.st_dev && own.st_ino == other.st_ino;
                if (same && !stat(path, &mounts) && mounts.st_ino == own_mounts.st_ino) continue;
                early = early && access(argv[1], F_OK);
                snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
                FILE *words = fopen(path, "r");
                memset(line, 0, sizeof line);
                if (words) fread(line, 1, sizeof line - 1, words), fclose(words);
                printf("%s %s\n", early ? "early" : "late", line);
            }
            closedir(all);
        }
        return 0;
    }"#;

/// A hook of root's that is a shell script.
fn script(installation: &Installation, name: &str, text: &str) -> PathBuf {
    let path = installation.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn watcher(installation: &Installation, program: &Path, done: &Path, end: &Path) -> Child {
    let mut watcher = installation.as_user(&installation.alice, program, [done, end]);
    watcher.stdout(Stdio::piped()).spawn().unwrap()
}

/// The same command on a terminal of its own: script(1).
fn on_terminal(command: &Command) -> Command {
    let quote =
        |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.into_iter().map(quote).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script
}

#[test]
fn nobody_gets_into_a_container_before_the_last_hook_has_ended() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_ssh().runtime(runtime);
        let alice = &installation.alice;
        installation.load(alice, &Image::busybox(), "bb");
        let done = installation.path("tmp/done");
        let slow = script(&installation, "slow", "sleep 0.2");
        let last = script(&installation, "last", &format!("sleep 0.2; touch {}", done.display()));
        let mut hooks: Value = serde_json::from_str(&installation.ssh_hooks()).unwrap();
        for (stage, path) in
            [("prestart", &slow), ("createRuntime", &slow), ("createContainer", &last)]
        {
            let list = hooks.as_object_mut().unwrap().entry(stage).or_insert(json!([]));
            list.as_array_mut().unwrap().push(json!({"path": path}));
        }
        let installation = installation.set("OCIHooks", &hooks.to_string());
        let alice = &installation.alice;
        installation.sarus(alice, &["ssh-keygen"]).succeeds();
        let program = installation.compile("watcher", WATCHER);
        for options in [&["--ssh"][..], &["--ssh", "-t"], &[], &["--pid=host"], &["--init"]] {
            let end = installation.path("tmp/end");
            let watcher = watcher(&installation, &program, &done, &end);
            let args = [&["run"], options, &[IMAGE, "sleep", "0.5"]].concat();
            let mut sarus = installation.sarus_command(alice, &args);
            if options.contains(&"-t") {
                sarus = on_terminal(&sarus);
            }
            let output = Output::of(&mut sarus);
            fs::write(&end, "").unwrap();
            let seen = watcher.wait_with_output().unwrap().stdout;
            fs::remove_file(&end).unwrap();
            fs::remove_file(&done).unwrap_or_else(|_| panic!("{runtime:?} {options:?} {output}"));
            let seen = String::from_utf8_lossy(&seen);
            assert!(!seen.contains("early"), "{runtime:?} {options:?}: {seen}");
            // The program itself is the user's own.
            assert!(seen.contains("late"), "{runtime:?} {options:?}: {seen} {output}");
        }
    }
}

/// A hook may wait long for other tasks, with the user's rights.
#[test]
fn nobody_gets_in_while_tasks_wait_for_each_other() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_ssh().runtime(runtime);
        installation.load(&installation.alice, &Image::busybox(), "bb");
        let timeout = "\"SYNC_TIMEOUT=1\",\"PASSWD_FILE=";
        let hooks = installation.ssh_hooks().replace("\"PASSWD_FILE=", timeout);
        let mut hooks: Value = serde_json::from_str(&hooks).unwrap();
        let stamp = installation.prefix().join("bin/timestamp_hook");
        hooks["prestart"].as_array_mut().unwrap().insert(0, json!({"path": stamp}));
        let installation = installation.set("OCIHooks", &hooks.to_string());
        installation.sarus(&installation.alice, &["ssh-keygen"]).succeeds();
        let program = installation.compile("watcher", WATCHER);
        let (done, end) = (installation.path("tmp/done"), installation.path("tmp/end"));
        let watcher = watcher(&installation, &program, &done, &end);
        let args = ["run", "--ssh", IMAGE, "true"];
        let mut sarus = installation.sarus_command(&installation.alice, &args);
        for (name, value) in [("JOB_ID", "1"), ("STEP_ID", "0"), ("NTASKS", "2"), ("PROCID", "0")] {
            sarus.env(format!("SLURM_{name}"), value);
        }
        sarus.env("TIMESTAMP_HOOK_LOGFILE", installation.path("tmp/times"));
        let output = Output::of(&mut sarus);
        fs::write(&end, "").unwrap();
        let seen = watcher.wait_with_output().unwrap().stdout;
        let seen = String::from_utf8_lossy(&seen);
        assert!(!seen.contains("early"), "{runtime:?}: {seen} {output}");
        let text = output.fails(125);
        assert!(text.contains("these ranks have not arrived: 1"), "{runtime:?} {text}");
    }
}

#[test]
fn a_mount_that_vanishes_before_the_start_ends_the_run() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let own = installation.path("home/alice/own");
        fs::create_dir(&own).unwrap();
        let rootfs = installation.prefix().join("var/OCIBundleDir/rootfs");
        let rootfs = rootfs.display();
        for (change, told) in [
            (format!("umount -l {rootfs}/dev"), "/dev"),
            (format!("mount --bind {} {rootfs}/dev", own.display()), "/dev"),
            (format!("mount -t tmpfs x {rootfs}/dev"), "/dev"),
            (format!("umount -l {rootfs}/proc"), "/proc"),
            (format!("mount --bind {} {rootfs}/proc", own.display()), "/proc"),
            (format!("umount -l {rootfs}/sys"), "/sys"),
            (format!("mount --bind {} {rootfs}", own.display()), "/"),
        ] {
            for stage in ["prestart", "createRuntime", "createContainer"] {
                // In the last of them the hook is in the container's mount namespace already.
                let enter = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')"#;
                let text = match stage {
                    "createContainer" => change.clone(),
                    _ => format!("{enter}; nsenter --target $pid --mount {change}"),
                };
                let hook = script(&installation, "hook", &format!("{text} || exit 9"));
                let hooks = json!({stage: [{
                    "path": hook,
                    "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                }]});
                let config = installation.config_file();
                let before = fs::read_to_string(&config).unwrap();
                let line = format!(",\n\"OCIHooks\": {hooks}\n}}");
                fs::write(&config, before.trim_end().trim_end_matches('}').to_owned() + &line)
                    .unwrap();
                let output = run(&installation, &[IMAGE, "echo", "started"]);
                fs::write(&config, before).unwrap();
                assert_eq!(output.stdout, "", "{runtime:?} {stage} {change}: {output}");
                let text = output.fails(125);
                let why = format!("the mount on {told} is not the one that was made");
                assert!(
                    text.contains(&why) || text.contains("cannot open the container's /"),
                    "{runtime:?} {stage} {change}: {text}"
                );
            }
        }
    }
}

#[test]
fn what_a_hook_lifts_is_restricted_before_the_program_starts() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let rootfs = installation.prefix().join("var/OCIBundleDir/rootfs");
        let lift = format!("mount -o remount,bind,suid,dev {}", rootfs.display());
        let hook = script(&installation, "hook", &lift);
        let hooks = json!({"createContainer": [{
            "path": hook,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        }]});
        let installation = installation.set("OCIHooks", &hooks.to_string());
        let flags = "grep -E '^[^ ]+ / ' /proc/mounts";
        let output = run(&installation, &[IMAGE, "sh", "-c", flags]);
        assert!(output.clone().succeeds().contains("nosuid,nodev"), "{runtime:?} {output}");
    }
}
