//! `sarus pull` that cannot be done: one line that names what and why, a hint, and nothing left.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread::spawn;
use std::time::{Duration, Instant};

use crate::support::certificates::{Authority, Validity};
use crate::support::http::Answer;
use crate::support::oci::{Blob, Built, CONFIG, LAYER, busybox, manifest, noise_layer};
use crate::support::pull::{finish, for_each, in_namespace};
use crate::support::registry::{Registry, Setup};
use crate::support::server::Server;
use crate::support::token::{Rules, TokenServer};
use crate::support::{Image, Installation, Output};

fn archive() -> String {
    format!("docker-archive:{}", Image::busybox().docker_archive().display())
}

/// A name server that knows no name, on an address of its own; it ends with this process.
fn empty_name_server() -> String {
    let process = std::process::id().to_le_bytes();
    let address = format!("127.53.{}.{}", process[1], process[0] | 1);
    let socket = UdpSocket::bind((address.as_str(), 53)).unwrap();
    spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            // A response, recursion available, NXDOMAIN.
            (packet[2], packet[3]) = (0x81, 0x83);
            socket.send_to(&packet[..length], from).ok();
        }
    });
    address
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let installation = Installation::new();
    let resolver = installation.path("resolv.conf");
    std::fs::write(&resolver, format!("nameserver {}\n", empty_name_server())).unwrap();
    let resolver = format!("mount --bind {} /etc/resolv.conf", resolver.display());
    let command = installation.pull_command("registry.example/ns/name");
    let unknown = finish(&in_namespace(&resolver, &command), "");
    installation.failed(&unknown, &["registry.example/ns/name", "no such host"]);

    // A port that was just free.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = format!("{free}/ns/name:tag");
    installation.pull_fails(&name, &[&name, "refused"]);

    // Nobody accepts, and the queue is full after few connections: Linux answers no more.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/ns/name:tag", mute.local_addr().unwrap());
    let start = Instant::now();
    let mut command = installation.pull_command(&name);
    command.env("SARUS_CONNECT_TIMEOUT", "2").env("SARUS_STALL_TIMEOUT", "2");
    installation.failed(&finish(&command, ""), &[&name, "time|answer|silent|nothing"]);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn a_certificate_that_is_no_good_is_explained_and_never_bypassed() {
    let authority = Authority::new();
    let names = "DNS:localhost,IP:127.0.0.1";
    for (names, validity, trusted, word) in [
        (names, Validity::Good, false, "authority|issuer|unknown|trust"),
        (names, Validity::Expired, true, "expired"),
        ("DNS:other.example", Validity::Good, true, "name"),
    ] {
        let registry = Registry::with(Setup::default().tls(authority.issue(names, validity)));
        registry.push(&archive(), "ns/name", &[]);
        for host in ["127.0.0.1", "localhost"] {
            let server = format!("{host}:{}", registry.port());
            let name = format!("{server}/ns/name:latest");
            let installation =
                Installation::new().set("insecureRegistries", &format!("[\"{server}\"]"));
            let mut command = installation.pull_command(&name);
            if trusted {
                let file = installation.path("ca.crt");
                std::fs::copy(authority.certificate(), &file).unwrap();
                command.env("SSL_CERT_FILE", file);
            }
            let start = registry.log().len();
            installation.failed(&finish(&command, ""), &[&name, "certificate", word]);
            assert_eq!(registry.log()[start..], []);
        }
    }
}

