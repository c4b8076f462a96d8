//! `seccompProfile` of sarus.json: with the built-in runtime the engine installs the filter, else the OCI
//! runtime.

use super::*;
use std::path::PathBuf;

/// Gives the installation a profile of its own; `mode` is that of the file.
fn with_profile(installation: Installation, profile: &str, mode: u32) -> Installation {
    let path = installation.prefix().join("etc/seccomp.json");
    fs::write(&path, profile).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    installation.set("seccompProfile", &format!("{path:?}"))
}

/// The built-in profile on `runtime`, where the site has to choose it if that is an OCI runtime.
fn confined(runtime: Runtime) -> Installation {
    let installation = Installation::with_busybox(runtime);
    match runtime {
        Runtime::Builtin => installation,
        _ => installation.set("seccompProfile", "\"default\""),
    }
}

/// Compiles `text`, in C, to a static program that containers can mount.
fn program(installation: &Installation, text: &str) -> PathBuf {
    let source = installation.path("images/program.c");
    fs::write(&source, text).unwrap();
    let program = source.with_extension("");
    let mut gcc = Command::new("gcc");
    Output::of(gcc.arg("-static").arg(&source).arg("-o").arg(&program)).succeeds();
    program
}

/// Runs `program`, a file of the host, in a container.
fn run_mounted(installation: &Installation, program: &Path) -> Output {
    let mount = format!("--mount=type=bind,source={},destination=/program", program.display());
    installation.sarus(&installation.alice, &["run", &mount, IMAGE, "/program"])
}

#[test]
fn only_the_built_in_runtime_filters_if_the_site_chooses_nothing() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let shown = ["run", IMAGE, "grep", "Seccomp:", "/proc/self/status"];
        let shown = installation.sarus(&installation.alice, &shown).succeeds();
        let expected = if runtime == Runtime::Builtin { "Seccomp:\t2\n" } else { "Seccomp:\t0\n" };
        assert_eq!(shown, expected, "{runtime:?}");
    }
}

#[test]
fn the_built_in_profile_refuses_namespaces_to_a_container_unless_the_site_switches_it_off() {
    for runtime in Runtime::ALL {
        let confined = confined(runtime);
        // A user namespace gives all capabilities inside, and with them most of the kernel's code.
        let attack = ["run", IMAGE, "unshare", "-U", "echo", "inside"];
        let error = confined.sarus(&confined.alice, &attack).fails(1);
        assert!(error.contains("Operation not permitted"), "{runtime:?}: {error}");
        let harmless = "mkdir /tmp/a && cat /proc/self/status && (echo one; echo two) | sort -r";
        let shown = confined.sarus(&confined.alice, &["run", IMAGE, "sh", "-c", harmless]);
        let shown = shown.succeeds();
        assert!(shown.ends_with("two\none\n") && shown.contains("Seccomp:\t2"), "{shown}");
        let open = confined.set("seccompProfile", "\"unconfined\"");
        assert_eq!(open.sarus(&open.alice, &attack).succeeds(), "inside\n", "{runtime:?}");
    }
}

/// Numbers of system calls mean others in the ABIs of 32-bit x86 and x32, which any program can use.
#[test]
fn calls_of_other_abis_do_not_bypass_the_filter() {
    let text = r#"
        #include <stdio.h>
        int main(void) {
            long getpid_of_i386 = 20, getpid_of_x32 = 0x40000000 + 39;
            asm volatile("int $0x80" : "+a"(getpid_of_i386) : : "memory");
            asm volatile("syscall" : "+a"(getpid_of_x32) : : "rcx", "r11", "memory");
            printf("%ld %ld\n", getpid_of_i386, getpid_of_x32);
        }"#;
    for runtime in Runtime::ALL {
        let confined = confined(runtime);
        let attack = program(&confined, text);
        let output = run_mounted(&confined, &attack);
        match runtime {
            Runtime::Builtin => assert_eq!(output.succeeds(), "-1 -1\n"),
            // libseccomp ends the process (SIGSYS).
            _ => drop(output.fails(128 + 31)),
        }
        let open = confined.set("seccompProfile", "\"unconfined\"");
        let shown = run_mounted(&open, &attack).succeeds();
        assert!(!shown.starts_with('-'), "the kernel has no 32-bit system calls: {shown}");
    }
}

