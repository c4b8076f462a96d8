//! HTTP client on top of ureq, with rules of its own for redirects, retries and plain HTTP. Start at
//! [`Client::send`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::tls::{Certificate, TlsConfig};

use super::backoff::Backoff;
use super::response::Response;
use super::url::Url;
use super::{is_loopback, proxy, tls, transport_error};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::log;
use crate::sync::ignore_poison;

/// Maximum number of redirects of one request. Registries make one, their storage seldom another.
const MAX_REDIRECTS: usize = 5;
/// Read timeout in seconds.
const READ_TIMEOUT: u64 = 60;
/// Connect timeout in seconds.
const CONNECT_TIMEOUT: u64 = 30;
/// Connect timeout in seconds while probing whether the server speaks TLS: one that does not may
/// wait for the request as the client waits for the handshake.
const PROBE_TIMEOUT: u64 = 5;
/// Maximum of configured timeouts in seconds: a day.
const MAX_TIMEOUT: u64 = 86_400;
/// Timeout for the headers of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);
/// Minimum length of a pause that the user is told of.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Maximum number of servers whose connections are kept; far more than a registry and its storage.
const MAX_AGENTS: usize = 32;
/// Size of the input buffer of a connection in bytes.
const BUFFER: usize = 256 << 10;

/// Network settings of the site and the user.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host[:port]` of registries that may speak plain HTTP.
    pub insecure: Vec<String>,
    /// Read timeout in seconds.
    pub read_timeout: u64,
    /// Connect timeout in seconds.
    pub connect_timeout: u64,
}

impl Settings {
    /// Takes the timeouts from `SARUS_STALL_TIMEOUT` and `SARUS_CONNECT_TIMEOUT`, or their defaults.
    #[must_use]
    pub fn from_environment(insecure: &[String]) -> Self {
        let seconds = |name, default| {
            let text = std::env::var(name).ok();
            let number = text.and_then(|text| text.parse::<u64>().ok());
            number.map_or(default, |number| number.clamp(1, MAX_TIMEOUT))
        };
        Self {
            insecure: insecure.to_owned(),
            read_timeout: seconds("SARUS_STALL_TIMEOUT", READ_TIMEOUT),
            connect_timeout: seconds("SARUS_CONNECT_TIMEOUT", CONNECT_TIMEOUT),
        }
    }
}

/// A GET request.
pub struct Request<'a> {
    pub url: Url,
    pub headers: &'a [(&'static str, String)],
    /// Value of the header `Authorization`, sent to the server of `url` alone and to no redirect.
    pub authorization: Option<String>,
}

/// Connections to a registry, its token server and its storage.
pub struct Client {
    settings: Settings,
    /// One agent for each server, since each may have a CA of its own.
    agents: Mutex<HashMap<(String, bool), Agent>>,
    /// CAs of the system, read when first needed.
    system_roots: OnceLock<Option<Vec<Certificate<'static>>>>,
    stopped: Mutex<bool>,
    wake: Condvar,
    /// True if any server has responded: one that is unreachable later may come back.
    responded: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    ignore_poison(mutex.lock())
}

