//! HTTP as a registry needs it: by ureq, with our own rules for redirects, retries and who may
//! speak plain HTTP. Start at [`Client::send`].

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ureq::Agent;
use ureq::tls::{Certificate, TlsConfig};

use super::backoff::Backoff;
use super::challenge::{self, Challenge};
use super::url::{Url, parse_date};
use super::{Complaints, is_loopback, proxy, tls, transport_error};
use crate::error::ErrorKind;
use crate::error::{Context, Error, Result};
use crate::log;

/// Redirects from one request: registries make one, storage behind them seldom another.
const MAX_REDIRECTS: usize = 5;
/// How long nothing may come in.
const STALL: u64 = 60;
/// How long a connection may take to come about.
const CONNECT: u64 = 30;
/// The same where the other side may not speak TLS, and wait for us as we do for it.
const PROBE: u64 = 5;
/// Longest time-out that can be asked for: a day.
const LONGEST: u64 = 86_400;
/// How long the headers of an answer may take to come.
const ANSWER: Duration = Duration::from_secs(300);
/// Pauses that a server asks for are told of from here on.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Servers whose connections are kept; far more than a registry with its storage has.
const MAX_AGENTS: usize = 32;
/// What is read from a connection at a time.
const BUFFER: usize = 256 << 10;

/// What the site and the user say about the network.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host[:port]` of registries that may speak plain HTTP.
    pub insecure: Vec<String>,
    /// In seconds: how long nothing may come in.
    pub stall: u64,
    /// In seconds: how long a connection may take.
    pub connect: u64,
}

impl Settings {
    /// With the time-outs of `SARUS_STALL_TIMEOUT` and `SARUS_CONNECT_TIMEOUT`, or their defaults.
    #[must_use]
    pub fn from_environment(insecure: &[String]) -> Self {
        let seconds = |name, default| {
            let text = std::env::var(name).ok();
            let number = text.and_then(|text| text.parse::<u64>().ok());
            number.map_or(default, |number| number.clamp(1, LONGEST))
        };
        Self {
            insecure: insecure.to_owned(),
            stall: seconds("SARUS_STALL_TIMEOUT", STALL),
            connect: seconds("SARUS_CONNECT_TIMEOUT", CONNECT),
        }
    }
}

/// Something to ask for.
pub struct Request<'a> {
    pub url: Url,
    pub headers: &'a [(&'static str, String)],
    /// For the server of `url` alone, not for where it may redirect to.
    pub authorization: Option<String>,
}

/// What came back.
pub struct Response {
    pub status: u16,
    /// `host[:port]` of who answered.
    pub host: String,
    /// It came from elsewhere than was asked.
    pub redirected: bool,
    headers: ureq::http::HeaderMap,
    /// How long nothing may come in, in seconds: for messages.
    stall: u64,
    pace: Pace,
    body: Box<dyn Read + Send>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.status, self.host)
    }
}

/// In bytes a second: who sends less keeps others waiting, and might do so for ever.
const MIN_RATE: u64 = 1024;

/// Whether a transfer gets on, looked at once in a while.
#[derive(Debug)]
struct Pace {
    period: Duration,
    since: Instant,
    received: u64,
}

impl Pace {
    fn new(period: Duration) -> Self {
        Self { period, since: Instant::now(), received: 0 }
    }

    /// Takes note of `count` bytes more.
    fn keeps(&mut self, count: usize) -> bool {
        self.received += count as u64;
        if self.since.elapsed() < self.period {
            return true;
        }
        let enough = self.received >= MIN_RATE * self.period.as_secs();
        *self = Self::new(self.period);
        enough
    }
}

/// What a server says of an error.
#[derive(Debug, Default)]
pub struct Message {
    pub code: Option<String>,
    pub text: Option<String>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Of the body, in bytes, if it is told.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The ways of logging in that are offered.
    pub fn challenges(&self) -> Vec<Challenge> {
        let headers = self.headers.get_all("www-authenticate").iter();
        headers.filter_map(|header| header.to_str().ok()).flat_map(challenge::parse).collect()
    }