#[test]
fn who_may_not_read_an_image_is_told_so() {
    let password = Registry::with(Setup::default().password("alice", "secret"));
    let server = TokenServer::new(Rules::default());
    let tokens = Registry::with(Setup::default().tokens(&server));
    for registry in [&password, &tokens] {
        registry.push(&archive(), "private/name", &[]);
        let name = format!("{}/private/name:latest", registry.address());
        let installation = Installation::new();
        let hint = installation
            .pull_fails(&name, &[&name, "401|authentication|credentials|log in|login|denied"]);
        assert!(hint.contains("--login"), "{hint}");
        for input in ["alice\nmistaken\n", "bob\nsecret\n"] {
            let output = finish(&installation.pull_with(&["--login", &name]), input);
            let words = ["401|credentials|login|password|denied|refuse"];
            let text = installation.failed(&output, &[&[&*name], &words[..]].concat());
            assert!(!text.contains("mistaken") && !text.contains("secret"), "{text}");
        }
        for input in ["\n\n", "alice\n\n", "", "alice\n"] {
            let output = finish(&installation.pull_with(&["--login", &name]), input);
            assert_eq!(output.status, 1, "{input:?}: {output}");
            installation.assert_nothing_is_left();
        }
    }
    let output = finish(&Installation::new().pull_with(&["--password-stdin", "x/y"]), "secret\n");
    assert!(output.stderr.contains("--username"), "{output}");
    assert_eq!(output.status, 1);
}

#[test]
fn what_is_not_there_is_told_apart() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let built = Built::new(vec![busybox()]);
    built.push(&registry, "ns/name", "tag");
    let address = registry.address();
    let digest = "0".repeat(64);
    for (name, word) in [
        (format!("{address}/ns/none:tag"), "repository|image|exist|found|no "),
        (format!("{address}/ns/name:none"), "tag|none|found"),
        (format!("{address}/ns/name@sha256:{digest}"), "manifest|digest|found|sha256"),
    ] {
        installation.pull_fails(&name, &[&name, word]);
    }
}

