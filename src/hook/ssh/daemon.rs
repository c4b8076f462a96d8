//! Start of sshd by `launch`, in the container, as the container's user.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{HOME, KEYS, SUBSYSTEM};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::fs::read::{read_proc, read_text_at_most};
use crate::sys::process::daemon;

/// Time in which sshd must listen. It takes milliseconds, but a node may be busy with the start of a
/// hundred ranks.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two looks whether it does.
const INTERVAL: Duration = Duration::from_millis(2);

/// Number of attempts, and the time between two: the owner of the port may just have ended, or be about
/// to listen.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Files that sshd writes: `PidFile` of sshd_config(5) when it listens, and its log.
const PID_FILE: &str = "sshd.pid";
const LOG: &str = "sshd.log";

/// Maximum number of bytes of the log that are read.
const MAX_LOG: u64 = 1 << 16;

/// Starts sshd with the files of [`prepare`](super::prepare), and returns when it listens, or when an
/// sshd of the same user listens on this node already. The caller is the container's user, whose rights
/// sshd has.
///
/// # Errors
/// If no sshd of the user's listens.
pub fn start() -> Result<()> {
    serve().context(|| "cannot start sshd in the container".into())
}

fn serve() -> Result<()> {
    // sshd executes itself for each login, by this path.
    let program = PathBuf::from(HOME).join("sbin/sshd");
    let log = file(LOG);
    let args = ["-D", "-E", &log.to_string_lossy()];
    let mut result = Ok(());
    for _ in 0..TRIES {
        let mut child = daemon::spawn(&program, &args)?;
        let listens = wait(&mut child)?;
        let log = read_log().unwrap_or_default();
        result = match log.lines().find_map(taken_port) {
            Some(port) => share(port, listens),
            None if listens => return Ok(()),
            None => {
                Err(Error::new(log.lines().next_back().unwrap_or("sshd failed without a message")))
            }
        };
        if result.is_ok() {
            break;
        }
        // sshd has ended already, or must end.
        child.kill().ok();
        child.wait().ok();
        [LOG, PID_FILE].iter().for_each(|name| drop(fs::remove_file(file(name))));
        sleep(PAUSE);
    }
    result
}

/// A file of sshd, in the directory of keys.
fn file(name: &str) -> PathBuf {
    PathBuf::from(HOME).join("etc").join(KEYS).join(name)
}

/// Waits until sshd listens; returns false if it ends before.
fn wait(child: &mut Child) -> Result<bool> {
    let end = Instant::now() + TIMEOUT;
    while Instant::now() < end {
        if file(PID_FILE).exists() {
            return Ok(true);
        }
        if child.try_wait().context(|| "cannot wait for sshd".into())?.is_some() {
            return Ok(false);
        }
        sleep(INTERVAL);
    }
    child.kill().ok();
    Err(Error::new(format!("sshd does not listen after {} s", TIMEOUT.as_secs())))
}

fn read_log() -> std::io::Result<String> {
    let mut options = fs::OpenOptions::new();
    let log =
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(file(LOG))?;
    read_text_at_most(log, MAX_LOG)
}

/// The port of a line such as `Bind to port 15263 on 0.0.0.0 failed: Address in use.`; the last words
/// depend on the C library.
fn taken_port(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("Bind to port ").filter(|rest| rest.contains("in use"))?;
    rest.split(' ').next()?.parse().ok()
}

/// Shares the sshd of another container of the user, as ranks on one node do. A port of another user,
/// or one on which no process listens, is an error.
fn share(port: u16, listens: bool) -> Result<()> {
    let user = rustix::process::getuid().as_raw();
    let mut owners = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = read_proc(format!("/proc/self/net/{table}")).unwrap_or_default();
        owners.extend(listeners(&table, port));
    }
    let who = match owners.iter().find(|owner| **owner != user) {
        Some(other) => format!("user id {other}"),
        // The listener may be this sshd, which has bound a part of its addresses.
        None if listens || owners.is_empty() => "a process that does not listen".to_owned(),
        None => {
            let text = format!(
                "sshd not started: another container of yours has port {port} of this node, and \
                 logins to this node lead there"
            );
            log::warn(SUBSYSTEM, &text);
            return Ok(());
        }
    };
    Err(Error::new(format!("{who} has port {port} of this node"))
        .with_hint("wait until that process has ended, or use another node"))
}

/// The user ids of sockets that listen on `port`, from the text of `/proc/net/tcp` (proc(5)).
fn listeners(table: &str, port: u16) -> impl Iterator<Item = u32> {
    // The local port in hexadecimal, and the state TCP_LISTEN.
    let (port, listens) = (format!(":{port:04X}"), "0A");
    table.lines().filter_map(move |line| {
        let mut fields = line.split(' ').filter(|field| !field.is_empty()).skip(1);
        let is = fields.next()?.ends_with(&port) && fields.nth(1)? == listens;
        if is { fields.nth(3)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_what_sshd_says() {
        for (line, port) in [
            ("Bind to port 15263 on 0.0.0.0 failed: Address in use.", Some(15263)),
            ("Bind to port 22 on :: failed: Address already in use.", Some(22)),
            ("Bind to port 22 on 0.0.0.0 failed: Permission denied.", None),
            ("Server listening on 0.0.0.0 port 15263.", None),
            ("Bind to port x on 0.0.0.0 failed: Address in use.", None),
        ] {
            assert_eq!(taken_port(line), port, "{line}");
        }
    }

    #[test]
    fn those_who_listen_are_told_from_others() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3B9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000 20001        0 7 1
   1: 0100007F:3B9F 0100007F:0016 01 00000000:00000000 00:00000000 00000000 20002        0 8 1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9 1
   3: garbage
   4: 00000000000000000000000000000000:3B9F 0:0 0A 0:0 0:0 0 20003 0 10 1
";
        assert_eq!(listeners(table, 15263).collect::<Vec<_>>(), [20001, 20003]);
        assert_eq!(listeners(table, 22).collect::<Vec<_>>(), [0]);
        assert_eq!(listeners("", 15263).count(), 0);
    }
}
