//! A barrier for processes on many nodes, made of files in a shared directory.
//!
//! The process of rank 0 is the leader. It writes a random word, the round, to `round`. Each rank N
//! writes `arrival/slurm-procid-N`: the round that it has read, and a random word of its own, its token.
//! When all arrivals have the leader's round, the leader writes `verdict`: `go`, and all tokens. A rank
//! that finds its token there writes `departure/slurm-procid-N`, and passes. When all have passed, the
//! leader removes the directory.
//!
//! Files of an earlier attempt, which may have been killed at any moment, neither let a process pass nor
//! make one wait: the leader ignores arrivals of other rounds, the others ignore a verdict without their
//! token. A process whose file is missing or outdated writes it again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{SUBSYSTEM, Task};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::fs::read::read_text_at_most;
use crate::sys::random;

/// Interval between two looks at the files. Manual: 0.1 seconds.
const INTERVAL: Duration = Duration::from_millis(100);

/// Time after which a warning names the ranks that are missing.
const WARN_AFTER: Duration = Duration::from_secs(10);

/// Time for which the leader leaves a negative verdict: ten intervals of the others.
const GRACE: Duration = Duration::from_secs(1);

/// Maximum size of a file in bytes: a verdict with the tokens of the maximum number of tasks.
const MAX_FILE: u64 = 1 << 28;

/// Maximum number of attempts to write a file while the leader of another round removes the directory.
const MAX_TRIES: u32 = 100;

/// The barrier, as seen by one task.
#[derive(Debug)]
pub struct Barrier {
    directory: PathBuf,
    step: String,
    rank: u32,
    tasks: u32,
    token: String,
}

/// Stages of the barrier that a rank may be missing in.
const STAGES: [&str; 2] = ["arrived", "passed"];

impl Barrier {
    /// A barrier for `task` in `directory`, which need not exist.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn new(directory: PathBuf, task: &Task) -> Result<Self> {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        let token = format!("{:016x}", u64::from_ne_bytes(bytes));
        let step = task.directory();
        Ok(Self { directory, step, rank: task.rank, tasks: task.tasks, token })
    }

    /// Waits until all tasks have arrived.
    ///
    /// # Errors
    /// If the directory cannot be used, or `timeout` is over before all have arrived.
    pub fn pass(&self, timeout: Option<Duration>) -> Result<()> {
        let deadline = Deadline { start: Instant::now(), timeout, has_warned: Cell::new(false) };
        let passed = match self.rank {
            0 => self.lead(&deadline),
            _ => self.follow(&deadline),
        };
        passed.context(|| format!("cannot start together with the other tasks of {}", self.step))
    }

    fn lead(&self, deadline: &Deadline) -> Result<()> {
        let mut tokens = BTreeMap::from([(0, self.token.clone())]);
        let missing = |found: &BTreeMap<u32, String>| -> Vec<u32> {
            (0..self.tasks).filter(|rank| !found.contains_key(rank)).collect()
        };
        loop {
            self.keep("round", &self.token)?;
            self.keep(&arrival(0), &arrival_text(&self.token, &self.token))?;
            for rank in missing(&tokens) {
                let text = self.read(&arrival(rank))?;
                if let Some((round, token)) = text.as_deref().and_then(|text| text.split_once(' '))
                    && round == self.token
                {
                    tokens.insert(rank, token.to_owned());
                }
            }
            let absent = missing(&tokens);
            if absent.is_empty() {
                break;
            }
            if deadline.is_over() {
                self.write("verdict", &verdict(&ranges(&absent), &tokens))?;
                sleep(GRACE);
                self.remove();
                return Err(deadline.error(STAGES[0], &ranges(&absent)));
            }
            if deadline.is_warning_due() {
                self.warn(STAGES[0], &absent);
            }
            sleep(INTERVAL);
        }
        self.write("verdict", &verdict("go", &tokens))?;
        self.write(&departure(0), &self.token)?;
        while !tokens.is_empty() {
            let gone =
                |rank: u32, token: &str| Ok(self.read(&departure(rank))?.as_deref() == Some(token));
            let mut left = BTreeMap::new();
            for (rank, token) in tokens {
                if !gone(rank, &token)? {
                    left.insert(rank, token);
                }
            }
            tokens = left;
            if deadline.is_over() && !tokens.is_empty() {
                let left: Vec<_> = tokens.into_keys().collect();
                self.remove();
                return Err(deadline.error(STAGES[1], &ranges(&left)));
            }
            if deadline.is_warning_due() && !tokens.is_empty() {
                self.warn(STAGES[1], &tokens.keys().copied().collect::<Vec<_>>());
            }
            if !tokens.is_empty() {
                sleep(INTERVAL);
            }
        }
        self.remove();
        Ok(())
    }

    fn follow(&self, deadline: &Deadline) -> Result<()> {
        loop {
            let round = self.read("round")?.unwrap_or_else(|| "-".into());
            self.keep(&arrival(self.rank), &arrival_text(&round, &self.token))?;
            let verdict = self.read("verdict")?.unwrap_or_default();
            match verdict_for(&verdict, self.rank, &self.token) {
                Some("go") => return self.write(&departure(self.rank), &self.token),
                Some(absent) => return Err(deadline.error(STAGES[0], absent)),
                None => {}
            }
            if deadline.is_over() {
                return Err(deadline.error(STAGES[0], &ranges(&self.absent(&round)?)));
            }
            if deadline.is_warning_due() && self.is_first(&round)? {
                self.warn(STAGES[0], &self.absent(&round)?);
            }
            sleep(INTERVAL);
        }
    }

    /// Ranks without an arrival in this round, as a rank that does not lead sees them.
    fn absent(&self, round: &str) -> Result<Vec<u32>> {
        let mut absent = Vec::new();
        for rank in 0..self.tasks {
            if !self.has_arrived(rank, round)? {
                absent.push(rank);
            }
        }
        // If all have arrived, the round itself is an old one: the leader is missing.
        Ok(if absent.is_empty() { vec![0] } else { absent })
    }

    fn has_arrived(&self, rank: u32, round: &str) -> Result<bool> {
        let arrival = self.read(&arrival(rank))?.unwrap_or_default();
        Ok(arrival.split_once(' ').is_some_and(|(seen, _)| seen == round))
    }

    /// True if no lower rank has arrived: one warning is enough.
    fn is_first(&self, round: &str) -> Result<bool> {
        for rank in 0..self.rank {
            if self.has_arrived(rank, round)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn warn(&self, stage: &str, ranks: &[u32]) {
        let (step, seconds, ranks) = (&self.step, WARN_AFTER.as_secs(), ranges(ranks));
        log::warn(
            SUBSYSTEM,
            &format!("{step}: after {seconds} s these ranks have not {stage}: {ranks}"),
        );
    }

    /// Reads the file `name`; `None` if it does not exist.
    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.directory.join(name);
        let context = || format!("cannot read {}", path.display());
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.context(context)?,
        };
        match read_text_at_most(file, MAX_FILE) {
            // Removed on another node, on NFS.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
            read => read.context(context).map(Some),
        }
    }

    /// Writes the file `name` unless it contains `text` already.
    fn keep(&self, name: &str, text: &str) -> Result<()> {
        if self.read(name)?.as_deref() == Some(text) { Ok(()) } else { self.write(name, text) }
    }

    /// Replaces the file `name` by rename(2): others read all of `text`, or the old content.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let mut tries = MAX_TRIES;
        loop {
            match replace(&path, &self.token, text) {
                // The leader of an earlier round is removing the directories.
                Err(error) if error.kind() == ErrorKind::NotFound && tries > 0 => tries -= 1,
                result => return result.context(|| format!("cannot write {}", path.display())),
            }
        }
    }

    /// Removes the directory. Tasks of the next round may write there meanwhile: then their leader
    /// removes it.
    fn remove(&self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

fn replace(path: &Path, token: &str, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = path.with_extension(token);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&new, path)
}

