//! `sarus pull` by many processes at once, and by processes that are killed: every blob crosses the
//! network once, and what is there is used.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::oci::{Built, busybox, noise_layer};
use crate::support::pull::behind;
use crate::support::registry::Registry;
use crate::support::server::{Exchange, Server};
use crate::support::{Installation, Output};

/// An image with so many layers of this size beside busybox.
fn image(count: usize, size: usize) -> Built {
    let noise = (0..count).map(|number| noise_layer(&format!("data/{number}"), size));
    Built::new(std::iter::once(busybox()).chain(noise).collect())
}

/// Starts a pull that ends by itself after two minutes at most.
fn start(installation: &Installation, name: &str) -> Child {
    let command = installation.pull_command(name);
    let mut command = behind(&["timeout", "--signal=KILL", "120"], &command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The same as the very process, to be killed.
fn start_itself(installation: &Installation, name: &str) -> Child {
    let mut command = installation.pull_command(name);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn end(child: Child, what: &str) -> String {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn fifty_pulls_of_one_image_are_one_download_and_one_conversion() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let built = image(4, 2_000_000);
    built.push(&registry, "ns/name", "latest");
    let name = format!("{}/ns/name", registry.address());
    let since = registry.log().len();
    let pulls: Vec<_> = (0..50).map(|_| start(&installation, &name)).collect();
    let shown: Vec<_> = pulls.into_iter().map(|pull| end(pull, "one of fifty")).collect();
    let mut expected: Vec<_> =
        built.blobs().map(|blob| format!("/v2/ns/name/blobs/{}", blob.digest)).collect();
    expected.sort();
    assert_eq!(registry.fetched(since, "/blobs/"), expected);
    let conversions = shown.iter().filter(|text| text.contains("> make squashfs image")).count();
    assert_eq!(conversions, 1, "{shown:#?}");
    let current = shown.iter().filter(|text| text.contains("already available and up to date"));
    assert_eq!(current.count(), 49);
    installation.run_release(&name);
    let images = installation.sarus(&installation.alice, &["images"]).succeeds();
    assert_eq!(images.lines().count(), 2, "{images}");
}

#[test]
fn images_that_share_a_layer_share_its_download() {
    let installation = Installation::new();
    let first = image(2, 1_000_000);
    let layers = [&first.layers[..2], &[noise_layer("data/other", 1_000_000)]].concat();
    let second = Built::with_note(layers, "second");
    let server = Server::new({
        let (first, second) = (first.clone(), second.clone());
        move |request| {
            let is_first = request.path().contains("/first/");
            let answer = if is_first { &first } else { &second }.answer(request);
            match request.path().contains("/blobs/") {
                true => answer.slowly(100_000, Duration::from_millis(100)),
                false => answer,
            }
        }
    });
    let names = ["first", "second"].map(|name| format!("{}/ns/{name}", server.address()));
    let pulls = names.each_ref().map(|name| start(&installation, name));
    for (pull, name) in pulls.into_iter().zip(&names) {
        end(pull, name);
        installation.run_release(name);
    }
    for layer in first.layers.iter().chain(&second.layers[2..]) {
        assert_eq!(server.log_of(&layer.digest).len(), 1, "{:?}", server.log());
    }
}

#[test]
fn who_waits_takes_over_from_who_dies() {
    for other in ["same", "another"] {
        let installation = Installation::new();
        let built = image(1, 3_000_000);
        let layer = built.layers[1].clone();
        let half = layer.bytes.len() / 2;
        let server = Server::new({
            let (built, layer, stalls) = (built.clone(), layer.clone(), AtomicBool::new(true));
            move |request| {
                let answer = built.answer(request);
                let stall =
                    request.path().contains(&layer.digest) && stalls.swap(false, Ordering::SeqCst);
                if stall { answer.stall_after(half) } else { answer }
            }
        });
        let mut first = start_itself(&installation, &format!("{}/ns/same", server.address()));
        server.wait_for_stall();
        let name = format!("{}/ns/{other}", server.address());
        let mut second = start(&installation, &name);
        sleep(Duration::from_millis(1_500));
        assert_eq!(second.try_wait().unwrap(), None, "{other} does not wait");
        assert_eq!(server.log_of(&layer.digest).len(), 1, "{other}");
        first.kill().unwrap();
        first.wait().unwrap();
        end(second, other);
        installation.run_release(&name);
        let log = server.log_of(&layer.digest);
        let sent: usize = log.iter().map(|entry| entry.sent).sum();
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(sent < layer.bytes.len() + half / 4, "{other}: {sent} bytes, {log:?}");
    }
}

/// What was asked for since the log had `since` entries.
fn paths_since(log: &[Exchange], since: usize) -> Vec<String> {
    log[since..].iter().map(|entry| entry.request.path().to_owned()).collect()
}

#[track_caller]
fn assert_not_fetched_again(server: &Server, since: usize, whole: &[String]) {
    for path in paths_since(&server.log(), since) {
        let digest = path.rsplit_once('/').map_or("", |(_, digest)| digest);
        assert!(!whole.iter().any(|whole| whole == digest), "{digest} was there already");
    }
}

#[test]
fn a_pull_that_is_killed_anywhere_goes_on_from_there() {
    let built = image(2, 1_500_000);
    let layers = &built.layers;
    let size = layers[2].bytes.len();
    let points: Vec<(String, usize)> = vec![
        ("/manifests/".into(), 0),
        ("/manifests/".into(), 100),
        (built.config.digest.clone(), 0),
        (built.config.digest.clone(), 100),
        (layers[0].digest.clone(), 0),
        (layers[0].digest.clone(), 200_000),
        (layers[2].digest.clone(), 1),
        (layers[2].digest.clone(), size / 4),
        (layers[2].digest.clone(), size / 2),
        (layers[2].digest.clone(), size - 100_000),
        (layers[2].digest.clone(), size - 1),
        (layers[2].digest.clone(), size),
    ];
    for (part, bytes) in points {
        let installation = Installation::new();
        let is_bad = Arc::new(AtomicBool::new(true));
        let server = Server::new({
            let (built, part, is_bad) = (built.clone(), part.clone(), Arc::clone(&is_bad));
            move |request| {
                let answer = built.answer(request);
                let stall = is_bad.load(Ordering::SeqCst) && request.path().contains(&part);
                // A client that has its whole length waits for no more: it is killed later.
                if stall { answer.stall_after(bytes) } else { answer }
            }
        });
        let name = format!("{}/ns/name", server.address());
        let mut pull = start_itself(&installation, &name);
        server.wait_for_stall();
        // Let it take what is on its way.
        sleep(Duration::from_millis(300));
        pull.kill().unwrap();
        pull.wait().unwrap();
        is_bad.store(false, Ordering::SeqCst);
        if bytes < size {
            installation.assert_nothing_is_left();
        }
        let (whole, since) = (installation.cached(), server.log().len());
        installation.pull_and_run(&name);
        assert_not_fetched_again(&server, since, &whole);
        for blob in built.blobs() {
            let sent: usize = server.log_of(&blob.digest).iter().map(|entry| entry.sent).sum();
            // What was in the memory of who was killed may come twice.
            let limit = blob.bytes.len() + (256 << 10);
            assert!(sent <= limit, "killed at {bytes} of {part}: {sent} bytes of {}", blob.digest);
        }
        assert_eq!(installation.cached().len(), 4);
    }
}

#[test]
fn a_pull_that_is_killed_again_and_again_completes() {
    let built = image(8, 4_000_000);
    let server = Server::new({
        let built = built.clone();
        move |request| built.answer(request).slowly(1 << 20, Duration::from_millis(10))
    });
    let name = format!("{}/ns/name", server.address());
    // How long it takes undisturbed tells when to kill.
    let begin = Instant::now();
    Installation::new().pull_and_run(&name);
    let whole_time = begin.elapsed();
    let installation = Installation::new();
    for tenth in 1..=10 {
        let (whole, since) = (installation.cached(), server.log().len());
        let mut pull = start_itself(&installation, &name);
        sleep(whole_time * tenth / 10);
        pull.kill().unwrap();
        pull.wait().unwrap();
        assert_not_fetched_again(&server, since, &whole);
    }
    let (whole, since) = (installation.cached(), server.log().len());
    installation.pull_and_run(&name);
    assert_not_fetched_again(&server, since, &whole);
    // Nothing of those who were killed is left, once somebody else has pulled.
    let mut find = Command::new("find");
    find.arg(installation.repository(&installation.alice)).arg(installation.path("tmp"));
    find.args(["-type", "f", "-size", "+0", "-printf", "%f\n"]);
    let left = Output::of(&mut find).succeeds();
    let expected: BTreeSet<_> = built
        .blobs()
        .map(|blob| format!("{}.tar", blob.digest))
        .chain(["latest.squashfs", "latest.meta", "metadata.json"].map(str::to_owned))
        .collect();
    let left: BTreeSet<_> = left.lines().map(str::to_owned).collect();
    assert_eq!(left, expected);
}

#[test]
fn an_interrupted_pull_ends_at_once_and_goes_on_later() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let installation = Installation::new();
        let built = image(1, 2_000_000);
        let is_bad = Arc::new(AtomicBool::new(true));
        let server = Server::new({
            let (built, is_bad) = (built.clone(), Arc::clone(&is_bad));
            move |request| {
                let answer = built.answer(request);
                let stall = request.path().contains(&built.layers[1].digest);
                if stall && is_bad.load(Ordering::SeqCst) {
                    answer.stall_after(1_000_000)
                } else {
                    answer
                }
            }
        });
        let name = format!("{}/ns/name", server.address());
        let mut pull = start_itself(&installation, &name);
        server.wait_for_stall();
        sleep(Duration::from_millis(300));
        let (begin, pid) = (Instant::now(), pull.id().to_string());
        Output::of(Command::new("kill").args(["-s", signal, &pid])).succeeds();
        let status = pull.wait().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(10), "{signal}");
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(number);
        assert!(by_signal || status.code().is_some_and(|code| code != 0), "{signal}: {status}");
        installation.assert_nothing_is_left();
        is_bad.store(false, Ordering::SeqCst);
        installation.pull_and_run(&name);
        let ranges: Vec<_> = server
            .log_of(&built.layers[1].digest)
            .iter()
            .map(|entry| entry.request.range().unwrap_or(0))
            .collect();
        assert!(ranges.len() == 2 && ranges[1] > 0, "{signal}: {ranges:?}");
    }
}

