//! What docs/ show was run: this runs it again, and compares.
//!
//! Blocks that begin with ```` ```console ```` are for this: lines with `$ ` in front are commands of a
//! user, what follows is what they print. A line `...` stands for any number of lines, and numbers
//! and digests for any others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::certificates::{Authority, Validity};
use crate::support::hostile::give;
use crate::support::pull::in_namespace;
use crate::support::registry::{Registry, Setup};
use crate::support::{Image, Installation, Output, SOURCE, binary};

/// The registries of the examples, all on one server.
const SERVERS: &str = "index.docker.io registry.example.org";

/// A site as the examples suppose it: alice, her files, and registries with a few images.
struct Site {
    installation: Installation,
    _registry: Registry,
}

impl Site {
    fn new() -> Self {
        let installation = Installation::new();
        // The port has to be 443, which no other process has on this address.
        let process = std::process::id().to_le_bytes();
        let address = format!("127.45.{}.{}", process[1], process[0] | 1);
        let authority = Authority::new();
        let names: Vec<_> = SERVERS.split(' ').map(|name| format!("DNS:{name}")).collect();
        let certificate = authority.issue(&names.join(","), Validity::Good);
        let setup = Setup::default().tls(certificate).address(&format!("{address}:443"));
        let registry = Registry::with(setup);
        let echo = Image::busybox().entrypoint(&["/bin/echo"]).cmd(&["Hello", "world"]);
        for (image, name) in [
            (Image::busybox(), "library/busybox"),
            (Image::busybox(), "team/solver:2.1"),
            (echo, "team/echo"),
        ] {
            registry.push(
                &format!("docker-archive:{}", image.docker_archive().display()),
                name,
                &[],
            );
        }
        let file = |name: &str, content: &[u8], mode| {
            let path = installation.path(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        };
        file("hosts", format!("127.0.0.1 localhost\n{address} {SERVERS}\n").as_bytes(), 0o644);
        file("ca.crt", &fs::read(authority.certificate()).unwrap(), 0o644);
        let alice = &installation.alice;
        let archive = fs::read(Image::busybox().docker_archive()).unwrap();
        give(&file("home/alice/solver.tar", &archive, 0o644), alice);
        fs::create_dir(installation.path("home/alice/data")).unwrap();
        give(&file("home/alice/data/input.csv", b"1,2,3,4,5\n", 0o644), alice);
        give(&installation.path("home/alice/data"), alice);
        Self { installation, _registry: registry }
    }

    /// Runs a line of alice's, and gives what she sees, with the paths of the examples.
    fn run(&self, line: &str) -> String {
        let installation = &self.installation;
        // The home that the examples have is bound to where it really is.
        let script = format!("exec 2>&1; {line}");
        let mut command = installation.as_user(&installation.alice, "bash", ["-c", &script]);
        let bin = installation.prefix().join("bin");
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command.env("SSL_CERT_FILE", installation.path("ca.crt"));
        let hosts = installation.path("hosts");
        let mut command =
            in_namespace(&format!("mount --bind {} /etc/hosts", hosts.display()), &command);
        let output = Output::of(&mut command);
        let mut shown = output.stdout + &output.stderr;
        for (real, example) in [
            ("home", "/home"),
            ("tmp", "/tmp"),
            ("prefix", "/opt/sarus"),
            ("central", "/var/sarus/centralized_repository"),
        ] {
            shown = shown.replace(installation.path(real).to_str().unwrap(), example);
        }
        let machine = rustix::system::uname();
        shown = shown.replace(&*machine.release().to_string_lossy(), "6.1.0");
        shown.replace(&*machine.nodename().to_string_lossy(), "node1")
    }
}

/// The examples of a document: commands, each with what it prints.
fn examples(document: &Path) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(document).unwrap();
    let mut examples: Vec<(String, Vec<String>)> = vec![];
    let mut runs = false;
    for line in text.lines() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => runs = line == "```console",
            _ if !runs => {}
            Some(command) => examples.push((command.to_owned(), vec![])),
            None => match examples.last_mut() {
                // A command that goes on in the next line.
                Some((command, shown)) if shown.is_empty() && command.ends_with('\\') => {
                    *command += &format!("\n{line}");
                }
                Some((_, shown)) => shown.push(line.to_owned()),
                None => panic!("{}: output without a command: {line}", document.display()),
            },
        }
    }
    examples
}

