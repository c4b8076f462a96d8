//! `scripts/build-openssh.sh` and a source that a site gives it: what it refuses. That it builds is
//! shown by all tests of SSH.

use crate::support::{Output, SOURCE, Scratch};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_source_that_is_none_is_refused_and_what_was_built_stays() {
    let scratch = Scratch::new("openssh");
    let output = scratch.path("output");
    fs::create_dir_all(output.join("sbin")).unwrap();
    fs::write(output.join("sbin/sshd"), "built before").unwrap();
    let (tarball, signature) = ("openssh-9.2p1.tar.gz", "openssh-9.2p1.tar.gz.asc");
    for (files, why) in [
        (&[][..], "build-openssh: no openssh source in "),
        (&["README"], "build-openssh: no openssh source in "),
        (&[signature], "not one openssh-VERSION.tar.gz, but this: openssh-9.2p1.tar.gz.asc"),
        (
            &[tarball, "openssh-10.0p1.tar.gz"],
            "not one openssh-VERSION.tar.gz, but this: openssh-10.0p1.tar.gz openssh-9.2p1.tar.gz",
        ),
        (&[tarball, signature], "build-openssh: this failed: tar --extract"),
        (&["openssh_9.2p1-2.dsc"], "build-openssh: this failed: dpkg-source"),
    ] {
        let source = scratch.path("source");
        fs::remove_dir_all(&source).ok();
        fs::create_dir(&source).unwrap();
        for file in files {
            fs::write(source.join(file), "no such thing").unwrap();
        }
        let mut build = Command::new(Path::new(SOURCE).join("scripts/build-openssh.sh"));
        build.arg(&output).env("OPENSSH_SOURCE", &source).env("LC_ALL", "C");
        let error = Output::of(&mut build).fails(1);
        assert!(error.contains(why), "{files:?}: {error}");
        assert_eq!(fs::read_to_string(output.join("sbin/sshd")).unwrap(), "built before");
    }
}
