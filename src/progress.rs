//! What a long command tells while it works: the manual's plain lines on stdout, and on a terminal
//! below them one live line with bytes, rate and time left.
//!
//! No colour is used, so there is none to turn off; a `dumb` terminal gets the plain lines only.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log;

/// How often the live line changes.
const TICK: Duration = Duration::from_millis(200);

/// Tells the user what is being done.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    live: bool,
    quiet: bool,
}

/// Counts the bytes that were worked on, from any thread.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
}

impl Meter {
    /// Tells of `bytes` more.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Progress {
    /// Live if stdout is a terminal that can rewrite a line.
    #[must_use]
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self { live: !dumb && std::io::stdout().is_terminal(), quiet: false }
    }

    /// Says nothing at all.
    #[must_use]
    pub fn quiet() -> Self {
        Self { live: false, quiet: true }
    }

    /// Prints a line that stays.
    pub fn say(self, line: &str) {
        if !self.quiet {
            log::print(line);
        }
    }

    /// Does `work`, which tells the meter of its `total` bytes as they are done.
    pub fn during<T>(self, total: u64, work: impl FnOnce(&Meter) -> T) -> T {
        let meter = Meter::default();
        if !self.live {
            return work(&meter);
        }
        let ended = (Mutex::new(false), Condvar::new());
        std::thread::scope(|scope| {
            scope.spawn(|| show(&meter, total, &ended));
            let result = work(&meter);
            *ended.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            ended.1.notify_all();
            result
        })
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Rewrites the live line until the work has ended, then removes it.
fn show(meter: &Meter, total: u64, ended: &(Mutex<bool>, Condvar)) {
    let start = Instant::now();
    let mut guard = ended.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waited = ended.1.wait_timeout_while(guard, TICK, |ended| !*ended);
        guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        let line = match *guard {
            true => String::new(),
            false => line(meter.done.load(Ordering::Relaxed), total, start.elapsed()),
        };
        let width = rustix::termios::tcgetwinsize(std::io::stdout())
            .map_or(80, |size| usize::from(size.ws_col));
        // One column is left free: many terminals wrap after the last.
        let line: String = line.chars().take(width.saturating_sub(1)).collect();
        let mut stdout = std::io::stdout();
        let written = write!(stdout, "\r{line}\x1b[K").and_then(|()| stdout.flush());
        if *guard || written.is_err() {
            return;
        }
    }
}

/// ` 45 %  320 MB of 705 MB  350 MB/s  2 s left`: what matters most comes first, since a narrow
/// terminal cuts the rest.
fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let mega = |bytes: u64| bytes / 1_000_000;
    let done = done.min(total);
    let percent = (u128::from(done) * 100).checked_div(total.into()).unwrap_or(0);
    let milliseconds = elapsed.as_millis().max(1);
    let rate = u64::try_from(u128::from(done) * 1000 / milliseconds).unwrap_or(u64::MAX);
    let mut line =
        format!("{percent:3} %  {} MB of {} MB  {} MB/s", mega(done), mega(total), mega(rate));
    if let Some(left) = (total - done).checked_div(rate) {
        let (minutes, seconds) = (left / 60, left % 60);
        line += &match minutes {
            0 => format!("  {seconds} s left"),
            _ => format!("  {minutes} min {seconds} s left"),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_rate_and_time_left() {
        let cases = [
            (0, 0, 0, "  0 %  0 MB of 0 MB  0 MB/s"),
            (0, 500_000_000, 1, "  0 %  0 MB of 500 MB  0 MB/s"),
            (250_000_000, 500_000_000, 2, " 50 %  250 MB of 500 MB  125 MB/s  2 s left"),
            (10_000_000, 1_000_000_000, 1, "  1 %  10 MB of 1000 MB  10 MB/s  1 min 39 s left"),
            (9, 5, 1, "100 %  0 MB of 0 MB  0 MB/s  0 s left"),
        ];
        for (done, total, seconds, expected) in cases {
            assert_eq!(line(done, total, Duration::from_secs(seconds)), expected);
        }
    }
}