/// A registry of busybox whose manifests are answered in this way.
fn registry_with(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Server {
    let built = Built::busybox();
    Server::new(move |request| match request.path().contains("/manifests/") {
        true => answer(),
        false => built.answer(request),
    })
}

#[test]
fn a_refusal_of_the_registry_is_passed_on() {
    let installation = Installation::new();
    let message = |code: &str, text: &str| {
        format!(r#"{{"errors":[{{"code":"{code}","message":"{text}","detail":null}}]}}"#)
    };
    for (status, code, text, word) in [
        (403, "DENIED", "not for you", "403|denied|forbidden|not for you"),
        (404, "NAME_UNKNOWN", "who is that", "repository|image|found|who is that"),
        (404, "MANIFEST_UNKNOWN", "what is that", "tag|manifest|found|what is that"),
        (429, "TOOMANYREQUESTS", "too fast", "429|too many|limit|too fast"),
        (500, "UNKNOWN", "I am ill", "500|ill"),
        (503, "UNAVAILABLE", "later", "503|later|unavailable"),
        (418, "TEAPOT", "I am a teapot", "418|teapot"),
    ] {
        let body = message(code, text);
        let server = registry_with(move || Answer::json(status, &body).header("Retry-After", "0"));
        let name = format!("{}/ns/name:tag", server.address());
        installation.pull_fails(&name, &[&name, word]);
        let tries = server.log_of("/manifests/").len();
        match status {
            429 | 500 | 503 => assert!((3..=12).contains(&tries), "{status}: {tries} tries"),
            _ => assert!(tries <= 2, "{status}: {tries} tries"),
        }
    }
}

#[test]
fn nobody_waits_for_an_hour() {
    for status in [429, 503] {
        let installation = Installation::new();
        let server = registry_with(move || Answer::new(status).header("Retry-After", "3600"));
        installation.pull_fails(&format!("{}/ns/name:tag", server.address()), &["429|503|later"]);
    }
}

#[test]
fn what_is_no_image_for_this_machine_is_refused_with_a_reason() {
    let installation = Installation::new();
    let registry = Registry::with(Setup::default().schema1());
    let address = registry.address();
    let chart = Blob::new(b"chart".to_vec());
    let config = Blob::new(b"{}".to_vec());
    let mut artifact = Built::new(vec![chart.clone()]);
    artifact.config = config.clone();
    let helm = config.descriptor("application/vnd.cncf.helm.config.v1+json");
    let layer = chart.descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip");
    artifact.with_manifest(manifest(&helm, &[layer])).push(&registry, "ns/chart", "1");
    registry.push(&archive(), "ns/old:1", &["--format=v2s1"]);
    Built::for_platform(vec![busybox()], "linux/s390x").push(&registry, "ns/s390x", "1");
    for (name, word) in [
        ("ns/chart", "not an image|no image|artifact|helm"),
        ("ns/old", "schema"),
        ("ns/s390x", "s390x"),
    ] {
        let name = format!("{address}/{name}:1");
        installation.pull_fails(&name, &[&name, word]);
    }
    assert_eq!(registry.fetched(0, &chart.digest), [""; 0]);
}

#[test]
fn a_name_that_is_none_is_refused_before_anything_is_sent() {
    let installation = Installation::new();
    let server = Server::new(|_| Answer::new(500));
    for name in [
        "{}/NS/name",
        "{}/ns/Name:tag",
        "{}/ns/../name",
        "{}/../name",
        "{}/ns/na me",
        "{}/ns/name:ta g",
        "{}/ns/name:",
        "{}/ns//name",
        "{}/ns/name@sha256:1234",
        "{}/ns/name@md5:0123456789abcdef0123456789abcdef",
        "{}/ns/name:tag?x=y",
        "{}/ns/name#x",
        "{}/ns/%2e%2e/name",
        "user:password@{}/ns/name",
        "ftp://{}/ns/name",
        "https://",
        "docker://",
        "/etc/passwd",
        "",
        " ",
        "name\u{1b}[31m",
        "n\u{e4}me",
    ] {
        let name = name.replace("{}", &server.address());
        let output = installation.pull(&name);
        assert_eq!(output.status, 1, "{output}");
        assert!(output.stderr.starts_with("sarus: "), "{output}");
        assert!(!output.stderr.contains('\u{1b}'), "{output}");
        assert!(output.stderr.lines().count() <= 2, "{output}");
        installation.assert_nothing_is_left();
    }
    assert_eq!(server.log().len(), 0);
}

#[test]
fn wrong_words_on_the_command_line_are_refused() {
    let installation = Installation::new();
    for args in [
        &["--platform", "amd64", "127.0.0.1:1/a/b"][..],
        &["--platform", "", "127.0.0.1:1/a/b"],
        &["--compression", "bzip2", "127.0.0.1:1/a/b"],
        &["--temp-dir", "/no/such/directory", "127.0.0.1:1/a/b"],
        &["127.0.0.1:1/a/b", "127.0.0.1:1/a/c"],
        &[],
    ] {
        let output = finish(&installation.pull_with(args), "");
        assert_eq!(output.status, 1, "{output}");
        assert!(!output.stderr.contains("refused"), "tried to connect: {output}");
    }
}

/// A good registry but for the blob with this digest, whose answers are changed.
fn registry_with_blob(
    built: &Built,
    digest: &str,
    answer: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> Server {
    let (built, digest) = (built.clone(), digest.to_owned());
    Server::new(move |request| {
        let good = built.answer(request);
        if request.target.contains(&digest) { answer(good) } else { good }
    })
}

#[test]
fn bytes_that_are_not_those_that_were_promised_are_refused() {
    let built = Built::new(vec![busybox(), noise_layer("data", 300_000)]);
    let (config, layer) = (built.config.digest.clone(), built.layers[1].digest.clone());
    for (what, digest) in [("config", &config), ("layer", &layer)] {
        let installation = Installation::new();
        let size = built.blobs().find(|blob| blob.digest == *digest).unwrap().bytes.len();
        let wrong = Arc::new(vec![b' '; size]);
        let server = registry_with_blob(&built, digest, move |answer| answer.body(wrong.clone()));
        let name = format!("{}/ns/name:tag", server.address());
        installation.pull_fails(&name, &[&name, "digest|match|checksum|damaged|sha256"]);
        let tries = server.log_of(digest).len();
        assert!((1..=12).contains(&tries), "{what}: {tries} tries");
        let cached = installation.cache_files();
        assert!(!cached.contains(&format!("{digest}.tar")), "{cached:?}");
    }
    // A manifest that was asked for by its digest.
    let installation = Installation::new();
    let other = Built::with_note(vec![busybox()], "other").manifest.bytes;
    let server = Server::new({
        let built = built.clone();
        move |request| match request.path().contains("/manifests/") {
            true => Answer::new(200).header("Content-Type", built.media_type).body(other.clone()),
            false => built.answer(request),
        }
    });
    let name = format!("{}/ns/name@{}", server.address(), built.manifest.digest);
    installation.pull_fails(&name, &[&name, "digest|match"]);
}

#[test]
fn a_transfer_that_never_completes_ends_with_an_error() {
    let built = Built::new(vec![busybox(), noise_layer("data", 300_000)]);
    let layer = &built.layers[1].digest;
    type Change = fn(Answer) -> Answer;
    let changes: [(Change, &str); 3] = [
        (|answer| answer.cut_after(0), "closed|ended|truncated|short|cut|broke"),
        (|answer| answer.stall_after(0), "time|stall|nothing|no progress|silent"),
        (|_| Answer::none(), "closed|ended|broke|no answer|eof"),
    ];
    for_each(changes, |(change, word)| {
        let installation = Installation::new();
        let server = registry_with_blob(&built, layer, change);
        let name = format!("{}/ns/name:tag", server.address());
        let mut command = installation.pull_command(&name);
        command.env("SARUS_STALL_TIMEOUT", "1");
        let start = Instant::now();
        installation.failed(&finish(&command, ""), &[&name, word]);
        assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
        assert!(server.log_of(layer).len() >= 3, "{:?}", server.log_of(layer));
    });
}

/// Runs `command` where `directory` is a file system of its own of this size.
fn where_small(directory: &std::path::Path, owner: u32, size: &str, command: &Command) -> Output {
    let setup = format!(
        "mount -t tmpfs -o size={size},uid={owner},gid={owner},mode=0755 none {}",
        directory.display()
    );
    finish(&in_namespace(&setup, command), "")
}

#[test]
fn a_full_cache_or_temporary_directory_is_named() {
    let registry = Registry::plain();
    let built = Built::new(vec![busybox(), noise_layer("data", 6_000_000)]);
    built.push(&registry, "ns/name", "latest");
    let name = format!("{}/ns/name:latest", registry.address());
    let installation = Installation::new();
    let uid = installation.alice.uid;
    // The repository has to be there to be mounted upon.
    installation.write_home(".sarus/cache/.keep", "");
    std::fs::remove_file(installation.cache().join(".keep")).unwrap();
    let (cache, temporary) = (installation.cache(), installation.path("tmp"));
    for (directory, size) in [(&cache, "3m"), (&temporary, "1m")] {
        let output = where_small(directory, uid, size, &installation.pull_command(&name));
        let text = installation.failed(&output, &[&name, "space|full|room"]);
        assert!(text.contains(directory.to_str().unwrap()), "{text}");
    }
    let text = where_small(&temporary, uid, "1m", &installation.pull_command(&name)).stderr;
    assert!(text.contains("--temp-dir"), "{text}");
    installation.pull_and_run(&name);
}

#[test]
fn a_failure_leaves_no_lock_behind() {
    let installation = Installation::new();
    let built = Built::busybox();
    let server = registry_with_blob(&built, &built.layers[0].digest, |_| Answer::new(404));
    let output = installation.pull(&format!("{}/ns/name:tag", server.address()));
    installation.refused(&output);
    let mut find = Command::new("find");
    find.arg(installation.repository(&installation.alice)).args(["-name", "*.lock"]);
    assert_eq!(Output::of(&mut find).succeeds(), "");
}

#[test]
fn layers_that_are_none_are_refused() {
    for (bytes, what) in [
        (b"no tar at all".to_vec(), "text"),
        (vec![0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5], "gzip cut"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 9, 9, 9], "zstd cut"),
        (b"BZh91AY&SY".to_vec(), "bzip2"),
    ] {
        let installation = Installation::new();
        let broken = Blob::new(bytes);
        let built = Built::new(vec![busybox(), broken.clone()]);
        let layers = [busybox().descriptor(LAYER), broken.descriptor(LAYER)];
        let text = manifest(&built.config.descriptor(CONFIG), &layers);
        let built = built.with_manifest(text);
        let server = Server::new(move |request| built.answer(request));
        let name = format!("{}/ns/name:tag", server.address());
        let output = installation.pull(&name);
        assert!(output.stderr.contains(&name), "{what}: {output}");
        installation.refused(&output);
    }
}
