//! HTTP as a registry needs it: by ureq, with our own rules for redirects, retries and who may
//! speak plain HTTP. Start at [`Client::send`].

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::Agent;
use ureq::http::Uri;

use super::backoff::Backoff;
use super::challenge::{self, Challenge};
use super::failure::{Failure, Kind};
use super::{Complaints, failure, proxy, tls};
use crate::error::{Because, Error, Result};

/// Redirects from one request: registries make one, storage behind them seldom another.
const MAX_REDIRECTS: usize = 5;
/// How long nothing may come in.
const STALL: u64 = 60;
/// How long a connection may take to come about.
const CONNECT: u64 = 30;
/// The same where the other side may not speak TLS, and wait for us as we do for it.
const PROBE: u64 = 5;
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
            text.and_then(|text| text.parse().ok()).filter(|n| *n > 0).unwrap_or(default)
        };
        Self {
            insecure: insecure.to_owned(),
            stall: seconds("SARUS_STALL_TIMEOUT", STALL),
            connect: seconds("SARUS_CONNECT_TIMEOUT", CONNECT),
        }
    }
}

/// Whether `host[:port]` is this machine itself.
#[must_use]
pub fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// An absolute URL with a host, by http or https.
#[derive(Debug, Clone)]
pub struct Url(Uri);

impl Url {
    /// Reads what a server calls a URL.
    pub fn parse(text: &str) -> Result<Self> {
        let about = || format!("cannot use the URL {text:.200}");
        let uri: Uri = text.parse().map_err(|_| Error::new("it is malformed")).because(about)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        // What stands before an @ would be sent as a login.
        let tame = uri.authority().is_some_and(|who| !who.as_str().contains('@'));
        match known && tame && uri.host().is_some_and(|host| !host.is_empty()) {
            true => Ok(Self(uri)),
            false => Err(Error::new("expected http or https, and a host")).because(about),
        }
    }

    /// A path of the registry's API.
    pub fn registry(server: &str, plain: bool, path: &str) -> Result<Self> {
        Self::parse(&format!("{}://{server}/v2/{path}", if plain { "http" } else { "https" }))
    }

    /// With `query`, which is encoded already, behind what is asked for.
    pub fn with_query(&self, query: &str) -> Result<Self> {
        let mark = if self.0.query().is_some() { '&' } else { '?' };
        Self::parse(&format!("{}{mark}{query}", self.0))
    }

    /// Where a redirect leads (RFC 9110, section 10.2.2).
    pub fn join(&self, location: &str) -> Result<Self> {
        let scheme = self.0.scheme_str().unwrap_or("https");
        let host = self.host();
        if location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?'])) {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{host}{location}"))
        } else {
            let path = self.0.path();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            Self::parse(&format!("{scheme}://{host}{folder}/{location}"))
        }
    }

    pub fn is_plain(&self) -> bool {
        self.0.scheme_str() == Some("http")
    }

    /// `host[:port]`.
    pub fn host(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    fn is_same_server(&self, other: &Self) -> bool {
        let port = |url: &Self| url.0.port_u16().unwrap_or(if url.is_plain() { 80 } else { 443 });
        self.is_plain() == other.is_plain()
            && self.0.host() == other.0.host()
            && port(self) == port(other)
    }

    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    body: Box<dyn Read + Send>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.status, self.host)
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
    pub fn bytes(&mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = (&mut self.body).take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::of_io(&self.host, &error, self.stall))?;
        match bytes.len() as u64 > limit {
            true => Err(Error::new(format!("it is longer than {limit} bytes")).into()),
            false => Ok(bytes),
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
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Self { body, host, stall, .. } = self;
        body.read(buffer).map_err(|error| Failure::of_io(host, &error, *stall))
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

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let month = MONTHS.find(words.next()?)? as u64 / 3 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970, with years that begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)? * 24 + hour) * 3600 + minute * 60 + second)
}

