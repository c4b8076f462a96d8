//! `sarus pull` by the names and ways of the world outside: Docker Hub's names, proxies, and logins
//! that other programs keep, or do not keep well.

use std::fs;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use crate::support::certificates::{Authority, Validity};
use crate::support::http::{Answer, Request};
use crate::support::oci::Built;
use crate::support::proxy::Proxy;
use crate::support::pull::{finish, in_namespace, measure};
use crate::support::registry::{Registry, Setup};
use crate::support::server::Server;
use crate::support::token::{base64, basic};
use crate::support::{Image, Installation, Output};

fn archive() -> String {
    format!("docker-archive:{}", Image::busybox().docker_archive().display())
}

/// Lets `command` find these names at this address.
fn with_hosts(
    installation: &Installation,
    address: &str,
    names: &str,
    command: &Command,
) -> Command {
    let hosts = installation.path("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {names}\n")).unwrap();
    in_namespace(&format!("mount --bind {} /etc/hosts", hosts.display()), command)
}

/// Trusts this authority alone.
fn trust(installation: &Installation, authority: &Authority, command: &mut Command) {
    let file = installation.path("ca.crt");
    fs::copy(authority.certificate(), &file).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    command.env("SSL_CERT_FILE", file);
}

#[test]
fn images_without_a_server_come_from_docker_hub() {
    const NAMES: &str = "index.docker.io registry-1.docker.io docker.io registry.docker.io";
    // The port has to be 443, which no other process has on this address.
    let process = std::process::id().to_le_bytes();
    let address = format!("127.44.{}.{}", process[1], process[0] | 1);
    let authority = Authority::new();
    let names = NAMES.split(' ').map(|name| format!("DNS:{name}")).collect::<Vec<_>>().join(",");
    let setup = Setup::default().tls(authority.issue(&names, Validity::Good));
    let setup = setup.address(&format!("{address}:443"));
    for (login, key) in [(false, ""), (true, "https://index.docker.io/v1/"), (true, "docker.io")] {
        let setup = if login { setup.clone().password("alice", "secret") } else { setup.clone() };
        let registry = Registry::with(setup);
        registry.push(&archive(), "library/busybox", &[]);
        registry.push(&archive(), "some/thing:1", &[]);
        let installation = Installation::new();
        if login {
            let auth = base64(b"alice:secret");
            let text = format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}}}"#);
            installation.write_home(".docker/config.json", text);
        }
        for (name, is_new) in [
            ("busybox", true),
            ("docker.io/library/busybox:latest", false),
            ("index.docker.io/busybox", false),
            ("library/busybox", false),
            ("some/thing:1", true),
        ] {
            let mut command = installation.pull_command(name);
            trust(&installation, &authority, &mut command);
            let command = with_hosts(&installation, &address, NAMES, &command);
            let output = finish(&command, "");
            assert_eq!(output.status, 0, "{key}: {output}");
            assert_eq!(output.stdout.contains("up to date"), !is_new, "{name}: {output}");
            installation.run_release(name);
        }
        let images = installation.sarus(&installation.alice, &["images"]).succeeds();
        let shown: Vec<Vec<_>> =
            images.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let [busybox, thing] = &shown[..] else { panic!("{images}") };
        assert_eq!((busybox[0], busybox[1], busybox[5]), ("busybox", "latest", "index.docker.io"));
        assert_eq!((thing[0], thing[1], thing[5]), ("some/thing", "1", "index.docker.io"));
    }
}

