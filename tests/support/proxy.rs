//! A proxy as sites have it between their nodes and the world: it makes tunnels (`CONNECT`), all of
//! which lead to one address.

use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;

/// Where somebody wanted to go, with the value of `Proxy-Authorization`.
pub type Asked = (String, Option<String>);

/// The proxy; it takes no more connections when dropped.
pub struct Proxy {
    port: u16,
    log: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy to `upstream`; without one it refuses everybody.
    pub fn new(upstream: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, stopped) =
            (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        spawn({
            let (log, stopped) = (Arc::clone(&log), Arc::clone(&stopped));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let (log, upstream) = (Arc::clone(&log), upstream.clone());
                    spawn(move || tunnel(&stream, upstream.as_deref(), &log).ok());
                }
            }
        });
        Self { port, log, stopped }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address()).ok();
    }
}

fn tunnel(
    mut client: &TcpStream,
    upstream: Option<&str>,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut authorization = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("proxy-authorization") {
            authorization = Some(value.trim().to_owned());
        }
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    log.lock().unwrap_or_else(PoisonError::into_inner).push((target.to_owned(), authorization));
    let (Some(upstream), "CONNECT") = (upstream, method) else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    };
    let server = TcpStream::connect(upstream)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = spawn(move || {
        copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    copy(&mut reader, &mut &server)?;
    server.shutdown(Shutdown::Write)?;
    back.join().ok();
    Ok(())
}
