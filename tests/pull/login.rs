//! `sarus pull` from registries that are to be trusted, or that want to know who asks: TLS with a
//! private authority, passwords and tokens, and every place that credentials come from.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::certificates::{Authority, Validity};
use crate::support::http::{Answer, fetch};
use crate::support::oci::{Built, busybox, noise_layer};
use crate::support::pull::{behind, finish, in_namespace};
use crate::support::registry::{Registry, Setup};
use crate::support::server::Server;
use crate::support::token::{Rules, TokenServer, base64, basic};
use crate::support::{Image, Installation, Output, Scratch, processes_of};

/// Pushes a small image under this name.
fn push(registry: &Registry, name: &str) {
    let archive = Image::busybox().docker_archive();
    registry.push(&format!("docker-archive:{}", archive.display()), name, &[]);
}

#[test]
fn a_private_authority_is_known_by_every_place_for_certificates() {
    let authority = Authority::new();
    let certificate = authority.issue("DNS:localhost,IP:127.0.0.1", Validity::Good);
    let registry = Registry::with(Setup::default().tls(certificate));
    push(&registry, "ns/name");
    let ca = fs::read(authority.certificate()).unwrap();
    let port = registry.port();
    for (place, variable) in [
        (format!("docker/certs.d/127.0.0.1:{port}/ca.crt"), ""),
        (format!("containers/certs.d/localhost:{port}/any.crt"), ""),
        ("ssl/certs/ca-certificates.crt".into(), ""),
        ("elsewhere/ca.pem".into(), "SSL_CERT_FILE"),
        ("elsewhere/ca.pem".into(), "SSL_CERT_DIR"),
    ] {
        for host in ["127.0.0.1", "localhost"] {
            if place.contains("certs.d") && !place.contains(host) {
                continue;
            }
            let installation = Installation::new();
            let etc = installation.path("etc");
            let file = etc.join(&place);
            let directory = file.parent().unwrap();
            fs::create_dir_all(directory).unwrap();
            fs::write(&file, &ca).unwrap();
            let name = format!("{host}:{port}/ns/name");
            let mut command = installation.pull_command(&name);
            match variable {
                "SSL_CERT_FILE" => drop(command.env(variable, &file)),
                "SSL_CERT_DIR" => {
                    let mut rehash = Command::new("openssl");
                    Output::of(rehash.arg("rehash").arg(directory)).succeeds();
                    command.env(variable, directory);
                }
                _ => {
                    // Laid over the host's own /etc, which stays as it is.
                    let overlay =
                        format!("mount -t overlay none -o lowerdir={}:/etc /etc", etc.display());
                    command = in_namespace(&overlay, &command);
                }
            }
            let output = finish(&command, "");
            assert_eq!(output.status, 0, "{place} {variable}: {output}");
            installation.run_release(&name);
        }
    }
    // Who names one trusts no other: not even those of the system, where it is misspelt.
    let installation = Installation::new();
    let mut command = installation.pull_command(&format!("localhost:{port}/ns/name"));
    command.env("SSL_CERT_FILE", "/nonsense");
    let etc = installation.path("etc");
    fs::create_dir_all(etc.join("ssl/certs")).unwrap();
    fs::write(etc.join("ssl/certs/ca-certificates.crt"), &ca).unwrap();
    let overlay = format!("mount -t overlay none -o lowerdir={}:/etc /etc", etc.display());
    let error = finish(&in_namespace(&overlay, &command), "").fails(1);
    assert!(error.contains("SSL_CERT_FILE and SSL_CERT_DIR name no certificate"), "{error}");
}

/// Where alice's name and password come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Login,
    PasswordStdin,
    PasswordStdinWithoutNewline,
    Docker,
    DockerUrl,
    Podman,
    Helper,
    Store,
}

