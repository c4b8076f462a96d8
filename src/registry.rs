//! Client for image registries: manifests and blobs over HTTP, by the OCI Distribution Specification
//! 1.1 (<https://github.com/opencontainers/distribution-spec>) and the Docker Registry protocol v2.
//!
//! Start at [`Registry::new`]. The client runs with the user's rights, and treats all that it receives
//! as hostile: bodies are bounded, digests are checked, and credentials go to the registry and its
//! token server alone.

mod auth;
mod backoff;
mod challenge;
mod credential_helper;
mod credentials;
mod date;

mod http;
mod proxy;
mod response;
#[cfg(test)]
mod tests;
mod tls;
mod transport_error;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::digest::Digest;
use crate::image::manifest;
use crate::image::reference::Reference;
use auth::{Auth, Outcome};
pub use backoff::Backoff;
pub use credentials::{Credentials, Login};
pub use http::Settings;
use http::{Client, Request};
use response::Response;
use url::Url;
pub use url::is_loopback;

/// Maximum size of a manifest or index in bytes: the limit of the specification.
const MAX_MANIFEST: u64 = 4 << 20;
/// Maximum size in bytes of a response that is read for its error message.
const MAX_MESSAGE: u64 = 64 << 10;

/// Media types of manifests, for the header `Accept`. Schema 1 is last, so that an error can name it.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1";

/// Maximum number of requests for one response. Two are usual; a token that has expired, does not
/// suffice or was renewed by another thread adds one each.
const MAX_REQUESTS: usize = 12;

/// Hint for an unexpected response.
const ASK_ADMINISTRATOR: &str = "try again later, or ask the administrator of the registry";

/// Prefix of the media types of schema 1.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// A repository of a registry, and the authentication to read it.
#[derive(Debug)]
pub struct Registry {
    /// `host[:port]`, as the user writes it.
    server: String,
    /// `namespace/image`.
    repository: String,
    client: Client,
    auth: Auth,
    /// True if the registry speaks plain HTTP, which the site allows.
    plain: AtomicBool,
}

/// A manifest or an index as the registry sent it.
#[derive(Debug)]
pub struct Manifest {
    /// Content, in JSON.
    pub bytes: Vec<u8>,
    /// Digest of the content.
    pub digest: Digest,
}

/// Transfer of a blob.
#[derive(Debug)]
pub struct Transfer {
    response: Response,
    /// Position of the first byte in the blob: 0 where the server cannot resume.
    pub start: u64,
}

impl Registry {
    /// Prepares access to the repository of `reference`. Sends nothing yet.
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

    /// Fetches the manifest or index `which`, a tag or a digest. A digest is verified.
    ///
    /// # Errors
    /// The registry cannot be reached, does not have the manifest or denies access.
    pub fn manifest(&self, which: &str) -> Result<Manifest> {
        let path = format!("manifests/{which}");
        let context = || format!("cannot use the manifest that {} sent", self.server);
        let mut backoff = Backoff::default();
        let (response, bytes) = loop {
            let mut response = self.get(&path, &[("Accept", MANIFESTS.into())])?;
            match response.status {
                200 => {}
                404 => return Err(self.no_manifest(which, &mut response)),
                _ => return Err(self.refusal(&mut response)),
            }
            match response.bytes(MAX_MANIFEST) {
                Ok(bytes) => break (response, bytes),
                Err(failure)
                    if failure.kind() == ErrorKind::Transient && self.may_retry(&mut backoff) => {}
                Err(failure) => return Err(failure).context(context),
            }
        };
        // Before the digest is checked: that of a signed manifest excludes the signature.
        if response.header("content-type").is_some_and(|media_type| media_type.contains(SCHEMA_1)) {
            return Err(manifest::schema_1()).context(context);
        }
        let digest = Digest::sha256(&bytes);
        let claimed = response.header("docker-content-digest").map(str::to_owned);
        // Other algorithms than sha256 cannot be compared.
        let claimed = claimed.and_then(|text| Digest::parse(&text).ok());
        for expected in Digest::parse(which).ok().into_iter().chain(claimed) {
            if digest != expected {
                return Err(Error::new(format!(
                    "the digest is {digest}, but {expected} was expected"
                ))
                .with_hint("the registry or a proxy alters manifests"))
                .context(context);
            }
        }
        Ok(Manifest { bytes, digest })
    }