#[test]
fn a_proxy_leads_to_the_registry() {
    let authority = Authority::new();
    let certificate = authority.issue("DNS:registry.example", Validity::Good);
    let registry = Registry::with(Setup::default().tls(certificate));
    registry.push(&archive(), "ns/name", &[]);
    let server = format!("registry.example:{}", registry.port());
    let name = format!("{server}/ns/name");
    let port = registry.port();
    for (variable, user, no_proxy, is_used) in [
        ("HTTPS_PROXY", "", "", true),
        ("https_proxy", "", "", true),
        ("HTTPS_PROXY", "alice:s%40cret@", "", true),
        ("HTTPS_PROXY", "", "other.example,10.0.0.0/8", true),
        ("HTTPS_PROXY", "", "ample", true),
        ("HTTPS_PROXY", "", "other.example, registry.example", false),
        ("HTTPS_PROXY", "", ".example", false),
        ("https_proxy", "", "*", false),
        ("HTTPS_PROXY", "", &format!("registry.example:{port}"), false),
        ("HTTP_PROXY", "", "", false),
    ] {
        let proxy = Proxy::new(Some(registry.address()));
        let installation = Installation::new();
        let mut command = installation.pull_command(&name);
        trust(&installation, &authority, &mut command);
        command.env(variable, format!("http://{user}{}", proxy.address()));
        command.env(if variable == "https_proxy" { "no_proxy" } else { "NO_PROXY" }, no_proxy);
        // Behind a proxy, nodes often cannot resolve names of the world at all.
        let hosts = if is_used { "nothing.example" } else { "registry.example" };
        let output = finish(&with_hosts(&installation, "127.0.0.1", hosts, &command), "");
        let row = format!("{variable}, NO_PROXY '{no_proxy}'");
        assert_eq!(output.status, 0, "{row}: {output}");
        installation.run_release(&name);
        let log = proxy.log();
        assert_eq!(!log.is_empty(), is_used, "{row}: {log:?}");
        let expected = (!user.is_empty()).then(|| basic("alice", "s@cret"));
        for (target, authorization) in log {
            assert_eq!((target, authorization), (server.clone(), expected.clone()), "{row}");
        }
    }
}

