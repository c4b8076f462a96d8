//! A registry of images: manifests and blobs over HTTP, by the OCI Distribution Specification 1.1
//! (<https://github.com/opencontainers/distribution-spec>) and the Docker Registry protocol v2.
//!
//! Start at [`Registry::new`]. All of it runs with the user's rights, and takes every byte that
//! comes in as hostile: bodies are bounded, digests are checked, and what authorises the user goes
//! to the registry and its token server alone.

mod auth;
mod backoff;
mod challenge;
mod credential_helper;
mod credentials;

mod http;
mod proxy;
#[cfg(test)]
mod tests;
mod tls;
mod transport_error;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};

use miniserde::Deserialize;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::Digest;
use crate::image::manifest;
use crate::image::reference::Reference;
use auth::{Auth, Outcome};
pub use backoff::Backoff;
pub use credentials::{Credentials, Login};
pub use http::Settings;
use http::{Client, Request, Response};
use url::Url;
pub use url::is_loopback;

/// Longest manifest or index: the specification's own limit.
const MAX_MANIFEST: u64 = 4 << 20;
/// Longest answer that is read for the sake of its message.
const MAX_MESSAGE: u64 = 64 << 10;

/// What a manifest may be. Schema 1 is asked for too, last, so that it can be named in the error.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1";

/// Most requests for one answer: two are usual, and a token that runs out, or is not enough, or was
/// renewed by another thread, each make one more.
const MAX_TURNS: usize = 12;

/// How the types of schema 1 begin.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// One repository of a registry, and the right to read it.
#[derive(Debug)]
pub struct Registry {
    /// `host[:port]`, as the user knows it.
    server: String,
    /// `namespace/image`.
    repository: String,
    client: Client,
    auth: Auth,
    /// The registry turned out to speak plain HTTP, where the site lets it.
    plain: AtomicBool,
}

/// A manifest or an index, as it was sent; its digest is that of these bytes.
#[derive(Debug)]
pub struct Manifest {
    /// JSON.
    pub bytes: Vec<u8>,
    /// What names it for ever.
    pub digest: Digest,
}

/// The bytes of a blob, coming in.
#[derive(Debug)]
pub struct Transfer {
    response: Response,
    /// Where in the blob they begin: 0 where the server cannot resume.
    pub start: u64,
}

impl Registry {
    /// The repository that `reference` names. Nothing is sent yet.
    #[must_use]
    pub fn new(reference: &Reference, settings: Settings, login: Login) -> Self {
        let repository = reference.repository();
        let server = reference.server.clone();
        Self {
            auth: Auth::new(&server, &repository, login),
            server,
            repository,
            client: Client::new(settings),
            plain: AtomicBool::new(false),
        }
    }

    /// The manifest or index of `which`, a tag or a digest; one that was asked for by digest is
    /// what it should be.
    ///
    /// # Errors
    /// When the registry cannot be reached, does not have it or does not let the user have it.
    pub fn manifest(&self, which: &str) -> Result<Manifest> {
        let path = format!("manifests/{which}");
        let about = || format!("cannot use the manifest that {} sent", self.server);
        let mut backoff = Backoff::default();
        let (response, bytes) = loop {
            let mut response = self.get(&path, &[("Accept", MANIFESTS.into())])?;
            match response.status {
                200 => {}
                404 => return Err(self.no_manifest(which, &mut response)),
                _ => return Err(self.refusal(&mut response, None)),
            }
            match response.bytes(MAX_MANIFEST) {
                Ok(bytes) => break (response, bytes),
                Err(failure)
                    if failure.kind() == ErrorKind::Transient && self.may_retry(&mut backoff) => {}
                Err(failure) => return Err(failure).context(about),
            }
        };
        // Signed ones have the digest of what was signed, and cannot be used anyway.
        if response.header("content-type").is_some_and(|kind| kind.contains(SCHEMA_1)) {
            return Err(manifest::schema_1()).context(about);
        }
        let digest = Digest::sha256(&bytes);
        let claimed = response.header("docker-content-digest").map(str::to_owned);
        // Other algorithms than sha256 cannot be compared.
        let claimed = claimed.and_then(|text| Digest::parse(&text).ok());
        for expected in Digest::parse(which).ok().into_iter().chain(claimed) {
            if digest != expected {
                return Err(Error::new(format!(
                    "its digest is {digest}, but {expected} was expected"
                ))
                .with_hint("something between here and the registry changes what it sends"))
                .context(about);
            }
        }
        Ok(Manifest { bytes, digest })
    }

