//! `sarus pull` from a real registry: images of every kind, what it prints, keeps and fetches.

use std::fs;
use std::process::Command;

use crate::support::oci::{
    Blob, Built, INDEX, MANIFEST, busybox, digest, empty_layer, noise_layer,
};
use crate::support::pull::{finish, in_namespace, measure, short};
use crate::support::registry::Registry;
use crate::support::{Image, Installation, Output, Scratch, User};

/// A small image of these many layers, busybox among them.
fn layered(count: usize) -> Built {
    let noise = (1..count).map(|number| noise_layer(&format!("data/{number}"), 5_000));
    Built::new(std::iter::once(busybox()).chain(noise).collect())
}

/// What is fetched for an image that is not known: each blob once.
fn blobs_of(built: &Built, name: &str) -> Vec<String> {
    let mut paths: Vec<_> =
        built.blobs().map(|blob| format!("/v2/{name}/blobs/{}", blob.digest)).collect();
    paths.sort();
    paths.dedup();
    paths
}

#[test]
fn images_of_every_kind_are_pulled_and_run() {
    let installation = Installation::new();
    let archive = format!("docker-archive:{}", Image::busybox().docker_archive().display());
    let layout = format!("oci:{}:latest", Image::busybox().oci_layout().display());
    for (source, options, kind) in [
        (&archive, &["--format=v2s2"][..], "docker.image.rootfs.diff.tar.gzip"),
        (&layout, &["--format=v2s2"], "docker.image.rootfs.diff.tar.gzip"),
        (&layout, &["--format=oci"], "oci.image.layer.v1.tar+gzip"),
        (&archive, &["--format=oci", "--dest-compress-format=zstd"], "image.layer.v1.tar+zstd"),
    ] {
        let registry = Registry::plain();
        for name in ["name", "ns/name:tag", "n/e-s_t.e/d:1.0_a-B"] {
            registry.push(source, name, options);
            let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
            let (_, manifest) = registry.manifest(repository, tag);
            assert!(manifest.contains(kind), "{manifest}");
            let reference = format!("{}/{name}", registry.address());
            installation.pull_and_run(&reference);
            let expected = digest(manifest.as_bytes());
            let repository = format!("{}/{repository}", registry.address());
            assert_eq!(installation.digest_of(&repository, tag), short(&expected));
        }
    }
}

#[test]
fn the_output_is_as_the_manual_shows_it() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let built = layered(3);
    built.push(&registry, "ns/name", "tag");
    let address = registry.address();
    let reference = format!("{address}/ns/name:tag");
    let shown = installation.pull_and_run(&reference);
    let repository = installation.repository(&installation.alice);
    let repository = repository.display();
    let lines: Vec<_> = shown.lines().collect();
    let head = [
        format!("# image            : {address}/ns/name/tag"),
        format!("# cache directory  : \"{repository}/cache\""),
        format!("# temp directory   : \"{}\"", installation.path("tmp").display()),
        format!("# images directory : \"{repository}/images\""),
        "> save image layers ...".into(),
    ];
    assert_eq!(lines[..5], head, "{shown}");
    let expanding = lines.iter().position(|line| *line == "> expanding image layers ...").unwrap();
    for layer in &built.layers {
        for label in ["pulling        ", "completed      "] {
            let line = format!("> {label}: {}", layer.digest);
            let found = lines[5..expanding].iter().filter(|found| **found == line);
            assert_eq!(found.count(), 1, "{line} in {shown}");
        }
        let line = format!("> extracting     : \"{repository}/cache/{}.tar\"", layer.digest);
        assert!(lines[expanding..].contains(&line.as_str()), "{line} in {shown}");
    }
    let image = format!("{repository}/images/{address}/ns/name/tag.squashfs");
    assert!(lines[expanding..].contains(&format!("> make squashfs image: \"{image}\"").as_str()));
    assert!(fs::exists(&image).unwrap());
    // Another image of the same layers: nothing but its configuration is fetched.
    let other = Built::with_note(built.layers.clone(), "other");
    other.push(&registry, "ns/other", "tag");
    let start = registry.log().len();
    let shown = installation.pull_and_run(&format!("{address}/ns/other:tag"));
    for layer in &built.layers {
        assert!(shown.contains(&format!("> found in cache : {}", layer.digest)), "{shown}");
    }
    let expected = [format!("/v2/ns/other/blobs/{}", other.config.digest)];
    assert_eq!(registry.fetched(start, "/blobs/"), expected);
}

