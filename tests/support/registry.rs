//! A real registry, Debian's docker-registry, on a free port of loopback: [`Registry::plain`] and
//! [`Registry::with`]. Its access log tells what clients fetched: [`Registry::fetched`].

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::certificates::Certificate;
use super::http::{Response, fetch};
use super::token::{ISSUER, SERVICE, TokenServer, basic};
use super::{Output, Scratch};

/// What a registry can have beside the plainest.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    tls: Option<Certificate>,
    /// Parts of its configuration, in YAML.
    auth: String,
    schema1: bool,
    /// A name and a password for those who push.
    credentials: Option<(String, String)>,
    /// Where it listens, if not on a free port of 127.0.0.1.
    address: Option<String>,
}

impl Setup {
    pub fn tls(mut self, certificate: Certificate) -> Self {
        self.tls = Some(certificate);
        self
    }

    /// Asks everybody for this name and password, by Basic authentication.
    pub fn password(mut self, name: &str, password: &str) -> Self {
        self.credentials = Some((name.into(), password.into()));
        self
    }

    /// Wants tokens of this server; pushes are alice's, who has to be one of its users.
    pub fn tokens(mut self, server: &TokenServer) -> Self {
        self.auth = format!(
            "auth:\n  token:\n    realm: {}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    \
             rootcertbundle: {}\n",
            server.realm(),
            server.certificate().display(),
        );
        self.credentials = Some(("alice".into(), "secret".into()));
        self
    }

    /// Listens on this address of loopback and this port.
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Takes the first kind of manifests, which has been obsolete since 2016.
    pub fn schema1(mut self) -> Self {
        self.schema1 = true;
        self
    }
}

/// A request as the access log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub method: String,
    pub path: String,
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: usize,
    pub agent: String,
}

/// A running registry; it ends, and its images go, when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    port: u16,
    setup: Setup,
    directory: Scratch,
}