    /// The bytes of the blob `digest`, `size` bytes long, from `start` on if the server can. They
    /// are not verified.
    ///
    /// # Errors
    /// As of [`Registry::manifest`]; [`ErrorKind::Transient`] where another try may help.
    pub fn blob(&self, digest: &Digest, size: u64, start: u64) -> Result<Transfer> {
        let mut headers = Vec::new();
        if start > 0 {
            headers.push(("Range", format!("bytes={start}-")));
        }
        let mut response = self.get(&format!("blobs/{digest}"), &headers)?;
        let (start, end) = match response.status {
            200 => (0, response.length()),
            206 => {
                let range = response.header("content-range").and_then(parse_range);
                match range.filter(|(from, _)| *from == start) {
                    Some((from, end)) => (from, Some(end)),
                    // It does not know how to resume.
                    None if start > 0 => return self.blob(digest, size, 0),
                    None => {
                        let text = format!("{} sent a part where all was asked for", self.server);
                        return Err(Error::new(text));
                    }
                }
            }
            416 if start > 0 => return self.blob(digest, size, 0),
            404 => {
                let server = &self.server;
                return Err(Error::new(format!("{server} does not have it")));
            }
            _ => return Err(self.refusal(&mut response, None)),
        };
        match end {
            Some(end) if end != size => {
                let text = format!("{} has {end} bytes of it instead of {size}", self.server);
                Err(Error::new(text))
            }
            _ => Ok(Transfer { response, start }),
        }
    }

    /// Ends what is being transferred, in all threads, and lets nothing more begin.
    pub fn stop(&self) {
        self.client.stop();
    }

