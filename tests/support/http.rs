//! Requests and answers of HTTP: what a server is asked and what it says, which may be as wrong as
//! what a broken or hostile one says. [`fetch`] asks a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

#[allow(unused_imports, reason = "for the comments")]
use super::server::ENDLESS;

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// The path with its query, as it came.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, whose name may be written in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// All values of a query parameter, decoded.
    pub fn query(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| percent_decoded(value)).collect()
    }

    /// `N` of `Range: bytes=N-`.
    pub fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (bytes, rest) = match (*first, decoded) {
            (b'%', Some(byte)) => ([bytes, vec![byte]].concat(), &after[2..]),
            (b'+', _) => ([bytes, vec![b' ']].concat(), after),
            (byte, _) => ([bytes, vec![byte]].concat(), after),
        };
    }
    String::from_utf8(bytes).unwrap()
}

/// What the server does after the bytes of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As HTTP has it.
    Properly,
    /// Closes the connection after this many bytes of the body.
    CutAfter(usize),
    /// Sends this many bytes of the body, and no more, until the client goes.
    StallAfter(usize),
    /// Repeats the body, up to [`ENDLESS`].
    Never,
    /// Closes the connection without a byte, headers included.
    NoAnswer,
}

/// What the client is told about the length of the body.
#[derive(Debug, Clone)]
pub(super) enum Length {
    True,
    Claimed(String),
    /// No Content-Length: the body ends with the connection.
    Untold,
    Chunked,
}

/// An answer: `Answer::new(200).header("X-Y", "z").body(bytes)`, and what may be wrong with it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Arc<Vec<u8>>,
    /// Where in the body it starts: ranges of large bodies are not copied.
    pub(super) start: usize,
    pub(super) length: Length,
    pub(super) end: End,
    pub(super) delay: Duration,
    pub(super) pause: Option<(usize, Duration)>,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: vec![],
            body: Arc::default(),
            start: 0,
            length: Length::True,
            end: End::Properly,
            delay: Duration::ZERO,
            pause: None,
        }
    }

    pub fn json(status: u16, text: &str) -> Self {
        Self::new(status).header("Content-Type", "application/json").body(text.as_bytes().to_vec())
    }

    /// A redirect to another place.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::new(status).header("Location", location)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Arc<Vec<u8>>>) -> Self {
        self.body = body.into();
        self
    }

    /// The body from `start` on, as the answer to a request with a range.
    pub fn range(mut self, start: usize) -> Self {
        let length = self.body.len();
        self.status = 206;
        self.start = start;
        self.header("Content-Range", &format!("bytes {start}-{}/{length}", length - 1))
    }

    /// Waits before it answers.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in pieces of this size with a pause after each.
    pub fn slowly(mut self, piece: usize, pause: Duration) -> Self {
        self.pause = Some((piece, pause));
        self
    }

    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.end = End::CutAfter(bytes);
        self
    }

    pub fn stall_after(mut self, bytes: usize) -> Self {
        self.end = End::StallAfter(bytes);
        self
    }

    /// Sends the body again and again.
    pub fn endless(mut self) -> Self {
        self.end = End::Never;
        self.length = Length::Untold;
        self
    }

    /// Closes the connection without an answer.
    pub fn none() -> Self {
        Self { end: End::NoAnswer, ..Self::new(200) }
    }

    /// Writes this as Content-Length, whatever the body.
    pub fn claim_length(mut self, length: &str) -> Self {
        self.length = Length::Claimed(length.into());
        self
    }

    /// Tells no length: the body ends where the connection does.
    pub fn untold_length(mut self) -> Self {
        self.length = Length::Untold;
        self
    }

    pub fn chunked(mut self) -> Self {
        self.length = Length::Chunked;
        self
    }

    /// The status line and the headers.
    pub(super) fn head(&self) -> String {
        let Self { status, headers, .. } = self;
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(*status));
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match &self.length {
            Length::True => format!("Content-Length: {}\r\n", self.body.len() - self.start),
            Length::Claimed(length) => format!("Content-Length: {length}\r\n"),
            Length::Untold => "Connection: close\r\n".into(),
            Length::Chunked => "Transfer-Encoding: chunked\r\n".into(),
        };
        head + "\r\n"
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        300..400 => "Redirect",
        401 => "Unauthorized",
        404 => "Not Found",
        400..500 => "Refused",
        _ => "Failed",
    }
}

/// The answer to a request that this process makes itself.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// Asks `address` (`host:port`) in plain HTTP/1.0, whose answers end with the connection.
pub fn fetch(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    let mut head =
        format!("{method} {target} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {target}: {line}"));
    let mut headers = vec![];
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut body = vec![];
    reader.read_to_end(&mut body).unwrap();
    Response { status, headers, body }
}
