//! Tests of the reader.

use super::*;

/// Reads a profile for Linux 5.10.
pub fn read(text: &str) -> (Result<Profile>, Vec<String>) {
    let (profile, notes) = parse("p", text, true, (5, 10));
    (profile, notes.into_iter().map(|(_, note)| note).collect())
}

/// Action of the profile `text` for the call `name` with the argument 0.
fn decide(text: &str, name: &str) -> Action {
    let profile = read(text).0.unwrap();
    interpret(&compile(&profile).unwrap(), &Data::native(number(name), [0; 6]))
}

/// A profile that refuses all but what `rules` say.
fn with(rules: &str) -> String {
    format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#)
}

/// The shape of Docker's profile.
pub const DOCKER: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}
    ],
    "syscalls": [
        {"names": ["read", "write", "_llseek", "call_of_tomorrow"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.11"}},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
         "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "comment": "as glibc likes",
         "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}},
        {"names": ["fsync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["riscv64"]}},
        {"names": ["syncfs"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64", "arm64"]}}
    ]
}"#;

#[test]
fn a_profile_of_dockers_is_read_for_a_container_without_capabilities() {
    let (profile, notes) = read(DOCKER);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(profile.unwrap().newest, Some(number("clone3")));
    for (name, action) in [
        ("read", Action::ALLOW),
        ("ptrace", Action::ALLOW),
        ("kcmp", Action::errno(1)),
        ("socket", Action::ALLOW),
        ("mount", Action::errno(1)),
        ("clone", Action::ALLOW),
        ("clone3", Action::errno(38)),
        ("sync", Action::ALLOW),
        ("fsync", Action::errno(1)),
        ("syncfs", Action::errno(1)),
        ("close_range", Action::errno(38)),
        ("statmount", Action::errno(38)),
    ] {
        assert_eq!(decide(DOCKER, name), action, "{name}");
    }
}

#[test]
fn a_profile_of_podmans_and_one_of_older_engines_are_read() {
    let podman = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [], "syscalls": [
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "", "includes": {},
         "excludes": {"caps": ["CAP_SYS_ADMIN"]}, "errnoRet": 1, "errno": "EPERM"}]}"#;
    assert_eq!(decide(podman, "bpf"), Action::errno(1));
    assert_eq!(decide(podman, "read"), Action::errno(38));
    let old = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"name": "chmod", "action": "SCMP_ACT_KILL", "args": null},
        {"name": "fchmod", "names": [], "action": "SCMP_ACT_TRAP"}]}"#;
    assert_eq!(decide(old, "fchmod"), Action::TRAP);
    assert_eq!(decide(old, "read"), Action::ALLOW);
    assert_eq!(decide(old, "statmount"), Action::ALLOW);
}

#[test]
fn a_rule_without_conditions_decides_and_otherwise_the_first_that_matches() {
    let allow = r#"{"names": ["dup"], "action": "SCMP_ACT_ALLOW"}"#;
    let when = |value: u32, action: &str| {
        format!(
            r#"{{"names": ["dup"], "action": "{action}",
            "args": [{{"index": 0, "value": {value}, "op": "SCMP_CMP_EQ"}}]}}"#
        )
    };
    let (trap, log) = (when(0, "SCMP_ACT_TRAP"), when(0, "SCMP_ACT_LOG"));
    for (rules, action) in [
        (format!("{trap}, {allow}"), Action::ALLOW),
        (format!("{trap}, {log}"), Action::TRAP),
        (format!("{}, {log}", when(1, "SCMP_ACT_TRAP")), Action::LOG),
        (when(1, "SCMP_ACT_TRAP"), Action::errno(1)),
    ] {
        assert_eq!(decide(&with(&rules), "dup"), action, "{rules}");
    }
    // Two conditions on one argument are alternatives.
    let either = r#"{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}"#;
    assert_eq!(decide(&with(either), "dup"), Action::ALLOW);
}

