//! Progress of long commands: permanent lines on stdout, and below them on a terminal live lines with
//! bytes, rate and time left, one for each item in progress and one for the total.
//!
//! Live lines have no colour. A `dumb` terminal gets the permanent lines only.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::log;
use crate::sync::ignore_poison;

/// Update interval of the live lines.
const TICK: Duration = Duration::from_millis(200);

/// Output of a command about its progress.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    live: bool,
    quiet: bool,
}

/// Returns whether stdout is a terminal that can rewrite lines.
fn is_capable() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !dumb && std::io::stdout().is_terminal()
}

/// Returns whether stdout may have colours: on a terminal, unless `NO_COLOR` is set
/// (<https://no-color.org>).
#[must_use]
pub fn may_colour() -> bool {
    is_capable() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// Counter of processed bytes, for any thread.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
}

impl Meter {
    /// Adds `bytes`.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Resets the counter to 0.
    pub fn reset(&self) {
        self.done.store(0, Ordering::Relaxed);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// One of several items that are processed at the same time.
#[derive(Debug)]
pub struct Row {
    label: String,
    total: u64,
    /// Processed bytes.
    pub meter: Meter,
    active: AtomicBool,
}

impl Row {
    /// Makes a row for `total` bytes, which shows from [`Row::begin`] to [`Row::end`].
    #[must_use]
    pub fn new(label: impl Into<String>, total: u64) -> Self {
        let (meter, active) = Default::default();
        Self { label: label.into(), total, meter, active }
    }

    /// Shows the live line.
    pub fn begin(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Hides the live line.
    pub fn end(&self) {
        self.active.store(false, Ordering::Relaxed);
    }

    fn line(&self) -> Option<String> {
        let done = self.meter.done().min(self.total);
        let (percent, mega) = (percent(done, self.total), mega(self.total));
        let shown = self.active.load(Ordering::Relaxed);
        shown.then(|| format!("{}  {percent:3} %  of {mega} MB", self.label))
    }
}

/// The live lines of a running operation.
#[derive(Debug)]
pub struct Board<'a> {
    progress: Progress,
    rows: &'a [&'a Row],
    total: u64,
    meter: Meter,
    since: Instant,
    screen: Mutex<Screen>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Screen {
    /// Number of live lines on the screen.
    height: usize,
    ended: bool,
}

impl Progress {
    /// Shows live lines if stdout is a terminal that can rewrite lines.
    #[must_use]
    pub fn new() -> Self {
        Self { live: is_capable(), quiet: false }
    }

    /// Prints nothing.
    #[must_use]
    pub fn quiet() -> Self {
        Self { live: false, quiet: true }
    }

    /// Prints a permanent line.
    pub fn say(self, line: &str) {
        if !self.quiet {
            log::print(line);
        }
    }

    /// Runs `work`, which has nothing to count, and shows `text` on a terminal meanwhile.
    pub fn meanwhile<T>(self, text: &str, work: impl FnOnce() -> T) -> T {
        self.overwrite(text);
        let result = work();
        self.overwrite("");
        result
    }

    fn overwrite(self, text: &str) {
        if self.live {
            let mut stdout = std::io::stdout();
            write!(stdout, "\r\x1b[J{text}").and_then(|()| stdout.flush()).ok();
        }
    }

    /// Runs `work`, which adds its `total` bytes to the meter as they are processed.
    pub fn during<T>(self, total: u64, work: impl FnOnce(&Meter) -> T) -> T {
        self.board(&[], total, |board| work(&board.meter))
    }

    /// Runs `work`, which reports on each of the `rows`, and on all `total` bytes by the board's meter.
    pub fn board<T>(self, rows: &[&Row], total: u64, work: impl FnOnce(&Board<'_>) -> T) -> T {
        let (meter, screen, ended) = Default::default();
        let since = Instant::now();
        let board = Board { progress: self, rows, total, meter, since, screen, ended };
        if !self.live {
            return work(&board);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| board.show());
            let result = work(&board);
            board.lock().ended = true;
            board.ended.notify_all();
            result
        })
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Board<'_> {
    /// Returns the meter of the total.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Prints a permanent line above the live ones.
    pub fn say(&self, line: &str) {
        if self.progress.live {
            self.paint(&mut self.lock(), Some(line));
        } else {
            self.progress.say(line);
        }
    }

    /// Prints a permanent line unless a live line says the same.
    pub fn say_unless_live(&self, line: &str) {
        if !self.progress.live {
            self.progress.say(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Screen> {
        ignore_poison(self.screen.lock())
    }

    /// Rewrites the live lines until the work has ended, then removes them.
    fn show(&self) {
        let mut screen = self.lock();
        while !screen.ended {
            self.paint(&mut screen, None);
            let waited = self.ended.wait_timeout_while(screen, TICK, |screen| !screen.ended);
            screen = ignore_poison(waited).0;
        }
        self.paint(&mut screen, None);
    }

    fn paint(&self, screen: &mut Screen, above: Option<&str>) {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let (width, height) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        // Some terminals report 0.
        let width = if width == 0 { 80 } else { usize::from(width) };
        let height = if height == 0 { 24 } else { usize::from(height) };
        let mut lines = Vec::new();
        if !screen.ended {
            // Lines beyond the screen could not be erased.
            let rows = self.rows.iter().filter_map(|row| row.line());
            lines.extend(rows.take(height.saturating_sub(2)));
            lines.push(line(self.meter.done(), self.total, self.since.elapsed()));
        }
        let mut text = String::from("\r");
        if screen.height > 1 {
            text += &format!("\x1b[{}A", screen.height - 1);
        }
        text += "\x1b[J";
        if let Some(line) = above {
            text += &log::printable(line, &[]);
            text.push('\n');
        }
        screen.height = lines.len();
        // One column stays free: many terminals wrap after the last.
        let cut = |line: String| line.chars().take(width.saturating_sub(1)).collect::<String>();
        text += &lines.into_iter().map(cut).collect::<Vec<_>>().join("\n");
        let mut stdout = std::io::stdout();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
    }
}

fn percent(done: u64, total: u64) -> u128 {
    (u128::from(done) * 100).checked_div(total.into()).unwrap_or(0)
}

fn mega(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// Renders ` 45 %  320 MB of 705 MB  350 MB/s  2 s left`, the most important first: a narrow terminal
/// cuts the rest.
fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let done = done.min(total);
    let percent = percent(done, total);
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