#[test]
fn an_image_that_is_current_is_not_pulled_again() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let name = format!("{}/ns/name", registry.address());
    let old = layered(2);
    old.push(&registry, "ns/name", "latest");
    installation.pull_and_run(&name);
    assert_eq!(registry.fetched(0, "/blobs/"), blobs_of(&old, "ns/name"));
    let (index, start) =
        (installation.sarus(&installation.alice, &["images"]), registry.log().len());
    for _ in 0..2 {
        let shown = installation.pull_and_run(&name);
        assert!(shown.contains("is already available and up to date"), "{shown}");
    }
    assert_eq!(registry.fetched(start, "/blobs/"), [""; 0]);
    let again = installation.sarus(&installation.alice, &["images"]);
    assert_eq!(index.stdout, again.stdout);
    // Its image is gone, but not its blobs.
    installation.sarus(&installation.alice, &["rmi", &name]).succeeds();
    installation.pull_and_run(&name);
    assert_eq!(registry.fetched(start, "/blobs/"), [""; 0]);
    // The tag moves on.
    let new = Built::new([old.layers.clone(), vec![noise_layer("data/new", 5_000)]].concat());
    new.push(&registry, "ns/name", "latest");
    let start = registry.log().len();
    let shown = installation.pull_and_run(&name);
    assert!(!shown.contains("up to date"), "{shown}");
    assert_eq!(installation.digest_of(&name, "latest"), short(&new.manifest.digest));
    let mut expected: Vec<_> = [&new.config, &new.layers[2]]
        .map(|blob| format!("/v2/ns/name/blobs/{}", blob.digest))
        .into();
    expected.sort();
    assert_eq!(registry.fetched(start, "/blobs/"), expected);
    let list = ["run", &name, "ls", "/data"];
    assert_eq!(installation.sarus(&installation.alice, &list).succeeds(), "1\nnew\n");
}

/// Pushes an image for each platform, and an index of them; their manifests' digests.
fn push_index(registry: &Registry, name: &str, kind: &str, platforms: &[&str]) -> Vec<String> {
    let mut entries = vec![];
    let mut digests = vec![];
    for platform in platforms {
        let built = Built::for_platform(vec![busybox()], platform);
        built.push(registry, name, &platform.replace('/', "-"));
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let variant = parts.next().map_or(String::new(), |v| format!(r#","variant":"{v}""#));
        let Blob { digest, bytes } = &built.manifest;
        let size = bytes.len();
        entries.push(format!(
            r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size},"platform":
                {{"architecture":"{architecture}","os":"{os}"{variant}}}}}"#
        ));
        digests.push(built.manifest.digest);
    }
    let entries = entries.join(",");
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{entries}]}}"#);
    registry.put_manifest(name, "latest", kind, text.as_bytes());
    digests
}