    /// Fetches the blob `digest` of `size` bytes, from `start` on if the server supports ranges. The
    /// bytes are not verified.
    ///
    /// # Errors
    /// Errors of [`Registry::manifest`]; the kind is [`ErrorKind::Transient`] where another try may help.
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
                    // The server cannot resume.
                    None if start > 0 => return self.blob(digest, size, 0),
                    None => {
                        let text =
                            format!("{} sent a part of the blob instead of all", self.server);
                        return Err(Error::new(text));
                    }
                }
            }
            416 if start > 0 => return self.blob(digest, size, 0),
            404 => {
                let server = &self.server;
                return Err(Error::new(format!("{server} does not have the blob")));
            }
            _ => return Err(self.refusal(&mut response)),
        };
        match end {
            Some(end) if end != size => {
                let text = format!("{} has {end} bytes of the blob instead of {size}", self.server);
                Err(Error::new(text))
            }
            _ => Ok(Transfer { response, start }),
        }
    }

    /// Ends all transfers, in all threads, and prevents new ones.
    pub fn stop(&self) {
        self.client.stop();
    }

    /// Checks that the server is a registry. It may require authentication.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer as a registry does.
    pub fn ping(&self) -> Result<()> {
        loop {
            let plain = self.plain.load(Ordering::Relaxed);
            let url = Url::registry(&self.server, plain, "")?;
            match self.client.send(&Request { url, headers: &[], authorization: None }) {
                Ok(response) if matches!(response.status, 200 | 401) => return Ok(()),
                Ok(response) => {
                    let (server, status) = (&self.server, response.status);
                    return Err(Error::new(format!("{server} answered with status {status}"))
                        .with_hint("check that it is a registry of container images"));
                }
                Err(failure) if failure.kind() == ErrorKind::NotTls && !plain => {
                    self.fall_back(failure)?
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Waits before another try. Returns false to give up.
    pub fn may_retry(&self, backoff: &mut Backoff) -> bool {
        backoff.next(None).is_some_and(|delay| self.client.pause(delay))
    }

    /// Requests a path below the repository, and authenticates as the registry demands.
    fn get(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Response> {
        for _ in 0..MAX_REQUESTS {
            let (authorization, generation) = self.auth.current(&self.client)?;
            let plain = self.plain.load(Ordering::Relaxed);
            let url = Url::registry(&self.server, plain, &format!("{}/{path}", self.repository))?;
            let request = Request { url, headers, authorization };
            let response = match self.client.send(&request) {
                Err(error) if error.kind() == ErrorKind::NotTls && !plain => {
                    self.fall_back(error)?;
                    continue;
                }
                sent => sent?,
            };
            let outcome = match response.status {
                _ if response.redirected => Outcome::Final,
                401 => self.auth.answer(&self.client, &response.challenges(), generation, plain)?,
                // A repository that looks absent to the public may be visible to a user.
                403 | 404 | 429 => self.auth.escalate(&self.client, generation)?,
                _ => {
                    self.auth.worked(generation);
                    Outcome::Final
                }
            };
            if outcome == Outcome::Final {
                return Ok(response);
            }
        }
        let text = format!("{} refuses every authorization that it requests", self.server);
        Err(Error::new(text).with_hint(ASK_ADMINISTRATOR))
    }

    /// Switches to plain HTTP, if the site allows it with this registry.
    fn fall_back(&self, failure: Error) -> Result<()> {
        if !self.client.may_be_plain(&self.server) {
            let hint = format!(
                "if the registry has no TLS, the administrator can add \"{}\" to insecureRegistries in sarus.json",
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
            _ if no_such_name => format!("{server} has no repository {repository}"),
            Ok(_) => format!("{server} has no image {which} in {repository}"),
            Err(_) => format!("{server} has no tag {which} of {repository}"),
        };
        Error::new(what).with_hint("check the name; a private image needs --login")
    }

    /// Converts a response other than the requested one into an error.
    #[cold]
    fn refusal(&self, response: &mut Response) -> Error {
        let message = response.message(MAX_MESSAGE).text;
        let Self { server, repository, .. } = self;
        let host = if response.redirected { &response.host } else { server };
        let used_login = !response.redirected && self.auth.has_login();
        let (text, hint) = match response.status {
            401 if used_login => (
                format!("{host} does not accept this login for {repository}"),
                "check the user name and the password or token, and their right to read the repository",
            ),
            401 => (format!("{host} requires authentication for {repository}"), auth::LOG_IN),
            403 => (
                format!("{host} denies access to {repository}"),
                "log in with --login as a user who may read the repository",
            ),
            429 => (
                format!("{host}: rate limit exceeded (429)"),
                "wait, or log in with --login: many registries allow more pulls to users",
            ),
            status => (format!("{host} answered with status {status}"), ASK_ADMINISTRATOR),
        };
        let message = message.map(|text| format!(" ({text})")).unwrap_or_default();
        Error::new(format!("{text}{message}")).with_hint(hint)
    }
}

impl Transfer {
    /// Reads the next bytes; none at the end.
    ///
    /// # Errors
    /// The transfer fails; the kind is [`ErrorKind::Transient`] where another try may help.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.response.read(buffer)
    }

    /// Returns the error of a transfer that ended after `received` of `size` bytes.
    #[must_use]
    pub fn ended_early(&self, received: u64, size: u64) -> Error {
        let host = &self.response.host;
        let text = format!("{host} sent {received} bytes instead of {size}");
        transport_error::transient(text, transport_error::RESUMABLE)
    }
}

/// Parses the `Content-Range` `bytes 100-199/200` into the first position and the whole size.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, whole) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, whole.trim().parse().ok()?))
}
