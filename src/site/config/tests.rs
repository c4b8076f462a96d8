use super::*;

/// The keys that must be there, with more of them after.
fn minimal(more: &str) -> String {
    format!(
        r#"{{"securityChecks": true, "OCIBundleDir": "/var/b/", "rootfsFolder": "rootfs",
        "prefixDir": "/opt/sarus", "tempDir": "/tmp", "localRepositoryBaseDir": "/home",
        "runcPath": "/usr/bin/runc", "ramFilesystemType": "tmpfs"{more}}}"#
    )
}

fn config(more: &str) -> Config {
    Config::parse("sarus.json", &minimal(more), false).config.unwrap()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let config = config("");
    assert_eq!(config.bundle_dir, Path::new("/var/b"));
    assert_eq!(config.checks, Checks::On);
    assert_eq!(config.compression, Compression::Zstd(3));
    assert!(config.site_mounts.is_empty() && config.hooks.list.is_empty());
}

#[test]
fn both_shapes_of_the_environment_keep_their_order() {
    let wanted = vec![("Z".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
    for shape in [r#"[{"Z": "1"}, {"A": "2"}]"#, r#"{"Z": "1", "A": "2"}"#] {
        let config = config(&format!(r#", "environment": {{"prepend": {shape}}}"#));
        assert_eq!(config.environment.prepend, wanted);
    }
}

#[test]
fn hooks_are_kept_as_they_stand_and_listed() {
    let hooks =
        r#"{"poststop":[{"path":"/b","site":"own"}],"prestart":[{"path":"/a","timeout":1}]}"#;
    let config = config(&format!(r#", "OCIHooks": {hooks}"#));
    let list: Vec<_> = config
        .hooks
        .list
        .iter()
        .map(|hook| {
            (hook.stage, hook.path.to_str().unwrap(), miniserde::json::to_string(&hook.verbatim))
        })
        .collect();
    assert_eq!(
        list,
        [
            ("prestart", "/a", r#"{"path":"/a","timeout":1}"#.to_owned()),
            ("poststop", "/b", r#"{"path":"/b","site":"own"}"#.to_owned()),
        ]
    );
}

#[test]
fn what_is_ignored_is_noted() {
    let more = r#",
        "mksquashfsPath": "/usr/bin/mksquashfs", "typo": 1, "siteMounts": [{"type": "bind",
        "source": "/a", "destination": "/b", "flags": {"bind-propagation": "slave"}}]"#;
    let parsed = Config::parse("sarus.json", &minimal(more), false);
    assert!(parsed.config.is_ok());
    let notes: Vec<_> = parsed.notes.iter().map(|(level, note)| (*level, note.as_str())).collect();
    assert_eq!(
        notes,
        [
            (
                Level::Info,
                "sarus.json:4:27: mksquashfsPath: not used: images are made without external programs"
            ),
            (Level::Warn, "sarus.json:4:58: typo: unknown key, ignored"),
            (
                Level::Warn,
                "sarus.json:5:76: siteMounts[0].flags.bind-propagation: ignored: bind mounts are always recursive and private"
            ),
        ]
    );
}

#[test]
fn all_faults_come_in_one_error_with_their_lines_for_who_may_read_them() {
    let text = "{\n  \"securityChecks\": \"yes\",\n  \"tempDir\": \"tmp\"\n}";
    let error = Config::parse("sarus.json", text, true).config.unwrap_err().to_string();
    assert!(error.contains("sarus.json:1:1: missing key \"runcPath\""), "{error}");
    assert!(error.contains(
        "sarus.json:3:14: tempDir: expected an absolute path without \"..\", found \"tmp\"\n      \"tempDir\": \"tmp\"\n                 ^~~~~"
    ), "{error}");
    let error = Config::parse("sarus.json", text, false).config.unwrap_err().to_string();
    assert!(!error.contains('^'));
}