    /// All of the body, if it is not longer than `limit` bytes.
    ///
    /// # Errors
    /// When it is longer, or does not come.
    pub fn bytes(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend(buffer.get(..count).unwrap_or_default()),
            }
            if bytes.len() as u64 > limit {
                return Err(Error::new(format!("it is longer than {limit} bytes")));
            }
        }
    }

    /// What the body says of an error, cut to what fits into a line.
    pub fn message(&mut self, limit: u64) -> Message {
        let bytes = self.bytes(limit).unwrap_or_default();
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let Ok(complaints) = miniserde::json::from_str::<Complaints>(text) else {
            return Message::default();
        };
        let first = complaints.errors.unwrap_or_default().into_iter().next();
        let (code, text) = first.map_or((None, None), |first| (first.code, first.message));
        let text = text.or(complaints.details).or_else(|| code.clone());
        let text =
            text.filter(|text| !text.is_empty()).map(|text| text.chars().take(200).collect());
        Message { code, text }
    }

    /// The next bytes of the body; none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Self { body, host, stall, pace, .. } = self;
        let count =
            body.read(buffer).map_err(|error| transport_error::from_io(host, &error, *stall))?;
        if count == 0 || pace.keeps(count) {
            return Ok(count);
        }
        let text = format!("{host} sends less than {MIN_RATE} bytes a second");
        Err(transport_error::transient(text, "try again; what has arrived is kept"))
    }

    /// When the server wants to be asked again (RFC 9110, section 10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(Duration::from_secs(parse_date(text)?.saturating_sub(now)))
    }
}

