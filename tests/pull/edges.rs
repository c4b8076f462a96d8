//! `sarus pull` at its edges: odd settings, lengths of nothing, drips, disks that are nearly full,
//! and servers that end in odd ways.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::Installation;
use crate::support::http::Answer;
use crate::support::oci::{Blob, Built, CONFIG, LAYER, busybox, descriptor, manifest, noise_layer};
use crate::support::pull::{finish, for_each, in_namespace};
use crate::support::server::Server;

/// A registry of this image, and the image's name there.
fn serve(built: &Built) -> (Server, String) {
    let built = built.clone();
    let server = Server::new(move |request| built.answer(request));
    let name = format!("{}/ns/name:tag", server.address());
    (server, name)
}

#[test]
fn odd_settings_of_the_environment_end_in_no_panic() {
    for (variable, value) in [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("https_proxy", "socks5h://127.0.0.1:1"),
        ("HTTPS_PROXY", "127.0.0.1:1"),
        ("HTTPS_PROXY", "nonsense://"),
        ("HTTPS_PROXY", "http://[::1"),
    ] {
        let installation = Installation::new();
        let mut command = installation.pull_command("registry.example/ns/name:tag");
        let output = finish(command.env(variable, value).env("SARUS_CONNECT_TIMEOUT", "2"), "");
        assert_eq!(output.status, 1, "{variable}={value}: {output}");
        installation.refused(&output);
    }
    let (_server, name) = serve(&Built::busybox());
    for variable in ["SARUS_CONNECT_TIMEOUT", "SARUS_STALL_TIMEOUT"] {
        for value in ["18446744073709551615", "99999999999999999999", "-1", "soon", ""] {
            let installation = Installation::new();
            let output = finish(installation.pull_command(&name).env(variable, value), "");
            assert_eq!(output.status, 0, "{variable}={value}: {output}");
        }
    }
}

#[test]
fn a_layer_of_no_bytes_is_none() {
    let built = Built::busybox();
    let layer = &built.layers[0];
    let nothing = descriptor(LAYER, &layer.digest, 0);
    let config = built.config.descriptor(CONFIG);
    let built = built.clone().with_manifest(manifest(&config, &[nothing]));
    let (_server, name) = serve(&built);
    let installation = Installation::new();
    installation.refused(&installation.pull(&name));
}

#[test]
fn a_damaged_blob_that_cannot_be_removed_is_reported() {
    let built = Built::busybox();
    let (_server, name) = serve(&built);
    let installation = Installation::new();
    let blob = format!("{}.tar", built.layers[0].digest);
    installation.write_home(".sarus/cache/x", "");
    let cache = installation.cache();
    fs::write(cache.join(&blob), "damaged").unwrap();
    chown(&cache, Some(0), Some(0)).unwrap();
    fs::set_permissions(&cache, PermissionsExt::from_mode(0o1777)).unwrap();
    let output = installation.pull(&name);
    assert_eq!(output.status, 1, "{output}");
    assert!(output.stderr.contains(&blob), "{output}");
}

#[test]
fn a_transfer_that_is_nearly_done_needs_no_room_for_all_of_it() {
    let built = Built::new(vec![busybox(), noise_layer("data", 30_000_000)]);
    let layer = &built.layers[1];
    let (_server, name) = serve(&built);
    let installation = Installation::new();
    let part = installation.write_home("part", &layer.bytes[..29_000_000]);
    installation.write_home(".sarus/cache/x", "");
    let (cache, uid) = (installation.cache(), installation.alice.uid);
    let setup = format!(
        "mount -t tmpfs -o size=36m,uid={uid},gid={uid},mode=0755 none {0}\n\
         cp --preserve=ownership {1} {0}/{2}.tar.part",
        cache.display(),
        part.display(),
        layer.digest
    );
    finish(&in_namespace(&setup, &installation.pull_command(&name)), "").succeeds();
    installation.run_release(&name);
}

#[test]
fn who_only_drips_is_not_waited_for() {
    for_each(["/manifests/", "/blobs/"], |part| {
        let built = Built::busybox();
        let server = Server::new(move |request| {
            let answer = built.answer(request);
            match request.path().contains(part) {
                true => answer.slowly(1, Duration::from_millis(700)),
                false => answer,
            }
        });
        let installation = Installation::new();
        let mut command = installation.pull_command(&format!("{}/ns/name:tag", server.address()));
        let output = finish(command.env("SARUS_STALL_TIMEOUT", "1"), "");
        assert_eq!(output.status, 1, "{part}: {output}");
        installation.refused(&output);
    });
}