impl Registry {
    /// Without TLS and for everybody.
    pub fn plain() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        let directory = Scratch::new("registry");
        let path = |name: &str| directory.path(name);
        let config = path("config.yml");
        fs::write(&config, configuration(&setup, &path("storage"), &path("htpasswd"))).unwrap();
        if let (Some((name, password)), true) = (&setup.credentials, setup.auth.is_empty()) {
            let mut htpasswd = Command::new("htpasswd");
            htpasswd.args(["-Bbn", name, password]);
            fs::write(path("htpasswd"), Output::of(&mut htpasswd).succeeds()).unwrap();
        }
        // It must not survive a test that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]).arg(config);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.stdout(File::create(path("access.log")).unwrap());
        command.stderr(File::create(path("error.log")).unwrap());
        let process = command.spawn().unwrap();
        let mut this = Self { process, port: 0, setup, directory };
        this.port = this.wait_for_port();
        this
    }

    /// It picks a free port, and says in its log which.
    fn wait_for_port(&mut self) -> u16 {
        let deadline = Instant::now() + Duration::from_secs(30);
        let listening = format!("listening on {}:", self.host());
        loop {
            let log = fs::read_to_string(self.directory.path("error.log")).unwrap();
            let port = log.split_once(&listening).and_then(|(_, rest)| {
                let digits = rest.find(|c: char| !c.is_ascii_digit())?;
                rest[..digits].parse().ok()
            });
            if let Some(port) = port {
                // It speaks of it just before it accepts.
                while TcpStream::connect((self.host(), port)).is_err() {
                    assert!(Instant::now() < deadline, "docker-registry does not accept: {log}");
                    sleep(Duration::from_millis(5));
                }
                return port;
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no docker-registry: {log}");
            sleep(Duration::from_millis(10));
        }
    }

    fn host(&self) -> &str {
        let address = self.setup.address.as_deref().unwrap_or("127.0.0.1:0");
        address.split_once(':').map_or(address, |(host, _)| host)
    }

    /// Its address and port, `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host(), self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Copies `source` (skopeo's name) there as `name` (`namespace/image:tag`).
    pub fn push(&self, source: &str, name: &str, options: &[&str]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        if let Some((name, password)) = &self.setup.credentials {
            skopeo.arg(format!("--dest-creds={name}:{password}"));
        }
        skopeo.args(options).arg(source).arg(format!("docker://{}/{name}", self.address()));
        Output::of(&mut skopeo).succeeds();
    }

    /// Asks it; for registries without TLS and tokens.
    pub fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let authorization = match &self.setup.credentials {
            Some((name, password)) => basic(name, password),
            None => "None".into(),
        };
        let headers = [headers, &[("Authorization", &authorization)]].concat();
        fetch(&self.address(), method, target, &headers, body)
    }

    pub fn put_blob(&self, name: &str, digest: &str, bytes: &[u8]) {
        let begun = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"");
        assert_eq!(begun.status, 202, "{begun:?}");
        let location = begun.header("location").unwrap();
        let target = location.trim_start_matches("http://").trim_start_matches(&self.address());
        let target = format!("{target}&digest={digest}");
        let octets = [("Content-Type", "application/octet-stream")];
        let done = self.ask("PUT", &target, &octets, bytes);
        assert_eq!(done.status, 201, "{done:?}");
    }

    /// `tag` may be a digest.
    pub fn put_manifest(&self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let target = format!("/v2/{name}/manifests/{tag}");
        let done = self.ask("PUT", &target, &[("Content-Type", media_type)], bytes);
        assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
    }

    /// A manifest as it is stored: its media type and its text.
    pub fn manifest(&self, name: &str, tag: &str) -> (String, String) {
        let all = ["oci.image.manifest.v1", "oci.image.index.v1"]
            .map(|kind| format!("application/vnd.{kind}+json"))
            .into_iter()
            .chain(
                ["manifest", "manifest.list"]
                    .map(|kind| format!("application/vnd.docker.distribution.{kind}.v2+json")),
            );
        let accept = all.collect::<Vec<_>>().join(", ");
        let target = format!("/v2/{name}/manifests/{tag}");
        let found = self.ask("GET", &target, &[("Accept", &accept)], b"");
        assert_eq!(found.status, 200, "{found:?}");
        let media_type = found.header("content-type").unwrap().to_owned();
        (media_type, String::from_utf8(found.body).unwrap())
    }

    /// All requests that were answered so far.
    pub fn log(&self) -> Vec<Access> {
        let log = fs::read_to_string(self.directory.path("access.log")).unwrap();
        log.lines().map(|line| access(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }

    /// What clients fetched since the log had `start` lines: the paths of successful GETs that
    /// contain `part`, each as often as it was asked for.
    pub fn fetched(&self, start: usize, part: &str) -> Vec<String> {
        let mut paths: Vec<_> = self.log()[start..]
            .iter()
            .filter(|access| access.method == "GET" && matches!(access.status, 200 | 206))
            .filter(|access| access.path.contains(part))
            .map(|access| access.path.clone())
            .collect();
        paths.sort();
        paths
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn configuration(setup: &Setup, storage: &Path, htpasswd: &Path) -> String {
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
         delete:\n    enabled: true\nhttp:\n  addr: {}\n  secret: none\n",
        storage.display(),
        setup.address.as_deref().unwrap_or("127.0.0.1:0"),
    );
    if let Some(Certificate { certificate, key }) = &setup.tls {
        let (certificate, key) = (certificate.display(), key.display());
        text += &format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
    }
    if setup.schema1 {
        text += "compatibility:\n  schema1:\n    enabled: true\n";
    }
    if setup.credentials.is_some() && setup.auth.is_empty() {
        let path = htpasswd.display();
        text += &format!("auth:\n  htpasswd:\n    realm: test realm\n    path: {path}\n");
    }
    text + &setup.auth
}

/// A line of the access log, in Apache's combined format.
fn access(line: &str) -> Option<Access> {
    let mut quoted = line.split('"');
    let mut request = quoted.nth(1)?.split(' ');
    let mut numbers = quoted.next()?.split_whitespace();
    Some(Access {
        method: request.next()?.into(),
        path: request.next()?.into(),
        status: numbers.next()?.parse().ok()?,
        sent: numbers.next()?.parse().ok()?,
        agent: quoted.nth(2).unwrap_or_default().into(),
    })
}