fn arrival(rank: u32) -> String {
    format!("arrival/slurm-procid-{rank}")
}

fn departure(rank: u32) -> String {
    format!("departure/slurm-procid-{rank}")
}

fn arrival_text(round: &str, token: &str) -> String {
    format!("{round} {token}")
}

/// The text of a verdict: `word`, and the tokens of those that it is for.
fn verdict(word: &str, tokens: &BTreeMap<u32, String>) -> String {
    tokens
        .iter()
        .fold(format!("{word}\n"), |text, (rank, token)| text + &format!("{rank} {token}\n"))
}

/// The word of a verdict for the process of `rank` with `token`; `None` if it is for others.
fn verdict_for<'a>(text: &'a str, rank: u32, token: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    let word = lines.next()?;
    let mine = format!("{rank} {token}");
    lines.any(|line| line == mine).then_some(word)
}

/// Time limit of a process, and whether it has warned.
struct Deadline {
    start: Instant,
    timeout: Option<Duration>,
    has_warned: Cell<bool>,
}

impl Deadline {
    fn is_over(&self) -> bool {
        self.timeout.is_some_and(|timeout| self.start.elapsed() >= timeout)
    }

    /// True if a warning is due; once only.
    fn is_warning_due(&self) -> bool {
        self.start.elapsed() >= WARN_AFTER && !self.has_warned.replace(true)
    }

    fn error(&self, stage: &str, ranks: &str) -> Error {
        let seconds = self.timeout.unwrap_or_default().as_secs();
        Error::new(format!("after {seconds} s these ranks have not {stage}: {ranks}")).with_hint(
            "see the output of these ranks; SYNC_TIMEOUT of the hook sets the time limit",
        )
    }
}

/// Maximum number of ranges in a message.
const MAX_RANGES: usize = 20;

/// Formats ranks in ascending order, such as `0, 3-5, 9`.
fn ranges(ranks: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(rank) => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let shown = runs.iter().take(MAX_RANGES).map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if runs.len() > MAX_RANGES {
        text.push_str(" and more");
    }
    text
}

#[cfg(test)]
mod tests;