impl Client {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            agents: Mutex::default(),
            system_roots: OnceLock::new(),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
            responded: AtomicBool::new(false),
        }
    }

    /// Returns whether the site allows plain HTTP with `server`.
    pub fn may_be_plain(&self, server: &str) -> bool {
        is_loopback(server) || self.settings.insecure.iter().any(|other| other == server)
    }

    fn has_responded(&self) -> bool {
        self.responded.load(Ordering::Relaxed)
    }

    /// Ends all connections and prevents new ones.
    pub fn stop(&self) {
        *lock(&self.stopped) = true;
        self.wake.notify_all();
        for (_, agent) in lock(&self.agents).drain() {
            agent.shutdown();
        }
    }

    /// Waits for `time`. Returns false if the client was stopped.
    pub fn pause(&self, time: Duration) -> bool {
        let waited = self.wake.wait_timeout_while(lock(&self.stopped), time, |stopped| !*stopped);
        !*ignore_poison(waited).0
    }

    /// Sends `request`, retries it while that may help, and follows redirects. A refusal of the server
    /// is a response, not an error.
    ///
    /// A server that never responded is not retried: a misspelt name shows at once.
    pub fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut backoff = Backoff::default();
        loop {
            let start = Instant::now();
            let tried = self.follow(request);
            let delay = match &tried {
                Ok(response) if matches!(response.status, 408 | 429 | 500 | 502 | 503 | 504) => {
                    response.retry_after()
                }
                Err(failure) if failure.kind() == ErrorKind::Transient => None,
                Err(failure)
                    if failure.kind() == ErrorKind::Unreachable && self.has_responded() =>
                {
                    None
                }
                _ => return tried,
            };
            let Some(time) = backoff.next(delay) else { return tried };
            match &tried {
                Err(failure) if start.elapsed() >= LONG_PAUSE => {
                    log::warn("pull", &format!("{failure}: retrying"));
                }
                _ if delay.is_some_and(|delay| delay >= LONG_PAUSE) => {
                    let (host, seconds) = (request.url.host(), time.as_secs());
                    log::warn("pull", &format!("{host} is busy: retrying in {seconds} s"));
                }
                _ => {}
            }
            if !self.pause(time) {
                return tried;
            }
        }
    }

    /// Sends `request` once, and follows redirects.
    fn follow(&self, request: &Request<'_>) -> Result<Response> {
        let mut url = request.url.clone();
        for hop in 0..=MAX_REDIRECTS {
            let own = url.is_same_server(&request.url);
            let authorization = request.authorization.as_deref().filter(|_| own);
            let mut response = self.get(&url, request.headers, authorization)?;
            response.redirected = hop > 0 && !own;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let context = || format!("cannot follow the redirect of {}", url.host());
            let location = response.header("location").unwrap_or_default();
            if location.is_empty() {
                return Err(Error::caused_by(context(), "the header Location is missing"));
            }
            let next = url.join(location).context(context)?;
            // Never from HTTPS to HTTP; plain HTTP only to servers that the site allows it with.
            if next.is_plain() && (!url.is_plain() || !self.may_be_plain(next.host())) {
                let text = format!("the target is plain HTTP on {}", next.host());
                return Err(Error::caused_by(context(), text));
            }
            url = next;
        }
        let host = request.url.host();
        Err(Error::new(format!("{host} redirects more than {MAX_REDIRECTS} times")))
    }

    fn get(
        &self,
        url: &Url,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
    ) -> Result<Response> {
        let mut call = self.agent(url)?.get(url.0.clone());
        for (name, value) in headers {
            call = call.header(*name, value);
        }
        if let Some(authorization) = authorization {
            call = call.header("Authorization", authorization);
        }
        self.receive(url, call.call())
    }

    /// Posts a form that is already URL-encoded.
    pub fn post(&self, url: &Url, form: &str) -> Result<Response> {
        let call = self.agent(url)?.post(url.0.clone());
        let call = call.header("Content-Type", "application/x-www-form-urlencoded");
        self.receive(url, call.send(form))
    }

    fn receive(
        &self,
        url: &Url,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response> {
        let response = response.map_err(|error| self.failure(url, error))?;
        self.responded.store(true, Ordering::Relaxed);
        Ok(Response::new(url.host(), response, self.settings.read_timeout))
    }

    fn failure(&self, url: &Url, error: ureq::Error) -> Error {
        let failure = match proxy::for_server(url.is_plain(), url.host()) {
            Ok(Some(proxy)) if transport_error::is_about_connecting(&error) => {
                let proxy = format!("the proxy {}:{}", proxy.host(), proxy.port());
                transport_error::from_ureq(&proxy, error, self.settings.read_timeout)
                    .with_hint(transport_error::PROXY)
            }
            _ => transport_error::from_ureq(url.host(), error, self.settings.read_timeout),
        };
        let kind = match failure.kind() {
            // The protocol was settled by an earlier response.
            ErrorKind::NotTls if self.has_responded() => ErrorKind::Transient,
            // A server without TLS may also close the connection or wait for more after a TLS
            // handshake begins, or listen at the port of plain HTTP only.
            ErrorKind::Transient | ErrorKind::Unreachable
                if !self.has_responded() && !url.is_plain() && self.may_be_plain(url.host()) =>
            {
                ErrorKind::NotTls
            }
            kind => kind,
        };
        failure.with_kind(kind)
    }

    /// Returns the agent for the server of `url`.
    fn agent(&self, url: &Url) -> Result<Agent> {
        let key = (url.host().to_owned(), url.is_plain());
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let host = url.host();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let Settings { read_timeout, connect_timeout, .. } = self.settings;
        let is_probe = !url.is_plain() && self.may_be_plain(host);
        let connect_timeout =
            if is_probe { connect_timeout.min(PROBE_TIMEOUT) } else { connect_timeout };
        let tls = if url.is_plain() {
            TlsConfig::default()
        } else {
            tls::config(host, self.system_roots.get_or_init(tls::system_roots).as_deref())?
        };
        let config = Agent::config_builder()
            .user_agent(concat!("sarus/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::for_server(url.is_plain(), host)?)
            .timeout_resolve(seconds(connect_timeout))
            .timeout_connect(seconds(connect_timeout))
            .timeout_per_read(seconds(read_timeout))
            .timeout_per_write(seconds(read_timeout))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .input_buffer_size(BUFFER)
            .tls_config(tls)
            .build();
        let agent = Agent::new_with_config(config);
        let mut agents = lock(&self.agents);
        if *lock(&self.stopped) {
            return Err(Error::new("stopped"));
        }
        // Bounds the memory if a registry redirects to ever new servers.
        if agents.len() >= MAX_AGENTS {
            agents.clear();
        }
        Ok(agents.entry(key).or_insert(agent).clone())
    }
}
