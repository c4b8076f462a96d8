//! The reader of sarus.json and the schema that is given to editors must agree on every file.

// Helpers of tests may fail as tests do.

use boon::{Compiler, Schemas};
use sarus::site::config::Config;
use sarus::squashfs::compression::Compression;
use std::collections::BTreeSet;

const SCHEMA: &str = include_str!("../../etc/sarus.schema.json");
const TEMPLATE: &str = include_str!("../../etc/templates/sarus.json");
const MANUAL: &str = include_str!("manual.json");

const MINIMAL: &str = r#"{"securityChecks": true, "OCIBundleDir": "/var/b", "rootfsFolder": "rootfs",
    "prefixDir": "/opt/sarus", "tempDir": "/tmp", "localRepositoryBaseDir": "/home",
    "ramFilesystemType": "tmpfs"}"#;

/// What takes the place of a key in the minimal file, or is added to it.
const GOOD: [(&str, &str); 52] = [
    ("$schema", r#""sarus.schema.json""#),
    ("securityChecks", "false"),
    ("OCIBundleDir", r#""/""#),
    ("OCIBundleDir", r#""/a..b/..c/d../...""#),
    ("rootfsFolder", r#""...""#),
    ("ramFilesystemType", r#""ramfs""#),
    ("centralizedRepositoryDir", r#""/var/sarus""#),
    ("mksquashfsPath", r#""/usr/bin/mksquashfs""#),
    ("initPath", r#""/usr/bin/tini""#),
    ("unknownKey", "[null]"),
    ("siteMounts", "[]"),
    ("siteMounts", r#"[{"type": "bind", "source": "/a", "destination": "/b"}]"#),
    (
        "siteMounts",
        r#"[{"type": "bind", "source": "/a", "destination": "/b", "flags": {"readonly": ""}}]"#,
    ),
    (
        "siteMounts",
        r#"[{"type": "bind", "source": "/a", "destination": "/b", "flags": {"bind-propagation": "slave", "size": "1k", "bs": "2"}}]"#,
    ),
    (
        "siteMounts",
        r#"[{"type": "bind", "source": "/dev/infiniband", "destination": "/dev/infiniband"},
            {"type": "bind", "source": "/dev/shm", "destination": "/dev/shmem/shm"},
            {"type": "bind", "source": "/opt/sarus", "destination": "/opt/sarus/"},
            {"type": "bind", "source": "/a", "destination": "/processes/dev/null"}]"#,
    ),
    ("environment", "{}"),
    ("environment", r#"{"set": [{"A": ""}], "prepend": [], "append": {}, "unset": ["A"]}"#),
    ("environment", r#"{"set": {"A": "1", "B": "x=y"}}"#),
    ("userMounts", "{}"),
    ("userMounts", r#"{"notAllowedPaths": ["/a"]}"#),
    ("userMounts", r#"{"notAllowedPrefixesOfPath": ["/a", "/b"], "notAllowedPaths": []}"#),
    ("OCIHooks", "{}"),
    ("OCIHooks", r#"{"prestart": [], "poststart": [], "poststop": []}"#),
    (
        "OCIHooks",
        r#"{"createRuntime": [{"path": "/h", "args": ["h", ""], "env": ["A=", "B=1=2"], "timeout": 1}]}"#,
    ),
    ("OCIHooks", r#"{"createContainer": [{"path": "/h"}], "startContainer": [{"path": "/h"}]}"#),
    ("OCIHooks", r#"{"prestart": [{"path": "/h", "timeout": 4294967295, "more": {}}]}"#),
    ("seccompProfile", r#""default""#),
    ("seccompProfile", r#""unconfined""#),
    ("seccompProfile", r#""/etc/sarus/seccomp.json""#),
    ("seccompProfile", r#""/default""#),
    ("squashfsCompression", r#""zstd""#),
    ("squashfsCompression", r#""gzip""#),
    ("squashfsCompression", r#""lz4""#),
    ("squashfsCompression", r#""none""#),
    ("squashfsCompressionLevel", "1"),
    ("squashfsCompressionLevel", "22"),
    ("squashfsCompression", r#""zstd", "squashfsCompressionLevel": 22"#),
    ("squashfsCompression", r#""gzip", "squashfsCompressionLevel": 1"#),
    ("squashfsCompression", r#""gzip", "squashfsCompressionLevel": 12"#),
    ("squashfsAcceptedCompressions", "[]"),
    ("squashfsAcceptedCompressions", r#"["gzip"]"#),
    ("squashfsAcceptedCompressions", r#"["zstd", "gzip", "lz4", "xz", "lzo", "gzip"]"#),
    ("insecureRegistries", "[]"),
    ("insecureRegistries", r#"["localhost:5000", "registry.example.org", "10.0.0.1:80"]"#),
    ("maxConcurrentDownloads", "1"),
    ("maxConcurrentDownloads", "64"),
    ("cacheMaxSize", r#""0B""#),
    ("cacheMaxSize", r#""20 GB""#),
    ("cacheMaxSize", r#""500MB""#),
    ("tempDir", r#""/tmp/""#),
    ("tempDir", r#""/a/./b//c""#),
    ("tempDir", r#""/tmp/\u00e9 \"""#),
];

const BAD: [(&str, &str); 70] = [
    ("insecureRegistries", r#""localhost""#),
    ("insecureRegistries", r#"["http://localhost"]"#),
    ("insecureRegistries", r#"["localhost:"]"#),
    ("insecureRegistries", r#"[""]"#),
    ("maxConcurrentDownloads", "0"),
    ("maxConcurrentDownloads", "65"),
    ("maxConcurrentDownloads", r#""4""#),
    ("cacheMaxSize", "1000"),
    ("cacheMaxSize", r#""20""#),
    ("cacheMaxSize", r#""GB""#),
    ("securityChecks", "\"true\""),
    ("securityChecks", "null"),
    ("OCIBundleDir", r#""var/b""#),
    ("OCIBundleDir", r#""""#),
    ("OCIBundleDir", r#""/var/../b""#),
    ("OCIBundleDir", r#""/..""#),
    ("OCIBundleDir", "[]"),
    ("rootfsFolder", r#""""#),
    ("rootfsFolder", r#"".""#),
    ("rootfsFolder", r#""..""#),
    ("rootfsFolder", r#""a/b""#),
    ("rootfsFolder", r#""/""#),
    ("ramFilesystemType", r#""ext4""#),
    ("ramFilesystemType", "1"),
    ("prefixDir", "{}"),
    ("tempDir", "7"),
    ("localRepositoryBaseDir", r#""~""#),
    ("centralizedRepositoryDir", "null"),
    ("mksquashfsPath", r#""mksquashfs""#),
    ("initPath", "false"),
    ("runcPath", r#""runc""#),
    ("siteMounts", "{}"),
    ("siteMounts", "[1]"),
    ("siteMounts", r#"[{"source": "/a", "destination": "/b"}]"#),
    ("siteMounts", r#"[{"type": "tmpfs", "source": "/a", "destination": "/b"}]"#),
    ("siteMounts", r#"[{"type": "bind", "destination": "/b"}]"#),
    ("siteMounts", r#"[{"type": "bind", "source": "a", "destination": "/b"}]"#),
    (
        "siteMounts",
        r#"[{"type": "bind", "source": "/a", "destination": "/b", "flags": {"readonly": "yes"}}]"#,
    ),
    (
        "siteMounts",
        r#"[{"type": "bind", "source": "/a", "destination": "/b", "flags": {"size": 1}}]"#,
    ),
    ("siteMounts", r#"[{"type": "bind", "source": "/a", "destination": "/b", "flags": []}]"#),
    ("environment", "[]"),
    ("environment", r#"{"set": [{"A": "1", "B": "2"}]}"#),
    ("environment", r#"{"set": [{}]}"#),
    ("environment", r#"{"set": {"A": 1}}"#),
    ("environment", r#"{"append": {"A=B": "1"}}"#),
    ("environment", r#"{"prepend": [{"": "1"}]}"#),
    ("environment", r#"{"unset": ["A=1"]}"#),
    ("environment", r#"{"unset": {"A": "1"}}"#),
    ("userMounts", r#"{"notAllowedPaths": ["a"]}"#),
    ("userMounts", r#"{"notAllowedPrefixesOfPath": "/a"}"#),
    ("OCIHooks", "[]"),
    ("OCIHooks", r#"{"prestart": {}}"#),
    ("OCIHooks", r#"{"prestart": [{"args": []}]}"#),
    ("OCIHooks", r#"{"poststop": [{"path": "h"}]}"#),
    ("OCIHooks", r#"{"poststart": [{"path": "/h", "args": "h"}]}"#),
    ("OCIHooks", r#"{"poststart": [{"path": "/h", "env": ["A"]}, {"path": "/h", "env": ["=1"]}]}"#),
    ("OCIHooks", r#"{"prestart": [{"path": "/h", "timeout": 0}]}"#),
    ("seccompProfile", "null"),
    ("seccompProfile", "true"),
    ("seccompProfile", r#""""#),
    ("seccompProfile", r#""Default""#),
    ("seccompProfile", r#""seccomp.json""#),
    ("seccompProfile", r#""/etc/../seccomp.json""#),
    ("squashfsCompression", r#""xz", "squashfsCompressionLevel": 1"#),
    ("squashfsCompression", r#""gzip", "squashfsCompressionLevel": 13"#),
    ("squashfsCompression", r#""lz4", "squashfsCompressionLevel": 1"#),
    ("squashfsAcceptedCompressions", r#""xz""#),
    ("squashfsAcceptedCompressions", r#"["none"]"#),
    ("squashfsAcceptedCompressions", r#"["lzma"]"#),
    ("squashfsAcceptedCompressions", "[6]"),
];

/// The minimal file, with `value` for `key`.
fn with(key: &str, value: &str) -> String {
    let entries = MINIMAL.trim_matches(['{', '}']).split(',');
    let kept: Vec<_> = entries.filter(|entry| !entry.contains(&format!("\"{key}\":"))).collect();
    format!("{{{}, \"{key}\": {value}}}", kept.join(","))
}

/// The minimal file without each of its keys.
fn incomplete() -> Vec<String> {
    let entries: Vec<_> = MINIMAL.trim_matches(['{', '}']).split(',').collect();
    let without = |left_out| {
        let kept: Vec<_> = entries.iter().copied().filter(|entry| *entry != left_out).collect();
        format!("{{{}}}", kept.join(","))
    };
    entries.iter().copied().map(without).collect()
}

/// What engine and runtime make themselves, in several spellings.
const RESERVED: [&str; 37] = [
    "/",
    "//",
    "/./.",
    "/dev",
    "/dev/",
    "//dev",
    "/./dev/.",
    "/proc",
    "/proc/",
    "/proc/sys/x",
    "/sys",
    "/.//sys/fs",
    "/dev/null",
    "/dev/null/",
    "/dev/null/x",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/./ptmx",
    "/dev/pts",
    "/dev//pts/0",
    "/dev/shm",
    "/dev/shm/x",
    "/dev/mqueue",
    "/dev/core",
    "/dev/fd/0",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/init",
    "/dev/launch",
    "/opt/sarus/openssh",
    "/opt//sarus/./openssh/",
    "/opt/sarus/openssh/etc/userkeys",
];

/// What the reader and the schema have against `text`.
fn judge(text: &str) -> (Result<(), String>, Result<(), String>) {
    let ours = Config::parse("sarus.json", text, true).config;
    let mut compiler = Compiler::new();
    let mut schemas = Schemas::new();
    let schema = serde_json::from_str(SCHEMA).unwrap();
    compiler.add_resource("file:///sarus.schema.json", schema).unwrap();
    let schema = compiler.compile("file:///sarus.schema.json", &mut schemas).unwrap();
    let document = serde_json::from_str(text).unwrap();
    let theirs = schemas.validate(&document, schema).map_err(|error| error.to_string());
    (ours.map(drop).map_err(|error| error.to_string()), theirs)
}

#[test]
fn good_files_are_good_for_reader_and_schema() {
    let filled = TEMPLATE
        .replace("@INSTALL_PREFIX@", "/opt/sarus")
        .replace("@RUNC_PATH@", "/usr/bin/runc")
        .replace("@SQUASHFS_COMPRESSION@", "zstd");
    assert!(!filled.contains('@'));
    let files = GOOD.iter().map(|(key, value)| with(key, value));
    for text in files.chain([MINIMAL.into(), MANUAL.into(), filled]) {
        assert_eq!(judge(&text), (Ok(()), Ok(())), "{text}");
    }
}

#[test]
fn bad_files_are_bad_for_reader_and_schema() {
    let files = BAD.iter().map(|(key, value)| with(key, value));
    let reserved = RESERVED.iter().map(|path| {
        let mount = format!(r#"[{{"type": "bind", "source": "/a", "destination": "{path}"}}]"#);
        with("siteMounts", &mount)
    });
    for text in files.chain(reserved).chain(incomplete()) {
        let (ours, theirs) = judge(&text);
        assert!(ours.is_err(), "the reader takes {text}");
        assert!(theirs.is_err(), "the schema takes {text}");
    }
}

#[test]
fn the_manuals_example_means_what_it_says() {
    let config = Config::parse("sarus.json", MANUAL, false).config.unwrap();
    assert_eq!(config.runc_path.unwrap().to_str(), Some("/usr/local/sbin/runc.amd64"));
    assert_eq!(config.environment.unset.len(), 2);
    assert_eq!(config.user_mounts.not_allowed_prefixes.len(), 3);
    assert_eq!(config.hooks.list.len(), 2);
    assert!(!config.site_mounts[0].readonly);
}

/// A section of docs/configuration.md: the key, its first line, and its example.
fn documented() -> Vec<(String, String, String)> {
    let text = include_str!("../../docs/configuration.md");
    let sections = text.split("\n### ").skip(1).map(|section| {
        let (key, rest) = section.split_once("\n\n").unwrap();
        let summary = rest.lines().next().unwrap();
        let (_, example) = rest.split_once("```json\n").unwrap();
        let (example, _) = example.split_once("\n```").unwrap();
        (key.to_owned(), summary.to_owned(), example.to_owned())
    });
    sections.collect()
}

#[test]
fn every_key_is_documented_as_the_schema_has_it() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let required = schema["required"].as_array().unwrap();
    let documented = documented();
    let keys: BTreeSet<_> = documented.iter().map(|(key, ..)| key.as_str()).collect();
    let known: BTreeSet<_> = properties.keys().map(String::as_str).collect();
    let expected: BTreeSet<_> = known.into_iter().filter(|key| *key != "$schema").collect();
    assert_eq!(keys, expected);
    for (key, summary, _) in &documented {
        let rules = &properties[key];
        let is_path = rules["$ref"] == "#/definitions/path" || rules["enum"].is_array();
        let kind = if is_path { "string" } else { rules["type"].as_str().unwrap() };
        let need = if required.contains(&key.as_str().into()) { "required" } else { "optional" };
        let default = match &rules["default"] {
            serde_json::Value::Null => String::new(),
            value => format!(", default `{value}`"),
        };
        let expected = format!("**{kind}, {need}{default}.** ");
        assert!(summary.starts_with(&expected), "{key}: {summary} is not {expected}");
    }
}

#[test]
fn the_documented_examples_are_good_for_reader_and_schema() {
    for (key, _, example) in documented() {
        let (name, value) = example.split_once(": ").unwrap();
        assert_eq!(name, format!("{key:?}"));
        let text = with(&key, value);
        assert_eq!(judge(&text), (Ok(()), Ok(())), "{text}");
    }
}

#[test]
fn documented_defaults_are_what_the_reader_takes() {
    let config = Config::parse("sarus.json", MINIMAL, false).config.unwrap();
    assert_eq!((config.compression, config.pulling.downloads), (Compression::default(), 4));
    assert!(config.pulling.insecure_registries.is_empty() && config.site_mounts.is_empty());
}