#[test]
fn a_long_silence_is_explained() {
    let built = Built::busybox();
    let silent = AtomicBool::new(true);
    let server = Server::new(move |request| {
        let answer = built.answer(request);
        match request.path().contains("/manifests/") && silent.swap(false, Ordering::Relaxed) {
            true => answer.after(Duration::from_secs(8)),
            false => answer,
        }
    });
    let installation = Installation::new();
    let mut command = installation.pull_command(&format!("{}/ns/name:tag", server.address()));
    let output = finish(command.env("SARUS_STALL_TIMEOUT", "3"), "");
    assert!(output.stderr.contains("retrying"), "{output}");
    output.succeeds();
}

#[test]
fn a_body_that_does_not_end_after_its_last_byte_is_complete() {
    let built = Built::busybox();
    let size = built.layers[0].bytes.len();
    let served = built.clone();
    let server = Server::new(move |request| {
        let answer = served.answer(request);
        match request.path().contains(&served.layers[0].digest) {
            true => answer.chunked().stall_after(size),
            false => answer,
        }
    });
    Installation::new().pull_and_run(&format!("{}/ns/name:tag", server.address()));
}

#[test]
fn garbage_is_reported_without_waiting_for_other_layers() {
    let garbage = Blob::new(vec![b'?'; 50_000]);
    let built = Built::new(vec![garbage, noise_layer("data", 3_000_000)]);
    let server = Server::new(move |request| {
        let answer = built.answer(request);
        match request.path().contains(&built.layers[1].digest) {
            // All of it takes five minutes.
            true => answer.slowly(10_000, Duration::from_secs(1)),
            false => answer,
        }
    });
    let installation = Installation::new();
    let output = installation.pull(&format!("{}/ns/name:tag", server.address()));
    assert_eq!(output.status, 1, "{output}");
    installation.refused(&output);
}

#[test]
fn a_tag_that_is_not_there_is_no_matter_of_logins() {
    let built = Built::busybox();
    let server = Server::new(move |request| match request.path().contains("/manifests/") {
        true => Answer::json(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#),
        false => built.answer(request),
    });
    let installation = Installation::new();
    installation.write_home(".docker/config.json", r#"{"credsStore": "not-there"}"#);
    let name = format!("{}/ns/name:mistyped", server.address());
    let text = installation.pull_fails(&name, &[&name, "tag"]);
    assert!(!text.contains("docker-credential"), "{text}");
}

#[test]
fn tokens_may_end_at_odd_times() {
    for_each(["0", "-1", "1.5", "\"300\"", "null", "1e99", "18446744073709551615"], |expires| {
        let tokens = Server::new(move |_| {
            Answer::json(200, &format!(r#"{{"token":"good","expires_in":{expires}}}"#))
        });
        let realm = format!("Bearer realm=\"http://{}/token\"", tokens.address());
        let built = Built::busybox();
        let server = Server::new(move |request| match request.header("authorization") {
            Some("Bearer good") => built.answer(request),
            _ => Answer::new(401).header("WWW-Authenticate", &realm),
        });
        let installation = Installation::new();
        let output = installation.pull(&format!("{}/ns/name:tag", server.address()));
        assert_eq!(output.status, 0, "expires_in {expires}: {output}");
        assert!(tokens.log().len() < 20, "expires_in {expires}: {} tokens", tokens.log().len());
    });
}

#[test]
fn a_redirect_has_to_say_where() {
    let server = Server::new(|_| Answer::new(307));
    let name = format!("{}/ns/name:tag", server.address());
    let installation = Installation::new();
    let text = installation.refused(&installation.pull(&name));
    assert!(text.to_lowercase().contains("location") || text.contains("where"), "{text}");
}

#[test]
fn what_is_named_by_its_digest_and_is_here_is_not_asked_for() {
    let built = Built::busybox();
    let (server, _) = serve(&built);
    let name = format!("{}/ns/name@{}", server.address(), built.manifest.digest);
    let installation = Installation::new();
    installation.pull_and_run(&name);
    server.forget();
    assert!(installation.pull_and_run(&name).contains("up to date"));
    assert_eq!(server.log().len(), 0);
}

#[test]
fn a_server_that_is_silent_when_greeted_in_tls_is_asked_in_the_clear() {
    let (server, _) = serve(&Built::busybox());
    let upstream = server.address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The threads end with this process.
    spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = upstream.clone();
            spawn(move || {
                let mut first = [0];
                client.peek(&mut first).unwrap();
                if first == [0x16] {
                    sleep(Duration::from_secs(60));
                    return;
                }
                let server = TcpStream::connect(upstream).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                spawn(move || io::copy(&mut from, &mut to).ok());
                io::copy(&mut &server, &mut &client).ok();
            });
        }
    });
    let installation = Installation::new();
    let name = format!("{address}/ns/name:tag");
    let mut command = installation.pull_command(&name);
    command.env("SARUS_CONNECT_TIMEOUT", "1").env("SARUS_STALL_TIMEOUT", "2");
    let start = Instant::now();
    finish(&command, "").succeeds();
    installation.run_release(&name);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