#[test]
fn every_action_has_its_value() {
    for (name, action) in [
        ("SCMP_ACT_ALLOW", Action::ALLOW),
        ("SCMP_ACT_ERRNO", Action::errno(1)),
        ("SCMP_ACT_KILL", Action::KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", Action::KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", Action::KILL_PROCESS),
        ("SCMP_ACT_TRAP", Action::TRAP),
        ("SCMP_ACT_LOG", Action::LOG),
        ("SCMP_ACT_TRACE", Action::trace(1)),
    ] {
        let text = format!(r#"{{"defaultAction": "{name}"}}"#);
        assert_eq!(read(&text).0.unwrap().default, action);
        assert_eq!(decide(&text, "read"), action);
    }
}

#[test]
fn faults_of_a_profile_have_their_places() {
    let rule = |keys: &str| with(&format!(r#"{{"names": ["dup"], {keys}}}"#));
    let args = |keys: &str| rule(&format!(r#""action": "SCMP_ACT_ALLOW", "args": [{{{keys}}}]"#));
    for (text, expected) in [
        ("{}".into(), r#"p:1:1: missing key "defaultAction""#),
        ("[]".into(), "p:1:1: expected an object, found a list"),
        (r#"{"defaultAction": "ALLOW"}"#.into(), "p:1:19: defaultAction: expected one of"),
        (
            r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.into(),
            "p:1:19: defaultAction: SCMP_ACT_NOTIFY needs an agent",
        ),
        (with("1"), "p:1:50: syscalls[0]: expected an object, found 1"),
        (with(r#"{"action": "SCMP_ACT_ALLOW"}"#), r#"syscalls[0]: missing key "names""#),
        (with(r#"{"names": ["dup"]}"#), r#"syscalls[0]: missing key "action""#),
        (rule(r#""name": "dup", "action": "SCMP_ACT_LOG""#), r#"has both "name" and "names""#),
        (rule(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 4096"#), "number from 0 to 4095"),
        (rule(r#""action": "SCMP_ACT_ERRNO", "errno": "EWHAT""#), "errno: expected one of"),
        (
            rule(r#""action": "SCMP_ACT_ERRNO", "errno": "EPERM", "errnoRet": 38"#),
            "errnoRet: not the number of the errno that is named",
        ),
        (args(r#""index": 6, "value": 0, "op": "SCMP_CMP_EQ""#), "args[0].index: expected a whole"),
        (
            args(r#""index": 0, "value": -1, "op": "SCMP_CMP_EQ""#),
            "args[0].value: expected a whole",
        ),
        (args(r#""index": 0, "value": 1, "op": "EQ""#), "args[0].op: expected one of"),
        (args(r#""index": 0, "op": "SCMP_CMP_EQ""#), r#"args[0]: missing key "value""#),
        (
            args(r#""index": 0, "value": 18446744073709551616, "op": "SCMP_CMP_EQ""#),
            "expected a whole number from 0 to 18446744073709551615",
        ),
        (
            rule(r#""action": "SCMP_ACT_LOG", "includes": {"minKernel": "four"}"#),
            r#"includes.minKernel: expected a version such as "4.8", found "four""#,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["amd64"]}"#.into(),
            "architectures[0]: expected an architecture",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86"],
            "archMap": [{"architecture": "SCMP_ARCH_X86"}]}"#
                .into(),
            r#"archMap: has both "architectures" and "archMap""#,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_LOG", "flags": ["FAST"]}"#.into(),
            "flags[0]: expected one",
        ),
        ("[".repeat(9), "p: nested deeper than 8 levels"),
        (format!("[{}0]", "0,".repeat(16_384)), "p: more than 16384 JSON values"),
    ] {
        let error = read(&text).0.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}

#[test]
fn keys_and_flags_without_effect_are_noted() {
    let text = r#"{"defaultAction": "SCMP_ACT_LOG", "typo": 1, "listenerPath": "",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}"#;
    assert_eq!(
        read(text).1,
        ["p:1:43: typo: unknown key, ignored", "p:2:19: flags[0]: no effect, ignored"]
    );
}

#[test]
fn arguments_have_64_bits() {
    let rule = r#"{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 5, "value": 18446744073709551615, "valueTwo": 4294967296, "op": "SCMP_CMP_MASKED_EQ"}]}"#;
    let profile = read(&with(rule)).0.unwrap();
    let condition = Condition {
        index: 5,
        comparison: Comparison::MaskedEqual,
        value: u64::MAX,
        second: 1 << 32,
    };
    assert_eq!(profile.rules[0].conditions, [condition]);
}

#[test]
fn no_profile_makes_reader_or_compiler_panic() {
    let mut random = Random::new();
    let mut compiled = 0;
    for _ in 0..4_000 {
        let bytes = mutate(DOCKER.as_bytes(), b"[]{},:\"019ETS_", &mut random);
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if let Ok(profile) = read(&text).0 {
            let filter = compile(&profile).unwrap();
            compare(&profile, &filter, &random_data(&mut random));
            compiled += 1;
        }
    }
    assert!(compiled > 20, "{compiled}");
}