#[test]
fn a_proxy_that_does_not_help_is_named() {
    let refusing = Proxy::new(None);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, word) in [(refusing.address(), "proxy|403"), (nobody.to_string(), "refused")] {
        let installation = Installation::new();
        let name = "registry.example/ns/name:tag";
        let mut command = installation.pull_command(name);
        command.env("HTTPS_PROXY", format!("http://alice:secret@{address}"));
        let text = installation.failed(&finish(&command, ""), &[name, word]);
        assert!(text.to_lowercase().contains("proxy"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

/// Somebody between a client and a registry, who cuts the first connection after some bytes and
/// then takes all others without an answer. The first byte of each, and where it listens.
fn cutter(upstream: String) -> (String, Arc<Mutex<Vec<u8>>>) {
    const HANDSHAKE_AND_SOME: u64 = 20_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let first_bytes = Arc::clone(&seen);
    // The threads end with this process.
    spawn(move || {
        for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut first = [0];
            if matches!(client.peek(&mut first), Ok(1)) {
                first_bytes.lock().unwrap().push(first[0]);
            }
            if number > 0 {
                client.shutdown(Shutdown::Both).ok();
                continue;
            }
            let server = TcpStream::connect(&upstream).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            spawn(move || io::copy(&mut from, &mut to).ok());
            spawn(move || {
                io::copy(&mut server.take(HANDSHAKE_AND_SOME), &mut &client).ok();
                client.shutdown(Shutdown::Both).ok();
            });
        }
    });
    (address, seen)
}

#[test]
fn a_registry_that_has_spoken_tls_is_never_asked_in_the_clear() {
    const CLIENT_HELLO: u8 = 0x16;
    let authority = Authority::new();
    let certificate = authority.issue("IP:127.0.0.1", Validity::Good);
    let registry = Registry::with(Setup::default().tls(certificate));
    registry.push(&archive(), "ns/name", &[]);
    let (address, seen) = cutter(registry.address());
    let installation = Installation::new().set("insecureRegistries", &format!("[\"{address}\"]"));
    let name = format!("{address}/ns/name:latest");
    let mut command = installation.pull_command(&name);
    trust(&installation, &authority, &mut command);
    installation.failed(&finish(&command, ""), &[&name]);
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() > 1 && seen.iter().all(|byte| *byte == CLIENT_HELLO), "{seen:?}");
}

#[test]
fn logins_that_are_not_kept_well_harm_no_public_image() {
    let built = Built::busybox();
    let answer = move |request: &Request| {
        let is_private = request.path().starts_with("/v2/private/");
        match is_private && request.header("authorization").is_none() {
            true => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
            false => built.answer(request),
        }
    };
    let helper = |name: &str| format!(r#"{{"credsStore": "{name}"}}"#);
    let rows: Vec<(&str, String, &str)> = vec![
        ("no such helper", helper("none"), ""),
        ("a helper that fails", helper("test"), "echo 'not found in native keychain'; exit 1"),
        ("a helper that says nothing", helper("test"), "exit 0"),
        ("a helper that talks nonsense", helper("test"), "echo '<html>'; exit 0"),
        ("a helper that talks a lot", helper("test"), "yes | head -c 200000000"),
        ("a helper that is a path", helper("../test"), "echo '{}'"),
        ("no JSON", "{\"auths\": ".into(), ""),
        ("deep JSON", "[".repeat(100_000), ""),
        ("nothing", String::new(), ""),
        ("other types", r#"{"auths": [1], "credHelpers": "x", "credsStore": 5}"#.into(), ""),
        ("no base64", r#"{"auths": {"SERVER": {"auth": "%%%"}}}"#.into(), ""),
        ("no colon", format!(r#"{{"auths": {{"SERVER": {{"auth": "{}"}}}}}}"#, base64(b"x")), ""),
        (
            "another server",
            format!(
                r#"{{"auths": {{"127.0.0.1": {{"auth": "{0}"}}, "127.0.0.1:1": {{"auth": "{0}"}},
                    "0.0.1": {{"auth": "{0}"}}}}}}"#,
                base64(b"alice:secret")
            ),
            "",
        ),
    ];
    for (row, config, script) in rows {
        let server = Server::new(answer.clone());
        let installation = Installation::new();
        installation.write_home(".docker/config.json", config.replace("SERVER", &server.address()));
        let program = installation
            .write_home("bin/docker-credential-test", format!("#!/bin/sh\nread -r x\n{script}\n"));
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", installation.path("home/alice/bin").display());
        let pull = |folder: &str| {
            let name = format!("{}/{folder}/name:tag", server.address());
            measure(installation.pull_command(&name).env("PATH", &path))
        };
        let (private, memory) = pull("private");
        assert!(memory < 100, "{row}: {memory} MiB");
        assert_eq!(private.status, 1, "{row}: {private}");
        installation.refused(&private);
        let (public, _) = pull("public");
        assert_eq!(public.status, 0, "{row}: {public}");
        assert!(server.log().iter().all(|entry| entry.request.header("authorization").is_none()));
    }
}

/// Makes `path` something other than a file, which belongs to alice.
fn make_odd(installation: &Installation, path: &Path, kind: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut make = match kind {
        "fifo" => Command::new("mkfifo"),
        _ => Command::new("mkdir"),
    };
    Output::of(make.arg(path)).succeeds();
    installation.write_home(".owned", "");
}

#[test]
fn what_is_no_file_in_the_cache_stops_nobody_for_ever() {
    let built = Built::busybox();
    let digest = built.layers[0].digest.clone();
    let server = Server::new(move |request| built.answer(request));
    let name = format!("{}/ns/name:tag", server.address());
    for kind in ["fifo", "directory"] {
        for suffix in ["tar", "tar.part"] {
            let installation = Installation::new();
            let odd = installation.cache().join(format!("{digest}.{suffix}"));
            make_odd(&installation, &odd, kind);
            // It may be replaced, or reported.
            let output = installation.pull(&name);
            match output.status {
                0 => installation.run_release(&name),
                1 => assert!(output.stderr.contains(&digest), "{kind}, {suffix}: {output}"),
                _ => panic!("{kind}, {suffix}: {output}"),
            }
        }
    }
}