#[test]
fn as_many_layers_are_downloaded_at_once_as_the_site_allows() {
    for (limit, setting) in [(1, Some("1")), (2, Some("2")), (4, None), (6, Some("6"))] {
        let built = image(7, 10_000);
        // Requests under way now, and the most there were.
        let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (arrived, all_there) = (Mutex::new(0), Condvar::new());
        let server = Server::new({
            let (built, most) = (built.clone(), Arc::clone(&most));
            move |request| {
                let is_layer =
                    built.layers.iter().any(|layer| request.path().contains(&layer.digest));
                if is_layer {
                    let count = now.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(count, Ordering::SeqCst);
                    // The first ones are answered when as many have come as shall.
                    let mut arrived = arrived.lock().unwrap();
                    *arrived += 1;
                    all_there.notify_all();
                    let few = |arrived: &mut usize| *arrived < limit;
                    let patience = Duration::from_secs(20);
                    drop(all_there.wait_timeout_while(arrived, patience, few).unwrap());
                    sleep(Duration::from_millis(50));
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                built.answer(request)
            }
        });
        let mut installation = Installation::new();
        if let Some(setting) = setting {
            installation = installation.set("maxConcurrentDownloads", setting);
        }
        installation.pull(&format!("{}/ns/name", server.address())).succeeds();
        assert_eq!(most.load(Ordering::SeqCst), limit);
    }
}

#[test]
fn the_cache_is_bounded_and_forgets_what_was_used_least_recently() {
    let size = 1_000_000;
    let images = ["a", "b", "c"].map(|name| {
        let layers = (0..2).map(|n| noise_layer(&format!("{name}{n}"), size)).collect();
        Built::with_note(layers, name)
    });
    let server = Server::new({
        let images = images.clone();
        move |request| {
            let index = ["/a/", "/b/", "/c/"].map(|name| request.path().contains(name));
            images[index.iter().position(|is_it| *is_it).unwrap_or(0)].answer(request)
        }
    });
    let name = |image: &str| format!("{}/ns/{image}/x", server.address());
    let has = |installation: &Installation| {
        let cached = installation.cached();
        images
            .each_ref()
            .map(|image| image.layers.iter().filter(|layer| cached.contains(&layer.digest)).count())
    };
    let installation = Installation::new().set("cacheMaxSize", "\"5MB\"");
    installation.pull(&name("a")).succeeds();
    installation.pull(&name("b")).succeeds();
    assert_eq!(has(&installation), [2, 2, 0]);
    installation.sarus(&installation.alice, &["rmi", &name("a")]).succeeds();
    installation.pull(&name("a")).succeeds();
    installation.pull(&name("c")).succeeds();
    let [a, b, c] = has(&installation);
    assert!(a == 2 && b < 2 && c == 2, "{:?}", has(&installation));
    let images = installation.sarus(&installation.alice, &["images"]).succeeds();
    assert_eq!(images.lines().count(), 4, "{images}");
    let installation = installation.set("cacheMaxSize", "\"0B\"");
    installation.sarus(&installation.alice, &["rmi", &name("b")]).succeeds();
    installation.pull(&name("b")).succeeds();
    assert_eq!(installation.cached(), [""; 0]);
    let again = installation.pull(&name("b")).succeeds();
    assert!(again.contains("up to date"), "{again}");
}
