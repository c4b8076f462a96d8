//! `seccompProfile` of sarus.json with OCI runtimes, which install the filter.

use super::*;

/// Gives the installation a profile of its own; `mode` is that of the file.
fn with_profile(installation: Installation, profile: &str, mode: u32) -> Installation {
    let path = installation.prefix().join("etc/seccomp.json");
    fs::write(&path, profile).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    installation.set("seccompProfile", &format!("{path:?}"))
}

#[test]
fn the_built_in_profile_refuses_namespaces_to_a_container_unless_the_site_switches_it_off() {
    for runtime in Runtime::ALL {
        let confined = Installation::with_busybox(runtime).set("seccompProfile", "\"default\"");
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
    let installation = Installation::with_busybox(Runtime::Runc);
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
