//! A small HTTP/1.1 server on loopback, on threads, whose answers come from a closure:
//! [`Server::new`]. It keeps what it was asked: [`Server::log`].

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use super::http::{Answer, End, Length, Request};

/// An endless body ends here all the same, so that a client that reads on does not fill the disk.
pub const ENDLESS: usize = 1 << 30;

/// How often a stalled connection looks whether its client is still there.
const TICK: Duration = Duration::from_millis(20);

/// A request with what the server made of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub request: Request,
    pub status: u16,
    /// Bytes of the body that were sent so far.
    pub sent: usize,
    /// Whether the server now keeps the client waiting for ever.
    pub stalled: bool,
    pub at: Instant,
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// What the threads of a server share.
struct Shared {
    handler: Box<Handler>,
    log: Mutex<Vec<Exchange>>,
    connections: Mutex<HashMap<usize, TcpStream>>,
    stopped: AtomicBool,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<usize, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server; it ends when dropped.
pub struct Server {
    host: String,
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server on 127.0.0.1.
    pub fn new(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1", handler)
    }

    /// A server on another address of loopback, which clients take for another host.
    pub fn on(host: &str, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            log: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let thread = spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { host: host.into(), port, shared, thread: Some(thread) }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// All requests so far, in the order in which they came.
    pub fn log(&self) -> Vec<Exchange> {
        self.shared.log().clone()
    }

    /// The requests so far whose path contains `part`.
    pub fn log_of(&self, part: &str) -> Vec<Exchange> {
        self.log().into_iter().filter(|entry| entry.request.target.contains(part)).collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.log().clear();
    }

    /// Waits until a client is kept waiting for ever.
    pub fn wait_for_stall(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.log().iter().any(|entry| entry.stalled) {
            assert!(Instant::now() < deadline, "nobody waits: {:?}", self.log());
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for stream in self.shared.connections().values() {
            stream.shutdown(Shutdown::Both).ok();
        }
        // Wakes the thread that accepts.
        TcpStream::connect((self.host.as_str(), self.port)).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in listener.incoming().enumerate() {
        let Ok(stream) = stream else { continue };
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(copy) = stream.try_clone() else { continue };
        shared.connections().insert(number, copy);
        let shared = Arc::clone(shared);
        spawn(move || {
            // The client may go at any moment: that ends the connection and nothing else.
            serve(&stream, &shared).ok();
            stream.shutdown(Shutdown::Both).ok();
            shared.connections().remove(&number);
        });
    }
}

/// Answers the requests of one connection until it is to be closed.
fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let answer = (shared.handler)(&request);
        let is_head = request.method == "HEAD";
        let close = request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        let number = {
            let mut log = shared.log();
            let status = answer.status;
            let at = Instant::now();
            log.push(Exchange { request, status, sent: 0, stalled: false, at });
            log.len() - 1
        };
        let go_on = Sending { stream, shared, number }.answer(&answer, is_head)?;
        if !go_on || close {
            break;
        }
    }
    Ok(())
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = vec![];
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: vec![] };
    let length = request.header("content-length").and_then(|text| text.parse().ok());
    request.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

/// One answer on its way.
struct Sending<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    /// Which entry of the log it is.
    number: usize,
}

impl Sending<'_> {
    /// Whether the connection may carry another request afterwards.
    fn answer(mut self, answer: &Answer, is_head: bool) -> std::io::Result<bool> {
        sleep(answer.delay);
        if answer.end == End::NoAnswer {
            return Ok(false);
        }
        self.stream.write_all(answer.head().as_bytes())?;
        if is_head {
            return Ok(true);
        }
        let body = &answer.body[answer.start..];
        let until = match answer.end {
            End::CutAfter(bytes) | End::StallAfter(bytes) => bytes.min(body.len()),
            _ => body.len(),
        };
        let (piece, pause) = answer.pause.unwrap_or((1 << 16, Duration::ZERO));
        loop {
            for part in body[..until].chunks(piece) {
                self.piece(answer, part)?;
                sleep(pause);
            }
            if answer.end != End::Never || self.sent() >= ENDLESS || body.is_empty() {
                break;
            }
        }
        match (answer.end, &answer.length) {
            (End::StallAfter(_), _) => self.stall()?,
            (End::Properly, Length::Chunked) => self.stream.write_all(b"0\r\n\r\n")?,
            _ => {}
        }
        // A client that was told a wrong length would wait for the rest.
        Ok(answer.end == End::Properly && matches!(answer.length, Length::True | Length::Chunked))
    }

    fn piece(&mut self, answer: &Answer, part: &[u8]) -> std::io::Result<()> {
        if matches!(answer.length, Length::Chunked) {
            write!(self.stream, "{:x}\r\n", part.len())?;
            self.stream.write_all(part)?;
            self.stream.write_all(b"\r\n")?;
        } else {
            self.stream.write_all(part)?;
        }
        if let Some(entry) = self.shared.log().get_mut(self.number) {
            entry.sent += part.len();
        }
        Ok(())
    }

    fn sent(&self) -> usize {
        self.shared.log().get(self.number).map_or(ENDLESS, |entry| entry.sent)
    }

    /// Until the client closes the connection.
    fn stall(&self) -> std::io::Result<()> {
        if let Some(entry) = self.shared.log().get_mut(self.number) {
            entry.stalled = true;
        }
        self.stream.set_read_timeout(Some(TICK))?;
        while !self.shared.stopped.load(Ordering::SeqCst) {
            match self.stream.peek(&mut [0]) {
                Ok(0) => break,
                Ok(_) => sleep(TICK),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
