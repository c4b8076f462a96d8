use super::*;
use crate::mutate::{Random, mutate};

const STATE: &str = r#"{"ociVersion": "1.0.2-dev", "id": "x1", "status": "creating", "pid": 97,
    "bundle": "/run/b", "root": "rootfs", "annotations": {"a.b": "c"}}"#;

const CONFIG: &str = r#"{"ociVersion": "1.0.2", "hooks": {"prestart": [{"path": "/h"}]},
    "process": {"user": {"uid": 1000, "gid": 100, "additionalGids": [100, 27]},
                "env": ["A=b=c", "=x", "nothing", "PATH=/bin"]},
    "root": {"path": "rootfs"}, "annotations": {"d": "e"}}"#;

#[test]
fn a_state_is_read() {
    let state = State::parse(STATE).unwrap();
    assert_eq!(state.id, "x1");
    assert_eq!(state.pid, Pid::from_raw(97));
    assert_eq!(state.bundle, Path::new("/run/b"));
    assert_eq!(state.annotations["a.b"], "c");
    let ended = r#"{"ociVersion":"1.0","id":"x","pid":0,"status":"stopped","bundle":"/b"}"#;
    assert_eq!(State::parse(ended).unwrap().pid, None);
}

#[test]
fn every_field_of_a_state_is_checked() {
    for (from, to, expected) in [
        ("\"1.0.2-dev\"", "\"2.0\"", "invalid ociVersion '2.0'"),
        ("\"1.0.2-dev\"", "1", "not a state"),
        ("\"x1\"", "\"\"", "invalid id"),
        ("\"x1\"", "\"../x\"", "invalid id"),
        ("creating", "dead", "invalid status 'dead'"),
        ("97", "-1", "invalid pid '-1'"),
        ("97", "4294967297", "invalid pid"),
        ("97", "\"97\"", "not a state"),
        ("/run/b", "run/b", "invalid bundle 'run/b'"),
        ("/run/b", "/run/../b", "invalid bundle"),
        ("/run/b", "/run/\\u0000b", "invalid bundle"),
        ("\"bundle\"", "\"bundles\"", "not a state"),
        ("\"c\"", "{}", "not a state"),
        ("}}", "}", "not a state"),
    ] {
        let text = STATE.replace(from, to);
        assert_ne!(text, STATE, "{from}");
        let error = State::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{from} -> {to}: {error}");
    }
}

#[test]
fn a_config_is_read() {
    let spec = Spec::parse(CONFIG, Path::new("/b")).unwrap();
    assert_eq!(spec.rootfs, Path::new("/b/rootfs"));
    assert_eq!(spec.user.uid.as_raw(), 1000);
    assert_eq!(spec.user.gid.as_raw(), 100);
    assert_eq!(spec.user.groups, [Gid::from_raw(27)]);
    assert_eq!(spec.variable("A"), Some("b=c"));
    assert_eq!(spec.variable("nothing"), None);
    assert_eq!(spec.annotations["d"], "e");
    let absolute = CONFIG.replace("\"rootfs\"", "\"/var/lib/x\"");
    assert_eq!(Spec::parse(&absolute, Path::new("/b")).unwrap().rootfs, Path::new("/var/lib/x"));
}

#[test]
fn ids_of_a_user_namespace_become_the_hosts() {
    let with = |uids: &str| {
        let linux = format!(r#""linux": {{"uidMappings": [{uids}]}}, "root""#);
        Spec::parse(&CONFIG.replace("\"root\"", &linux), Path::new("/b"))
    };
    let range = |inside: u32, outside: u32, size: u32| {
        format!(r#"{{"containerID": {inside}, "hostID": {outside}, "size": {size}}}"#)
    };
    let two = format!("{}, {}", range(0, 5000, 1), range(1, 100_000, 65536));
    assert_eq!(with(&two).unwrap().user.uid.as_raw(), 100_999);
    for uids in [range(0, 5000, 1), range(1001, 1, 9), range(1000, u32::MAX, 1)] {
        assert!(with(&uids).unwrap_err().to_string().contains("not mapped"), "{uids}");
    }
}

#[test]
fn every_field_of_a_config_is_checked() {
    for (from, to) in [
        ("\"process\"", "\"proces\""),
        ("\"root\"", "\"rot\""),
        ("\"rootfs\"", "\"\""),
        ("\"rootfs\"", "\"../rootfs\""),
        ("1000", "-1"),
        ("1000", "4294967295"),
        ("27]", "4294967296]"),
        ("\"A=b=c\"", "7"),
        ("}}", ""),
    ] {
        let text = CONFIG.replace(from, to);
        assert_ne!(text, CONFIG, "{from}");
        assert!(Spec::parse(&text, Path::new("/b")).is_err(), "{from} -> {to}");
    }
}

#[test]
fn what_would_take_much_memory_is_refused_before_it_is_parsed() {
    let state = |more: &str| {
        let text = r#"{"ociVersion":"1.0.2","id":"x","status":"created","bundle":"/b""#;
        State::parse(&format!("{text}{more}}}"))
    };
    assert!(state(&format!(r#","a":{}{}"#, "[".repeat(31), "]".repeat(31))).is_ok());
    let error = state(&format!(r#","a":{}"#, "[".repeat(1 << 20))).unwrap_err();
    assert_eq!(error.to_string(), "nested deeper than 32 levels");
    assert!(state(&format!(r#","a":["{}"]"#, "[,".repeat(1 << 19))).is_ok());
    let many = format!(r#"{{"process":{{"env":[{}"a=b"]}}}}"#, r#""a=b","#.repeat(1 << 16));
    let error = Spec::parse(&many, Path::new("/bundle")).unwrap_err();
    assert_eq!(error.to_string(), "more than 65536 JSON values");
}

#[test]
fn mutated_input_never_makes_a_reader_panic() {
    const DICTIONARY: &[u8] = b"\"\\,:/.[]{} \0\xff-+99999999999999999999";
    let mut random = Random::new();
    for seed in [STATE, CONFIG] {
        for _ in 0..3000 {
            let bytes = mutate(seed.as_bytes(), DICTIONARY, &mut random);
            let text = String::from_utf8_lossy(&bytes);
            State::parse(&text).ok();
            Spec::parse(&text, Path::new("/b")).ok();
        }
    }
}