    /// Whether there is a registry that answers, be it that it wants a login.
    ///
    /// # Errors
    /// When it cannot be reached, or answers as no registry does.
    pub fn ping(&self) -> Result<()> {
        loop {
            let plain = self.plain.load(Ordering::Relaxed);
            let url = Url::registry(&self.server, plain, "")?;
            match self.client.send(&Request { url, headers: &[], authorization: None }) {
                Ok(response) if matches!(response.status, 200 | 401) => return Ok(()),
                Ok(response) => {
                    let (server, status) = (&self.server, response.status);
                    return Err(Error::new(format!("{server} answers with status {status}"))
                        .with_hint("is it a registry of container images?"));
                }
                Err(failure) if failure.kind() == ErrorKind::NotTls && !plain => {
                    self.fall_back(failure)?
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Waits before another try; false if there shall be none.
    pub fn may_retry(&self, backoff: &mut Backoff) -> bool {
        backoff.next(None).is_some_and(|delay| self.client.pause(delay))
    }

    /// Asks for a path below the repository, with whatever login that takes.
    fn get(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Response> {
        for _ in 0..MAX_TURNS {
            let (authorization, generation) = self.auth.current(&self.client)?;
            let plain = self.plain.load(Ordering::Relaxed);
            let url = Url::registry(&self.server, plain, &format!("{}/{path}", self.repository))?;
            let request = Request { url, headers, authorization };
            let mut response = match self.client.send(&request) {
                Ok(response) => response,
                Err(failure) if failure.kind() == ErrorKind::NotTls && !plain => {
                    self.fall_back(failure)?;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if !response.redirected {
                let answer = match response.status {
                    401 => {
                        self.auth.answer(&self.client, &response.challenges(), generation, plain)?
                    }
                    // What looks absent to a stranger may be there for a user.
                    403 | 404 | 429 => self.auth.escalate(&self.client, generation)?,
                    _ => {
                        self.auth.worked(generation);
                        Outcome::Refused
                    }
                };
                match (answer, response.status) {
                    (Outcome::Retry, _) => continue,
                    (Outcome::Refused, 401) => {
                        return Err(self.refusal(&mut response, Some(self.auth.has_login())));
                    }
                    _ => {}
                }
            }
            return Ok(response);
        }
        let text = format!("{} refuses every login that it asks for", self.server);
        Err(Error::new(text)
            .with_hint("try again later; the registry's administrator may know more"))
    }

    /// Goes on in plain HTTP, if the site lets this registry speak it.
    fn fall_back(&self, failure: Error) -> Result<()> {
        if !self.client.may_be_plain(&self.server) {
            let hint = format!(
                "if it has no TLS, the administrator can add \"{}\" to insecureRegistries in sarus.json",
                self.server
            );
            return Err(failure.with_hint(hint));
        }
        self.plain.store(true, Ordering::Relaxed);
        Ok(())
    }

    #[cold]
    fn no_manifest(&self, which: &str, response: &mut Response) -> Error {
        let message = response.message(MAX_MESSAGE);
        let Self { server, repository, .. } = self;
        let no_such_name = message.code.as_deref() == Some("NAME_UNKNOWN");
        let what = match Digest::parse(which) {
            _ if no_such_name => format!("there is no repository {repository} on {server}"),
            Ok(_) => format!("{server} has no image {which} in {repository}"),
            Err(_) => format!("{server} has no tag {which} of {repository}"),
        };
        Error::new(what).with_hint("check the name; private images may need --login")
    }

    /// Why the registry gives nothing; `login` tells of a 401 whether the user has logged in.
    #[cold]
    fn refusal(&self, response: &mut Response, login: Option<bool>) -> Error {
        let message = response.message(MAX_MESSAGE).text;
        let Self { server, repository, .. } = self;
        let host = if response.redirected { &response.host } else { server };
        let what = match (response.status, login) {
            (401, Some(true)) => format!("{host} does not accept this login for {repository}"),
            (401, _) => format!("{host} wants a login for {repository}"),
            (403, _) => format!("{host} denies access to {repository}"),
            (429, _) => format!("{host} wants fewer requests (429)"),
            (status, _) => format!("{host} answers with status {status}"),
        };
        let hint = match response.status {
            401 if login == Some(true) => {
                "check user name, password or token, and that they may read it"
            }
            401 => "log in by --login; the image may be private, or its name wrong",
            403 => "the login, if any, does not allow it: try another by --login",
            429 => "wait a while, or log in by --login: users often may pull more than strangers",
            _ => "try again later; the registry's administrator may know more",
        };
        let error = Error::new(what).with_hint(hint);
        match message {
            Some(text) => Error::new(format!("{error} ({text})")).with_hint(hint),
            None => error,
        }
    }
}

impl Transfer {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When they do not come; [`ErrorKind::Transient`] where another try may help.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.response.read(buffer)
    }

    /// It came to its end after `received` of `size` bytes.
    #[must_use]
    pub fn ended_early(&self, received: u64, size: u64) -> Error {
        let host = &self.response.host;
        let text = format!("{host} sent {received} bytes instead of {size}");
        transport_error::transient(text, "try again; what has arrived is kept")
    }
}

/// `bytes 100-199/200`: where it begins, and how long the whole is.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, whole) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, whole.trim().parse().ok()?))
}

/// What registries say of an error, as the specification wants it.
#[derive(Debug, Deserialize)]
struct Complaints {
    errors: Option<Vec<Complaint>>,
    /// Of token servers.
    details: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    code: Option<String>,
    message: Option<String>,
}