#[test]
fn of_an_index_the_image_for_the_platform_is_pulled() {
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let platforms =
        ["unknown/unknown", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6", "linux/amd64"];
    let host = if cfg!(target_arch = "x86_64") { 4 } else { 1 };
    for kind in [INDEX, list] {
        let installation = Installation::new();
        let registry = Registry::plain();
        let digests = push_index(&registry, "ns/multi", kind, &platforms);
        let name = format!("{}/ns/multi", registry.address());
        installation.pull_and_run(&name);
        assert_eq!(installation.digest_of(&name, "latest"), short(&digests[host]));
        for (platform, index) in
            [("linux/arm64", 1), ("linux/arm/v7", 2), ("linux/arm/v6", 3), ("linux/amd64", 4)]
        {
            finish(&installation.pull_with(&["--platform", platform, &name]), "").succeeds();
            assert_eq!(
                installation.digest_of(&name, "latest"),
                short(&digests[index]),
                "{platform}"
            );
        }
        let again = installation.pull(&name).succeeds();
        assert_eq!(again.contains("up to date"), host == 4, "{again}");
    }
}

#[test]
fn an_index_of_buildah_is_understood() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let image = Image::busybox().architecture("s390x");
    let layout = format!("oci:{}:latest", image.oci_layout().display());
    registry.push(&layout, "ns/single:1", &["--format=oci"]);
    let (_, manifest) = registry.manifest("ns/single", "1");
    let storage = Scratch::new("buildah");
    let path = |name: &str| storage.path(name).into_os_string().into_string().unwrap();
    let address = registry.address();
    let (from, to) =
        (format!("docker://{address}/ns/single:1"), format!("docker://{address}/ns/list:1"));
    for args in [
        &["create", "list"][..],
        &["add", "--tls-verify=false", "--arch=s390x", "list", &from],
        &["push", "--tls-verify=false", "--all", "list", &to],
    ] {
        let mut buildah = Command::new("buildah");
        buildah.args(["--root", &path("root"), "--runroot", &path("run"), "--storage-driver=vfs"]);
        Output::of(buildah.arg("manifest").args(args)).succeeds();
    }
    let name = format!("{address}/ns/list:1");
    let error = installation.pull_fails(&name, &[&name, "platform|amd64|arm64"]);
    assert!(error.contains("s390x"), "{error}");
    finish(&installation.pull_with(&["--platform=linux/s390x", &name]), "").succeeds();
    installation.run_release(&name);
    let digest = digest(manifest.as_bytes());
    assert_eq!(installation.digest_of(&format!("{address}/ns/list"), "1"), short(&digest));
}

#[test]
fn an_image_is_named_by_digest_and_by_what_people_paste() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let built = layered(1);
    built.push(&registry, "ns/name", "tag");
    let plain = format!("{}/ns/name:tag", registry.address());
    let start = registry.log().len();
    for name in [
        plain.clone(),
        format!("https://{plain}"),
        format!("docker://{plain}"),
        format!("{plain} "),
        format!(" {plain}\t\n"),
    ] {
        let shown = installation.pull(&name).succeeds();
        assert_eq!(shown.contains("up to date"), name != plain, "{name:?}: {shown}");
        installation.run_release(&plain);
    }
    let digest = &built.manifest.digest;
    let by_digest = format!("{}/ns/name@{digest}", registry.address());
    installation.pull_and_run(&by_digest);
    let paths = registry.fetched(start, "/manifests/");
    assert!(paths.contains(&format!("/v2/ns/name/manifests/{digest}")), "{paths:?}");
    let agents = registry.log()[start..].iter().all(|access| access.agent.contains("sarus"));
    assert!(agents, "{:?}", registry.log());
}

#[test]
fn many_layers_are_merged_in_their_order() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let layers = (0..60).map(|number| {
        let data = noise_layer("data/same", 1_000 + 8 * number);
        [data, noise_layer(&format!("data/{number}"), 100)]
    });
    // Some tools put the same layer, most often an empty one, into an image many times.
    let same = [noise_layer("data/x", 100), empty_layer(), empty_layer()];
    let all = [busybox()].into_iter().chain(same.clone()).chain(layers.flatten()).chain(same);
    let built = Built::new(all.collect());
    built.push(&registry, "ns/many", "latest");
    let name = format!("{}/ns/many", registry.address());
    installation.pull_and_run(&name);
    assert_eq!(registry.fetched(0, "/blobs/"), blobs_of(&built, "ns/many"));
    let count = ["run", &name, "sh", "-c", "ls /data | wc -l; wc -c < /data/same"];
    let shown = installation.sarus(&installation.alice, &count).succeeds();
    assert_eq!(shown, "62\n1472\n");
}