/// The line with a `#` for everything that is another number each time, and single blanks.
fn masked(line: &str) -> String {
    let is_number = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    let mut masked = String::new();
    let mut word = String::new();
    for letter in line.chars().chain(['\n']) {
        if letter.is_ascii_hexdigit() {
            word.push(letter);
            continue;
        }
        masked += if is_number(&word) { "#" } else { &word };
        word.clear();
        if !(letter.is_whitespace() && masked.ends_with(' ')) {
            masked.push(if letter.is_whitespace() { ' ' } else { letter });
        }
    }
    masked.trim_end().to_owned()
}

/// Whether `shown` is what `expected` says, with `...` for any lines.
fn fits(expected: &[String], shown: &[&str]) -> bool {
    match (expected.split_first(), shown.split_first()) {
        (None, None) => true,
        (Some((any, rest)), _) if any == "..." => {
            (0..=shown.len()).any(|skipped| fits(rest, &shown[skipped..]))
        }
        (Some((line, rest)), Some((seen, behind))) => {
            masked(line) == masked(seen) && fits(rest, behind)
        }
        _ => false,
    }
}

fn document(name: &str) -> PathBuf {
    Path::new(SOURCE).join("docs").join(name)
}

#[test]
fn the_user_guide_shows_what_really_happens() {
    let site = Site::new();
    let examples = examples(&document("user-guide.md"));
    assert!(examples.len() > 20, "{}", examples.len());
    let mut differ = String::new();
    for (command, expected) in &examples {
        let shown = site.run(command);
        if !fits(expected, &shown.lines().collect::<Vec<_>>()) {
            differ += &format!("$ {command}\n{shown}--- and not\n{}\n", expected.join("\n"));
        }
    }
    assert!(differ.is_empty(), "{differ}");
}

/// Each `[text](target)` to a file, in `folder/docs` and `folder/README.md`: the number of them that
/// lead somewhere.
fn follow_links(folder: &Path) -> usize {
    let mut count = 0;
    let documents = fs::read_dir(folder.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for document in documents.chain([folder.join("README.md")]) {
        if document.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.contains("://") && !target.starts_with('#') {
                let file = target.split('#').next().unwrap();
                let path = document.parent().unwrap().join(file);
                assert!(path.exists(), "{}: {target} is not there", document.display());
                count += 1;
            }
        }
    }
    count
}

#[test]
fn links_between_documents_lead_somewhere() {
    let count = follow_links(Path::new(SOURCE));
    assert!(count > 50, "{count}");
    let installation = Installation::new();
    let count = follow_links(&installation.with_pages().join("doc/sarus"));
    assert!(count > 30, "{count}");
}

/// Commands and options that documents speak of exist.
#[test]
fn documents_name_no_option_that_does_not_exist() {
    let help = |args: &[&str]| {
        let mut command = std::process::Command::new(binary());
        Output::of(command.arg("sarus").args(args)).succeeds()
    };
    for name in fs::read_dir(document("")).unwrap().map(|entry| entry.unwrap().file_name()) {
        let name = name.into_string().unwrap();
        if !name.ends_with(".md") {
            continue;
        }
        let text = fs::read_to_string(document(&name)).unwrap();
        for mention in text.split("`sarus ").skip(1).filter_map(|rest| rest.split('`').next()) {
            let mut words = mention.split_whitespace();
            let Some(command) = words.next().filter(|word| word.starts_with(char::is_lowercase))
            else {
                continue;
            };
            let text = help(&["help", command]);
            // What follows an image is the container's.
            for word in words.take_while(|word| word.starts_with("--")) {
                let option = word.split('=').next().unwrap();
                assert!(text.contains(option), "{name}: sarus {command} has no {option}");
            }
        }
    }
}

#[test]
fn numbers_and_blanks_are_all_that_may_differ() {
    assert_eq!(
        masked("busybox   latest  3e542cef0e5b 2026-11-23T18:58:59  1.07MB"),
        "busybox latest # #-#-#T#:#:# #.#MB"
    );
    assert_eq!(masked("removed load/library/box/latest"), "removed load/library/box/latest");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&lines("a\n...\nb 1"), &["a", "x", "y", "b 2"]));
    assert!(!fits(&lines("a\n...\nb"), &["a", "x", "c"]));
    assert!(!fits(&lines("a"), &["a", "b"]));
}
