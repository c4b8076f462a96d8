//! HTTP responses: headers, a body that is bounded in size and time, and error messages.

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use miniserde::Deserialize;
use ureq::http::HeaderMap;

use super::challenge::{self, Challenge};
use super::{date, transport_error};
use crate::error::{Error, Result};

/// Minimum transfer rate in bytes per second. A slower server keeps other processes waiting, and
/// could do so for ever.
const MIN_RATE: u64 = 1024;

/// Maximum length of an error message of a server, in characters.
const MAX_MESSAGE_TEXT: usize = 200;

/// A response to a request.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `host[:port]` of the server that responded.
    pub host: String,
    /// True if another server than the requested one responded.
    pub redirected: bool,
    headers: HeaderMap,
    /// Read timeout in seconds, for messages.
    read_timeout: u64,
    rate: Rate,
    body: Box<dyn Read + Send>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.status, self.host)
    }
}

/// Measures the rate of a transfer, period by period.
#[derive(Debug)]
struct Rate {
    period: Duration,
    since: Instant,
    received: u64,
}

impl Rate {
    fn new(period: Duration) -> Self {
        Self { period, since: Instant::now(), received: 0 }
    }

    /// Counts `count` bytes more. Returns false if the period that ended was too slow.
    fn is_sufficient(&mut self, count: usize) -> bool {
        self.received += count as u64;
        if self.since.elapsed() < self.period {
            return true;
        }
        let sufficient = self.received >= MIN_RATE * self.period.as_secs();
        *self = Self::new(self.period);
        sufficient
    }
}

/// Error code and message in the body of a response.
#[derive(Debug, Default)]
pub struct Message {
    pub code: Option<String>,
    pub text: Option<String>,
}

/// Body of an error response (OCI distribution specification, "Error Codes").
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    errors: Option<Vec<ErrorEntry>>,
    /// Message of token servers.
    details: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ErrorEntry {
    code: Option<String>,
    message: Option<String>,
}

impl Response {
    pub(super) fn new(
        host: &str,
        response: ureq::http::Response<ureq::Body>,
        read_timeout: u64,
    ) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            host: host.to_owned(),
            redirected: false,
            headers: parts.headers,
            read_timeout,
            rate: Rate::new(Duration::from_secs(read_timeout)),
            body: Box::new(body.into_reader()),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Length of the body in bytes, if the server states it.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Authentication schemes that the server offers.
    pub fn challenges(&self) -> Vec<Challenge> {
        let headers = self.headers.get_all("www-authenticate").iter();
        headers.filter_map(|header| header.to_str().ok()).flat_map(challenge::parse).collect()
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// The body is longer than `limit` bytes, or the transfer fails.
    pub fn bytes(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend(buffer.get(..count).unwrap_or_default()),
            }
            if bytes.len() as u64 > limit {
                return Err(Error::new(format!("the response is longer than {limit} bytes")));
            }
        }
    }

    /// Reads the error message in the body, cut to what fits into a line.
    pub fn message(&mut self, limit: u64) -> Message {
        let bytes = self.bytes(limit).unwrap_or_default();
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let Ok(body) = miniserde::json::from_str::<ErrorBody>(text) else {
            return Message::default();
        };
        let first = body.errors.unwrap_or_default().into_iter().next();
        let (code, text) = first.map_or((None, None), |first| (first.code, first.message));
        let text = text.or(body.details).or_else(|| code.clone()).filter(|text| !text.is_empty());
        Message { code, text: text.map(|text| text.chars().take(MAX_MESSAGE_TEXT).collect()) }
    }

    /// Reads the next bytes of the body; none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Self { body, host, read_timeout, rate, .. } = self;
        let count = body
            .read(buffer)
            .map_err(|error| transport_error::from_io(host, &error, *read_timeout))?;
        if count == 0 || rate.is_sufficient(count) {
            return Ok(count);
        }
        let text = format!("{host} sends less than {MIN_RATE} bytes per second");
        Err(transport_error::transient(text, transport_error::RESUMABLE))
    }

    /// Delay before the next try that the server asks for (RFC 9110, section 10.2.3).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(Duration::from_secs(date::parse(text)?.saturating_sub(now)))
    }
}
