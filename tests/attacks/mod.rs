//! Attacks on the engine by its users: with images that they made themselves, with mounts, with
//! races, and with whatever an administrator left open. Nothing outside of the container may be
//! read, made or changed that the user could not read, make or change without the engine.

mod cgroups;
mod images;
mod kernels;
mod locks;
mod mounts;
mod processes;
mod races;
mod rootfs;
mod squashfs;
mod stages;
mod tracers;
mod trust;

use crate::support::hostile::{Flipper, field, give, snapshot, wait_until};
use crate::support::{
    IMAGE, Image, Installation, Output, Runtime, User, loop_devices, no_cgroup_stays_empty,
    processes_of,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NO_META: &str = "{}";

fn run(installation: &Installation, args: &[&str]) -> Output {
    installation.sarus(&installation.alice, &[&["run"], args].concat())
}

fn bind(source: &Path, destination: &str) -> String {
    format!("--mount=type=bind,src={},dst={destination}", source.display())
}

/// What no attack may touch: a tree of root's and one of bob's, closed to others and not.
fn canary(installation: &Installation) -> PathBuf {
    let canary = installation.path("canary");
    fs::create_dir(&canary).unwrap();
    for name in
        ["hosts", "passwd", "group", "resolv.conf", "nsswitch.conf", "init", "launch", "null"]
    {
        fs::write(canary.join(name), format!("the {name} of root\n")).unwrap();
    }
    let bob = &installation.bob;
    installation.plant(bob, "canary/bob/file", "SECRET of bob\n", 0o700);
    installation.plant(bob, "canary/bob/open/file", "SECRET of bob\n", 0o755);
    give(&canary.join("bob"), bob);
    canary
}

/// An installation whose site mounts a tree of root's, with directories of alice's and bob's in it.
fn with_site_mount(runtime: Runtime) -> (Installation, PathBuf) {
    let installation = Installation::new().runtime(runtime);
    let site = installation.path("site");
    fs::create_dir(&site).unwrap();
    fs::create_dir(site.join("roots")).unwrap();
    installation.plant(&installation.alice, "site/alice/file", "of alice", 0o755);
    installation.plant(&installation.bob, "site/bob/open/file", "SECRET", 0o755);
    give(&site.join("bob"), &installation.bob);
    fs::set_permissions(site.join("bob"), PermissionsExt::from_mode(0o700)).unwrap();
    let mounts =
        format!(r#"[{{"type": "bind", "source": "{}", "destination": "/site"}}]"#, site.display());
    let limits = r#"{"notAllowedPrefixesOfPath": ["/etc", "/alias"], "notAllowedPaths": ["/opt"]}"#;
    let installation = installation.set("siteMounts", &mounts).set("userMounts", limits);
    let root = installation.rootfs("rootfs");
    for (name, target) in [
        ("x", "/etc"),
        ("relative", "usr/../etc"),
        ("chain", "/x/.."),
        ("o", "/opt"),
        ("toroots", "/site/roots"),
        ("tobob", "/site/bob"),
        ("out", "../../../../../.."),
        ("proclink", "/proc"),
        ("todev", "/dev"),
        ("alias", "/aliased"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    fs::create_dir(root.join("aliased")).unwrap();
    fs::create_dir(root.join("opt")).unwrap();
    installation.forge(&installation.alice, &root, "bb", NO_META);
    (installation, site)
}
