//! The registries and servers of the tests of `sarus pull` keep their word, by what skopeo and
//! curl make of them.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::certificates::{Authority, Validity};
use crate::support::http::{Answer, fetch};
use crate::support::oci::Built;
use crate::support::registry::{Registry, Setup};
use crate::support::server::{ENDLESS, Server};
use crate::support::token::{Rules, TokenServer};
use crate::support::{Image, Output};

fn skopeo(args: &[&str]) -> Output {
    Output::of(Command::new("skopeo").args(args))
}

fn curl(args: &[&str]) -> Output {
    Output::of(Command::new("curl").args(["--silent", "--show-error"]).args(args))
}

#[test]
fn a_plain_registry_has_what_was_pushed_and_logs_what_is_fetched() {
    let archive = format!("docker-archive:{}", Image::busybox().docker_archive().display());
    for (tag, options, kind) in [
        ("docker", &["--format=v2s2"][..], "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ("oci", &["--format=oci"], "application/vnd.oci.image.layer.v1.tar+gzip"),
        (
            "zstd",
            &["--format=oci", "--dest-compress-format=zstd"],
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
    ] {
        // In one registry skopeo would use the layer that is there already, gzip for zstd too.
        let registry = Registry::plain();
        registry.push(&archive, &format!("real/{tag}:1"), options);
        let (_, text) = registry.manifest(&format!("real/{tag}"), "1");
        assert!(text.contains(kind), "{text}");
    }
    let registry = Registry::plain();
    let built = Built::busybox();
    built.push(&registry, "built/busybox", "1");
    let start = registry.log().len();
    let name = format!("docker://{}/built/busybox:1", registry.address());
    skopeo(&["inspect", "--tls-verify=false", &name]).succeeds();
    let blob = &built.config.digest;
    assert_eq!(registry.fetched(start, blob), [format!("/v2/built/busybox/blobs/{blob}")]);
}

#[test]
fn a_registry_with_tls_is_known_by_its_authority_alone() {
    let authority = Authority::new();
    let ca = authority.certificate().into_os_string().into_string().unwrap();
    for (names, validity, word) in [
        ("IP:127.0.0.1,DNS:localhost", Validity::Good, ""),
        ("IP:127.0.0.1,DNS:localhost", Validity::Expired, "expired"),
        ("DNS:other.example", Validity::Good, "no alternative certificate subject name"),
    ] {
        let registry = Registry::with(Setup::default().tls(authority.issue(names, validity)));
        let address = format!("https://{}/v2/", registry.address());
        let shown = curl(&["--cacert", &ca, &address]);
        match word {
            "" => assert_eq!(shown.succeeds(), "{}"),
            word => assert!(shown.stderr.contains(word), "{shown}"),
        }
        assert!(curl(&[&address]).stderr.contains("certificate"));
    }
}

#[test]
fn a_registry_with_passwords_lets_nobody_else_in() {
    let registry = Registry::with(Setup::default().password("alice", "secret"));
    let archive = format!("docker-archive:{}", Image::busybox().docker_archive().display());
    registry.push(&archive, "private/busybox:1", &[]);
    let name = format!("docker://{}/private/busybox:1", registry.address());
    let inspect = ["inspect", "--tls-verify=false", "--creds"];
    skopeo(&[&inspect[..], &["alice:secret", &name]].concat()).succeeds();
    skopeo(&[&inspect[..], &["alice:wrong", &name]].concat()).fails(1);
}

#[test]
fn a_registry_takes_the_tokens_of_its_token_server() {
    for key in ["token", "access_token"] {
        let tokens = TokenServer::new(Rules { key, ..Rules::default() });
        let registry = Registry::with(Setup::default().tokens(&tokens));
        let archive = format!("docker-archive:{}", Image::busybox().docker_archive().display());
        for (name, anonymous) in [("public/busybox:1", 0), ("private/busybox:1", 1)] {
            registry.push(&archive, name, &[]);
            let name = format!("docker://{}/{name}", registry.address());
            let inspect = ["inspect", "--tls-verify=false", &name];
            assert_eq!(skopeo(&inspect).status, anonymous, "{name}");
            skopeo(&[&inspect[..], &["--creds=alice:secret"]].concat()).succeeds();
            skopeo(&[&inspect[..], &["--creds=alice:wrong"]].concat()).fails(1);
        }
        assert!(tokens.log().len() >= 6);
    }
}

#[test]
fn a_server_is_as_wrong_as_it_is_told_to_be() {
    let body = || Answer::new(200).body(vec![b'x'; 100_000]);
    let server = Server::new(move |request| match request.path() {
        "/cut" => body().cut_after(5_000),
        "/stall" => body().stall_after(70_000),
        "/short" => body().claim_length("99999"),
        "/long" => body().claim_length("100001"),
        "/endless" => body().endless(),
        "/none" => Answer::none(),
        "/chunked" => body().chunked(),
        "/range" => body().range(request.range().unwrap()),
        "/slow" => body().slowly(50_000, Duration::from_millis(100)),
        other => Answer::json(404, other),
    });
    const HASTY: &[&str] = &["--max-time", "1"];
    for (path, args, status, bytes) in [
        ("/cut", &[][..], 18, 5_000..=5_000),
        ("/stall", HASTY, 28, 70_000..=70_000),
        ("/short", &[], 0, 99_999..=99_999),
        ("/long", &[], 18, 100_000..=100_000),
        ("/endless", &[], 0, ENDLESS..=usize::MAX),
        ("/none", &[], 52, 0..=0),
        ("/chunked", &[], 0, 100_000..=100_000),
        ("/range", &["--range", "1000-"], 0, 99_000..=99_000),
        ("/slow", &[], 0, 100_000..=100_000),
        ("/other", &[], 0, 6..=6),
    ] {
        let address = format!("http://{}{path}", server.address());
        let size = ["--output", "/dev/null", "--write-out", "%{size_download}", &address];
        let shown = curl(&[&size, args].concat());
        assert_eq!(shown.status, status, "{path}: {shown}");
        assert!(bytes.contains(&shown.stdout.parse().unwrap()), "{path}: {shown}");
    }
    let start = Instant::now();
    assert_eq!(fetch(&server.address(), "GET", "/slow", &[("Range", "bytes=0-")], b"").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    let last = server.log().pop().unwrap();
    assert_eq!((last.status, last.sent, last.request.range()), (200, 100_000, Some(0)));
}