/// MPI's shared memory on a node copies between processes of the user.
#[test]
fn the_built_in_profile_lets_processes_of_a_user_copy_each_others_memory() {
    let text = r#"
        #define _GNU_SOURCE
        #include <stdio.h>
        #include <sys/uio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(void) {
            static char text[8] = "parent";
            int ready[2], done[2];
            if (pipe(ready) || pipe(done)) return 1;
            pid_t child = fork();
            if (child == 0) {
                sprintf(text, "child");
                close(done[1]);
                return write(ready[1], "", 1) != 1 || read(done[0], text, 1) != 0;
            }
            char copy[8], byte;
            struct iovec here = {copy, sizeof copy}, there = {text, sizeof text};
            if (read(ready[0], &byte, 1) != 1) return 2;
            if (process_vm_readv(child, &here, 1, &there, 1, 0) != sizeof copy) {
                perror("process_vm_readv");
                return 3;
            }
            puts(copy);
            close(done[1]);
            return wait(NULL) != child;
        }"#;
    for runtime in Runtime::ALL {
        let confined = confined(runtime);
        let shown = run_mounted(&confined, &program(&confined, text)).succeeds();
        assert_eq!(shown, "child\n", "{runtime:?}");
    }
}

#[test]
fn programs_that_start_before_the_program_are_filtered_too() {
    let hooks = r#"{"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c",
        "cat >/dev/null; grep Seccomp: /proc/self/status >/tmp/seen"]}]}"#;
    for runtime in Runtime::ALL {
        let confined = confined(runtime).set("OCIHooks", hooks);
        let seen = confined.sarus(&confined.alice, &["run", IMAGE, "cat", "/tmp/seen"]);
        assert_eq!(seen.succeeds(), "Seccomp:\t2\n", "{runtime:?}");
    }
    // The user logs in to the SSH daemon.
    let installation = Installation::with_ssh().runtime(Runtime::Builtin);
    let alice = &installation.alice;
    installation.load(alice, &Image::busybox(), "bb");
    let hooks = installation.ssh_hooks();
    let installation = installation.set("OCIHooks", &hooks);
    let alice = &installation.alice;
    installation.sarus(alice, &["ssh-keygen"]).succeeds();
    let script = "grep -h -e Name: -e Seccomp: /proc/[0-9]*/status";
    let shown = installation.sarus(alice, &["run", "--ssh", IMAGE, "sh", "-c", script]).succeeds();
    assert!(shown.contains("Name:\tsshd"), "{shown}");
    assert!(!shown.contains("Seccomp:\t0"), "{shown}");
}

#[test]
fn a_profile_of_the_site_holds_in_a_container() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat", "call_of_tomorrow"], "action": "SCMP_ACT_ERRNO", "errnoRet": 39},
        {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
         "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO",
         "includes": {"caps": ["CAP_CHOWN"]}}]}"#;
    for runtime in Runtime::ALL {
        let installation = with_profile(Installation::with_busybox(runtime), profile, 0o644);
        let run =
            |script| installation.sarus(&installation.alice, &["run", IMAGE, "sh", "-c", script]);
        let error = run("mkdir /tmp/a").fails(1);
        assert!(error.contains("Directory not empty"), "{runtime:?}: {error}");
        let error = run("chmod 700 /tmp").fails(1);
        assert!(error.contains("Operation not permitted"), "{runtime:?}: {error}");
        run("touch /tmp/b && rm /tmp/b").succeeds();
    }
}

#[test]
fn a_profile_that_others_can_change_or_that_has_faults_starts_nothing() {
    for runtime in [Runtime::Builtin, Runtime::Runc] {
        let installation = Installation::with_busybox(runtime);
        let harmless = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
        let installation = with_profile(installation, harmless, 0o666);
        let run = |installation: &Installation| {
            installation.sarus(&installation.alice, &["run", IMAGE, "echo", "started"])
        };
        let error = run(&installation).fails(125);
        assert!(error.contains("seccomp.json is writable for its group and others"), "{error}");
        let wrong = r#"{"defaultAction": "SCMP_ACT_SHRUG"}"#;
        let installation = with_profile(installation, wrong, 0o644);
        let error = run(&installation).fails(125);
        assert!(error.contains("seccomp.json:1:19: defaultAction: expected one of"), "{error}");
        // Users who may not read the file are not told what it says.
        let installation = with_profile(installation, wrong, 0o600);
        let error = run(&installation).fails(125);
        assert!(error.contains(":1:19: ") && !error.contains("SHRUG"), "{error}");
        let check = installation.sarus(&User::root(), &["check"]);
        assert!(check.stdout.contains("expected one of"), "{check}");
    }
}