#[test]
fn a_terminal_of_any_width_shows_the_pull() {
    let registry = Registry::plain();
    layered(6).push(&registry, "ns/name", "latest");
    let name = format!("{}/ns/name", registry.address());
    for (columns, term) in [(1, "xterm"), (20, "xterm"), (80, "dumb"), (80, ""), (300, "xterm")] {
        let installation = Installation::new();
        let pull = installation.pull_command(&name);
        let words = std::iter::once(pull.get_program()).chain(pull.get_args());
        let quoted: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let line = format!("stty cols {columns}; {}; echo status=$?", quoted.join(" "));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let home = installation.path("home/alice");
        script.current_dir(&home).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        script.env("HOME", home).env("TERM", term);
        let shown = finish(&script, "").succeeds();
        assert!(shown.contains("status=0"), "{columns} {term}: {shown}");
        assert!(!shown.contains("panicked"), "{columns} {term}: {shown}");
        installation.run_release(&name);
    }
}

#[test]
fn large_layers_need_little_memory() {
    let installation = Installation::new();
    let registry = Registry::plain();
    let noise = (0..3).map(|number| noise_layer(&format!("data/{number}"), 60_000_000));
    let built = Built::new(std::iter::once(busybox()).chain(noise).collect());
    built.push(&registry, "ns/large", "latest");
    let name = format!("{}/ns/large", registry.address());
    let (output, memory) = measure(&installation.pull_command(&name));
    output.succeeds();
    assert!(memory < 300, "{memory} MiB");
    installation.run_release(&name);
    let size = ["run", &name, "ls", "-l", "/data"];
    let shown = installation.sarus(&installation.alice, &size).succeeds();
    assert_eq!(shown.matches(" 60000000 ").count(), 3, "{shown}");
}

#[test]
fn temporary_directory_compression_and_central_repository_are_the_callers_choice() {
    let installation = Installation::new();
    let registry = Registry::plain();
    layered(2).push(&registry, "ns/name", "latest");
    let name = format!("{}/ns/name", registry.address());
    let other = installation.path("images");
    fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let other = other.to_str().unwrap();
    for compression in ["gzip:1", "lz4", "zstd"] {
        let options = ["--temp-dir", other, "--compression", compression, &name];
        let shown = finish(&installation.pull_with(&options), "").succeeds();
        assert!(shown.contains(&format!("# temp directory   : \"{other}\"")), "{shown}");
        installation.run_release(&name);
        let image = installation.repository(&installation.alice).join("images").join(&name);
        let mut unsquashfs = Command::new("unsquashfs");
        unsquashfs.arg("-s").arg(image.join("latest.squashfs"));
        let shown = Output::of(&mut unsquashfs).succeeds();
        let algorithm = compression.split(':').next().unwrap();
        assert!(shown.contains(&format!("Compression {algorithm}")), "{shown}");
        installation.sarus(&installation.alice, &["rmi", &name]).succeeds();
    }
    let root = User::root();
    let central = ["pull", "--centralized-repository", &name];
    let shown = finish(&installation.sarus_command(&root, &central), "").succeeds();
    assert!(shown.contains(installation.path("central").to_str().unwrap()), "{shown}");
    let run = ["run", "--centralized-repository", &name, "cat", "/etc/os-release"];
    installation.sarus(&installation.alice, &run).succeeds();
}

#[test]
fn a_name_that_is_not_loopback_gets_plain_http_from_the_administrator_alone() {
    let registry = Registry::plain();
    layered(1).push(&registry, "ns/name", "latest");
    let server = format!("registry.example:{}", registry.port());
    let name = format!("{server}/ns/name");
    let installation = Installation::new();
    let hosts = installation.path("hosts");
    fs::write(&hosts, "127.0.0.1 registry.example\n").unwrap();
    let hosts = format!("mount --bind {} /etc/hosts", hosts.display());
    let pull = |installation: &Installation| {
        finish(&in_namespace(&hosts, &installation.pull_command(&name)), "")
    };
    let error = installation.failed(&pull(&installation), &[&server, "tls|https"]);
    assert!(error.contains("insecureRegistries"), "{error}");
    assert_eq!(registry.fetched(0, "/manifests/"), [""; 0]);
    let list = format!("[\"other.example\", \"{server}\"]");
    let installation = installation.set("insecureRegistries", &list);
    pull(&installation).succeeds();
    installation.run_release(&name);
}