/// Connections to a registry and to whom it refers us.
pub struct Client {
    settings: Settings,
    /// For each server, since each may have an authority of its own.
    agents: Mutex<HashMap<(String, bool), Agent>>,
    /// Whom the system trusts; read when first needed.
    authorities: OnceLock<Option<Vec<Certificate<'static>>>>,
    stopped: Mutex<bool>,
    wake: Condvar,
    /// Somebody has answered: who is not there later may come back.
    answered: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            agents: Mutex::default(),
            authorities: OnceLock::new(),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
            answered: AtomicBool::new(false),
        }
    }

    /// Whether the site lets `server` speak plain HTTP.
    pub fn may_be_plain(&self, server: &str) -> bool {
        is_loopback(server) || self.settings.insecure.iter().any(|other| other == server)
    }

    fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends all connections, and lets no new ones begin.
    pub fn stop(&self) {
        *lock(&self.stopped) = true;
        self.wake.notify_all();
        for (_, agent) in lock(&self.agents).drain() {
            agent.shutdown();
        }
    }

    /// Waits; false if all has been stopped.
    pub fn pause(&self, time: Duration) -> bool {
        let waited = self.wake.wait_timeout_while(lock(&self.stopped), time, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Asks for what `request` says, again and again while that may help, and follows redirects.
    /// What the server refuses is an answer, not an error.
    ///
    /// A server that never answered is not waited for: a typing error shall show at once.
    pub fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut backoff = Backoff::default();
        loop {
            let start = Instant::now();
            let tried = self.follow(request);
            let asked = match &tried {
                Ok(response) if matches!(response.status, 408 | 429 | 500 | 502 | 503 | 504) => {
                    response.retry_after()
                }
                Err(failure) if failure.kind() == ErrorKind::Transient => None,
                Err(failure) if failure.kind() == ErrorKind::Unreachable && self.was_answered() => {
                    None
                }
                _ => return tried,
            };
            let Some(time) = backoff.next(asked) else { return tried };
            match &tried {
                Err(failure) if start.elapsed() >= LONG_PAUSE => {
                    log::warn("pull", &format!("{failure}: asking again"));
                }
                _ if asked.is_some_and(|asked| asked >= LONG_PAUSE) => {
                    let (host, seconds) = (request.url.host(), time.as_secs());
                    log::warn("pull", &format!("{host} is busy: asking again in {seconds} s"));
                }
                _ => {}
            }
            if !self.pause(time) {
                return tried;
            }
        }
    }

    /// Asks once, and follows redirects.
    fn follow(&self, request: &Request<'_>) -> Result<Response> {
        let mut url = request.url.clone();
        for hop in 0..=MAX_REDIRECTS {
            let own = url.is_same_server(&request.url);
            let authorization = request.authorization.as_deref().filter(|_| own);
            let mut response = self.ask(&url, request.headers, authorization)?;
            response.redirected = hop > 0 && !own;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let about = || format!("cannot follow {} elsewhere", url.host());
            let location = response.header("location").unwrap_or_default();
            if location.is_empty() {
                return Err(Error::caused_by(about(), "it does not say where"));
            }
            let next = url.join(location).context(about)?;
            // What began encrypted stays so; plain HTTP is for those whom the site trusts with it.
            if next.is_plain() && (!url.is_plain() || !self.may_be_plain(next.host())) {
                let text = format!("it leads to plain HTTP on {}", next.host());
                return Err(Error::caused_by(about(), Error::new(text)));
            }
            url = next;
        }
        let host = request.url.host();
        Err(Error::new(format!("{host} redirects more than {MAX_REDIRECTS} times")))
    }

    fn ask(
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
        self.answered(url, call.call())
    }

    /// Sends a form, which is encoded already.
    pub fn post(&self, url: &Url, form: &str) -> Result<Response> {
        let call = self.agent(url)?.post(url.0.clone());
        let call = call.header("Content-Type", "application/x-www-form-urlencoded");
        self.answered(url, call.send(form))
    }

    fn answered(
        &self,
        url: &Url,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response> {
        let answer = answer.map_err(|error| self.failure(url, error))?;
        self.answered.store(true, Ordering::Relaxed);
        let (parts, body) = answer.into_parts();
        Ok(Response {
            status: parts.status.as_u16(),
            host: url.host().to_owned(),
            redirected: false,
            headers: parts.headers,
            stall: self.settings.stall,
            pace: Pace::new(Duration::from_secs(self.settings.stall)),
            body: Box::new(body.into_reader()),
        })
    }

    fn failure(&self, url: &Url, error: ureq::Error) -> Error {
        let failure = match proxy::for_server(url.is_plain(), url.host()) {
            Ok(Some(proxy)) if transport_error::is_about_connecting(&error) => {
                let proxy = format!("the proxy {}:{}", proxy.host(), proxy.port());
                transport_error::from_ureq(&proxy, error, self.settings.stall)
                    .with_hint(transport_error::PROXY)
            }
            _ => transport_error::from_ureq(url.host(), error, self.settings.stall),
        };
        let kind = match failure.kind() {
            // Who has spoken TLS, or plain HTTP by permission, goes on with that.
            ErrorKind::NotTls if self.was_answered() => ErrorKind::Transient,
            // A server without TLS may also hang up, or wait for more, when it is greeted in TLS; or
            // it is only at the port of plain HTTP.
            ErrorKind::Transient | ErrorKind::Unreachable
                if !self.was_answered() && !url.is_plain() && self.may_be_plain(url.host()) =>
            {
                ErrorKind::NotTls
            }
            kind => kind,
        };
        failure.with_kind(kind)
    }

    /// The connections to the server of `url`.
    fn agent(&self, url: &Url) -> Result<Agent> {
        let key = (url.host().to_owned(), url.is_plain());
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let host = url.host();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let Settings { stall, connect, .. } = self.settings;
        let may_wait = url.is_plain() || !self.may_be_plain(host);
        let connect = if may_wait { connect } else { connect.min(PROBE) };
        let tls = match url.is_plain() {
            true => TlsConfig::default(),
            false => tls::config(host, self.authorities.get_or_init(tls::system_roots).as_deref())?,
        };
        let config = Agent::config_builder()
            .user_agent(concat!("sarus/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::for_server(url.is_plain(), host)?)
            .timeout_resolve(seconds(connect))
            .timeout_connect(seconds(connect))
            .timeout_per_read(seconds(stall))
            .timeout_per_write(seconds(stall))
            .timeout_recv_response(Some(ANSWER))
            .input_buffer_size(BUFFER)
            .tls_config(tls)
            .build();
        let agent = Agent::new_with_config(config);
        let mut agents = lock(&self.agents);
        if *lock(&self.stopped) {
            return Err(Error::new("stopped"));
        }
        // A registry that sends us to ever new servers shall not fill the memory.
        if agents.len() >= MAX_AGENTS {
            agents.clear();
        }
        Ok(agents.entry(key).or_insert(agent).clone())
    }
}