/// A pull of `name` with credentials from `source`.
fn pull_with_credentials(installation: &Installation, name: &str, source: Source) -> Output {
    let server = name.split('/').next().unwrap();
    let auth = base64(b"alice:secret");
    let (args, input) = match source {
        Source::Login => (&["--login"][..], "alice\nsecret\n"),
        Source::PasswordStdin => (&["-u", "alice", "--password-stdin"][..], "secret\n"),
        Source::PasswordStdinWithoutNewline => {
            (&["--username=alice", "--password-stdin"][..], "secret")
        }
        _ => (&[][..], ""),
    };
    let mut command = installation.pull_with(&[args, &[name]].concat());
    let (file, text) = match source {
        Source::Docker => {
            (".docker/config.json", format!(r#"{{"auths": {{"{server}": {{"auth": "{auth}"}}}}}}"#))
        }
        Source::DockerUrl => (
            ".docker/config.json",
            format!(
                r#"{{"auths": {{"https://{server}/v1/": {{"auth": "{auth}"}}}}, "x": [1, null]}}"#
            ),
        ),
        Source::Podman => (
            "runtime/containers/auth.json",
            format!(r#"{{"auths": {{"{server}": {{"auth": "{auth}"}}}}}}"#),
        ),
        Source::Helper => {
            (".docker/config.json", format!(r#"{{"credHelpers": {{"{server}": "test"}}}}"#))
        }
        Source::Store => (
            ".docker/config.json",
            format!(r#"{{"auths": {{"{server}": {{}}}}, "credsStore": "test"}}"#),
        ),
        _ => ("nothing", String::new()),
    };
    installation.write_home(file, text);
    let program = installation.write_home(
        "bin/docker-credential-test",
        "#!/bin/sh\n[ \"$1\" = get ] && read -r server; echo \"$server\" >>\"$HOME/asked\"\n\
         echo '{\"ServerURL\": \"x\", \"Username\": \"alice\", \"Secret\": \"secret\"}'\n",
    );
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let home = installation.path("home/alice");
    command.env("PATH", format!("{}:/usr/bin:/bin", home.join("bin").display()));
    command.env("XDG_RUNTIME_DIR", home.join("runtime"));
    let output = finish(&command, input);
    if matches!(source, Source::Helper | Source::Store) {
        let asked = fs::read_to_string(home.join("asked")).unwrap_or_default();
        assert_eq!(asked.lines().next(), Some(server), "{output}");
    }
    output
}

const SOURCES: [Source; 8] = [
    Source::Login,
    Source::PasswordStdin,
    Source::PasswordStdinWithoutNewline,
    Source::Docker,
    Source::DockerUrl,
    Source::Podman,
    Source::Helper,
    Source::Store,
];

#[test]
fn a_registry_with_passwords_gets_them_from_every_source() {
    let registry = Registry::with(Setup::default().password("alice", "secret"));
    push(&registry, "private/name:1");
    for source in SOURCES {
        let installation = Installation::new();
        let name = format!("{}/private/name:1", registry.address());
        let output = pull_with_credentials(&installation, &name, source);
        assert_eq!(output.status, 0, "{source:?}: {output}");
        assert!(!format!("{output}").contains("secret"), "{output}");
        installation.run_release(&name);
    }
}

#[test]
fn a_registry_with_tokens_gets_them_from_every_source() {
    for key in ["token", "access_token"] {
        let tokens = TokenServer::new(Rules { key, ..Rules::default() });
        let registry = Registry::with(Setup::default().tokens(&tokens));
        push(&registry, "private/name:1");
        push(&registry, "public/name:1");
        for source in SOURCES {
            let installation = Installation::new();
            for (folder, expected) in [("private", true), ("public", false)] {
                let name = format!("{}/{folder}/name:1", registry.address());
                let start = tokens.log().len();
                let output = pull_with_credentials(&installation, &name, source);
                assert_eq!(output.status, 0, "{source:?}: {output}");
                installation.run_release(&name);
                let log = tokens.log().split_off(start);
                let with = log.iter().any(|entry| {
                    entry.request.header("authorization") == Some(&basic("alice", "secret"))
                });
                // What the user says on the command line may be used at once.
                let said = matches!(
                    source,
                    Source::Login | Source::PasswordStdin | Source::PasswordStdinWithoutNewline
                );
                assert!(with == expected || said, "{source:?}, {folder}: {log:?}");
                let scope = format!("repository:{folder}/name:pull");
                assert!(
                    log.iter().all(|entry| entry.request.query("scope") == [&*scope]),
                    "{log:?}"
                );
            }
        }
    }
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_pull_is_renewed() {
    for expires_in in [Some(1), None, Some(3600)] {
        let rules = Rules { lifetime: 2, expires_in, ..Rules::default() };
        let tokens = TokenServer::new(rules);
        let registry = Registry::with(Setup::default().tokens(&tokens));
        let upstream = registry.address();
        // The registry itself is too fast for any token to end.
        let slow = Server::new(move |request| {
            let headers: Vec<_> = ["Authorization", "Accept", "Range"]
                .into_iter()
                .filter_map(|name| Some((name, request.header(name)?)))
                .collect();
            let response = fetch(&upstream, "GET", &request.target, &headers, b"");
            let mut answer = Answer::new(response.status);
            for name in ["Content-Type", "Docker-Content-Digest", "WWW-Authenticate"] {
                if let Some(value) = response.header(name) {
                    answer = answer.header(name, value);
                }
            }
            let delay = if request.target.contains("/blobs/") { 300 } else { 0 };
            answer.body(response.body).after(Duration::from_millis(delay))
        });
        let layers = (0..12).map(|number| noise_layer(&format!("data/{number}"), 1_000));
        let built = Built::new(std::iter::once(busybox()).chain(layers).collect());
        let layout = Scratch::new("layout");
        built.write_layout(&layout.path(""));
        let source = format!("oci:{}:latest", layout.path("").display());
        registry.push(&source, "public/long", &["--format=oci"]);
        let installation = Installation::new().set("maxConcurrentDownloads", "1");
        let start = tokens.log().len();
        let name = format!("{}/public/long", slow.address());
        let output = installation.pull(&name);
        assert_eq!(output.status, 0, "expires_in {expires_in:?}: {output}");
        installation.run_release(&name);
        let asked = tokens.log().len() - start;
        assert!((2..20).contains(&asked), "{asked} tokens, expires_in {expires_in:?}");
    }
}

/// `sarus pull --login` on a terminal, with a shell that shows how the terminal is afterwards.
struct Terminal {
    script: std::process::Child,
    shown: String,
}

impl Terminal {
    fn pull(installation: &Installation, name: &str) -> Self {
        let sarus = installation.prefix().join("bin/sarus");
        let line = format!(
            "trap : INT TERM; {} pull --login {name}; echo \"status=$?\"; stty -a; true",
            sarus.display()
        );
        let shell = installation.as_user(&installation.alice, "sh", ["-c", &line]);
        // script(1) takes a command as text: no word of it holds a quote.
        let words = std::iter::once(shell.get_program()).chain(shell.get_args());
        let quoted: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut typed = Command::new("script");
        typed.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
        let home = installation.path("home/alice");
        typed.current_dir(&home).env("HOME", &home);
        let script = behind(&["timeout", "--signal=KILL", "60"], &typed)
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { script, shown: String::new() }
    }

    /// Reads until `word` is shown.
    fn wait_for(&mut self, word: &str) {
        let mut byte = [0];
        while !self.shown.to_lowercase().ends_with(word) {
            let read = self.script.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert_ne!(read, 0, "no '{word}' in {}", self.shown);
            self.shown.push(byte[0].into());
        }
    }

    fn type_in(&mut self, text: &str) {
        self.script.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// All that was shown.
    fn end(mut self) -> String {
        let mut rest = vec![];
        self.script.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        self.script.wait().unwrap();
        self.shown + &String::from_utf8_lossy(&rest)
    }
}

#[test]
fn a_login_is_asked_for_on_the_terminal_without_showing_the_password() {
    let registry = Registry::with(Setup::default().password("alice", "secret"));
    push(&registry, "private/name:1");
    let installation = Installation::new();
    let name = format!("{}/private/name:1", registry.address());
    let mut terminal = Terminal::pull(&installation, &name);
    terminal.wait_for("username    :");
    terminal.type_in("alice\n");
    terminal.wait_for("password    :");
    terminal.type_in("secret\n");
    let shown = terminal.end();
    assert!(shown.contains("status=0") && shown.contains("alice"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains(" echo "), "{shown}");
    installation.run_release(&name);
}

#[test]
fn the_terminal_shows_what_is_typed_again_whatever_ends_a_login() {
    let installation = Installation::new();
    for signal in ["typed", "INT", "TERM", "HUP", "QUIT"] {
        let mut terminal = Terminal::pull(&installation, "127.0.0.1:1/private/name:1");
        terminal.wait_for("username    :");
        terminal.type_in("alice\n");
        terminal.wait_for("password    :");
        if signal == "typed" {
            terminal.type_in("\x03");
        } else {
            let ours = |(_, line): &&(u32, String)| {
                line.contains("pull --login") && !line.contains("trap")
            };
            let all = processes_of(installation.alice.uid);
            let (pid, _) = all.iter().find(ours).unwrap_or_else(|| panic!("{all:?}"));
            let mut kill = Command::new("kill");
            Output::of(kill.args(["-s", signal, &pid.to_string()])).succeeds();
        }
        let shown = terminal.end();
        assert!(shown.contains("status=") && !shown.contains("status=0"), "{signal}: {shown}");
        assert!(shown.contains(" echo "), "{signal}: {shown}");
    }
}

#[test]
fn nothing_secret_is_told_by_logs_titles_and_files() {
    let tokens = TokenServer::new(Rules::default());
    let registry = Registry::with(Setup::default().tokens(&tokens));
    push(&registry, "private/name:1");
    let installation = Installation::new();
    let name = format!("{}/private/name:1", registry.address());
    let args = ["--debug", "pull", "-u", "alice", "--password-stdin", &name];
    let command = installation.sarus_command(&installation.alice, &args);
    let output = finish(&command, "secret\n");
    assert_eq!(output.status, 0, "{output}");
    let mut grep = Command::new("grep");
    grep.args(["-r", "-l", "-e", "secret", "-e", &base64(b"alice:secret"), "-e", "eyJ"]);
    grep.arg("--exclude=*.tar").arg("--exclude=*.squashfs");
    let found = Output::of(grep.arg(installation.path("home")).arg(installation.path("tmp")));
    assert_eq!((found.status, &*found.stdout), (1, ""), "{found}");
    for text in [&output.stdout, &output.stderr] {
        // A JSON web token begins so.
        for secret in ["secret", &base64(b"alice:secret"), "eyJ"] {
            assert!(!text.contains(secret), "{secret} in {output}");
        }
    }
    let start = Instant::now();
    // The password comes late: until then the program waits, and its title says nothing.
    let mut late = installation.sarus_command(&installation.alice, &args);
    let mut late = late.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    late.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    while late.try_wait().unwrap().is_none() {
        for (pid, line) in processes_of(installation.alice.uid) {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(!line.contains("secret") && !environment.contains("secret"), "{line}");
        }
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