/// Connections to a registry and to whom it refers us.
pub struct Client {
    settings: Settings,
    /// For each server, since each may have an authority of its own.
    agents: Mutex<HashMap<String, Agent>>,
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
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let mut backoff = Backoff::default();
        loop {
            let tried = self.follow(request);
            let asked = match &tried {
                Ok(response) if matches!(response.status, 408 | 429 | 500 | 502 | 503 | 504) => {
                    response.retry_after()
                }
                Err(failure) if failure.kind == Kind::Transient => None,
                Err(failure) if failure.kind == Kind::Unreachable && self.was_answered() => None,
                _ => return tried,
            };
            match backoff.next(asked) {
                Some(time) if self.pause(time) => {}
                _ => return tried,
            }
        }
    }

    /// Asks once, and follows redirects.
    fn follow(&self, request: &Request<'_>) -> Result<Response, Failure> {
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
            let next = url.join(location).because(about)?;
            // What began encrypted stays so; plain HTTP is for those whom the site trusts with it.
            if next.is_plain() && (!url.is_plain() || !self.may_be_plain(next.host())) {
                let text = format!("it leads to plain HTTP on {}", next.host());
                return Err(Error::caused_by(about(), Error::new(text)).into());
            }
            url = next;
        }
        let host = request.url.host();
        Err(Error::new(format!("{host} redirects more than {MAX_REDIRECTS} times")).into())
    }

    fn ask(
        &self,
        url: &Url,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
    ) -> Result<Response, Failure> {
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
    pub fn post(&self, url: &Url, form: &str) -> Result<Response, Failure> {
        let call = self.agent(url)?.post(url.0.clone());
        let call = call.header("Content-Type", "application/x-www-form-urlencoded");
        self.answered(url, call.send(form))
    }

    fn answered(
        &self,
        url: &Url,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response, Failure> {
        let answer = answer.map_err(|error| self.failure(url, error))?;
        self.answered.store(true, Ordering::Relaxed);
        let (parts, body) = answer.into_parts();
        Ok(Response {
            status: parts.status.as_u16(),
            host: url.host().to_owned(),
            redirected: false,
            headers: parts.headers,
            stall: self.settings.stall,
            body: Box::new(body.into_reader()),
        })
    }

    fn failure(&self, url: &Url, error: ureq::Error) -> Failure {
        let mut failure = match proxy::of(url.is_plain(), url.host()) {
            Ok(Some(proxy)) if failure::is_about_connecting(&error) => {
                let proxy = format!("the proxy {}:{}", proxy.host(), proxy.port());
                let mut failure = Failure::of(&proxy, error, self.settings.stall);
                failure.error = failure.error.hint(failure::PROXY);
                failure
            }
            _ => Failure::of(url.host(), error, self.settings.stall),
        };
        failure.kind = match failure.kind {
            // Who has spoken TLS, or plain HTTP by permission, goes on with that.
            Kind::NoTls if self.was_answered() => Kind::Transient,
            // A server without TLS may also hang up, or wait for more, when it is greeted in TLS.
            Kind::Transient
                if !self.was_answered() && !url.is_plain() && self.may_be_plain(url.host()) =>
            {
                Kind::NoTls
            }
            kind => kind,
        };
        failure
    }

    /// The connections to the server of `url`.
    fn agent(&self, url: &Url) -> Result<Agent> {
        let key = url.host();
        if let Some(agent) = lock(&self.agents).get(key) {
            return Ok(agent.clone());
        }
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let Settings { stall, connect, .. } = self.settings;
        let may_wait = url.is_plain() || !self.may_be_plain(key);
        let connect = if may_wait { connect } else { connect.min(PROBE) };
        let config = Agent::config_builder()
            .user_agent(concat!("sarus/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::of(url.is_plain(), key)?)
            .timeout_resolve(seconds(connect))
            .timeout_connect(seconds(connect))
            .timeout_per_read(seconds(stall))
            .timeout_per_write(seconds(stall))
            .input_buffer_size(BUFFER)
            .tls_config(tls::config(key)?)
            .build();
        let agent = Agent::new_with_config(config);
        let mut agents = lock(&self.agents);
        if *lock(&self.stopped) {
            return Err(Error::new("stopped"));
        }
        Ok(agents.entry(key.to_owned()).or_insert(agent).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_browsers_go() {
        let base = Url::parse("https://a.example:5000/v2/x/blobs/1?y=1").unwrap();
        for (location, expected) in [
            ("https://b/c?d=http://e", "https://b/c?d=http://e"),
            ("//b/c", "https://b/c"),
            ("/c?d=http://e", "https://a.example:5000/c?d=http://e"),
            ("c", "https://a.example:5000/v2/x/blobs/c"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), expected);
        }
        for location in ["file:///etc/passwd", "ftp://b/c", "https://", "http://u@b/", "gopher://x"]
        {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn only_the_same_server_is_the_same() {
        let base = Url::parse("https://a/b").unwrap();
        for (other, same) in [
            ("https://a:443/c", true),
            ("https://a:444/c", false),
            ("http://a:443/c", false),
            ("https://a.b/c", false),
        ] {
            assert_eq!(base.is_same_server(&Url::parse(other).unwrap()), same, "{other}");
        }
    }

    #[test]
    fn dates_are_understood() {
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        for text in [
            "",
            "soon",
            "Sun, 06 Nov",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 99999999999999999:49:37 GMT",
        ] {
            assert_eq!(parse_date(text), None);
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (server, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.8.9.1:5000", true),
            ("[::1]:5000", true),
            ("localhost.example.org", false),
            ("128.0.0.1:5000", false),
            ("127.0.0.1.example.org", false),
        ] {
            assert_eq!(is_loopback(server), loopback, "{server}");
        }
    }
}
