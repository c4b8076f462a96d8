//! Many processes on many nodes that wait for each other, by files in a directory that all see.
//!
//! The process of rank 0 leads. It writes a random word, the round, into `round`. Each rank N writes
//! `arrival/slurm-procid-N`: the round that it sees, and a random word of its own, its token. When
//! all files tell of the leader's round, the leader writes the verdict: `go`, and all tokens. Who
//! finds its token there writes `departure/slurm-procid-N` and goes on. When all have, the leader
//! removes the directory.
//!
//! So what an earlier attempt left behind, killed at any moment, can neither let somebody pass nor
//! hold anybody up: the leader believes no arrival of another round, and the others no verdict
//! without their token. Whoever sees its own file gone or outdated writes it again.

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

/// How often each process looks. Manual: every 0.1 seconds.
const INTERVAL: Duration = Duration::from_millis(100);

/// After this time the user learns who is waited for: without a time-out nobody else would tell.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the leader leaves a verdict that ends the others: they look ten times meanwhile.
const GRACE: Duration = Duration::from_secs(1);

/// A token and a line end for each of the most tasks that there can be.
const MAX_FILE: u64 = 1 << 28;

/// How often a file is written anew when the leader of the round before takes the directory away.
const MAX_TRIES: u32 = 100;

/// Where the tasks meet, and who of them this process is.
#[derive(Debug)]
pub struct Barrier {
    directory: PathBuf,
    step: String,
    rank: u32,
    tasks: u32,
    token: String,
}

/// Why the others did not come.
const STAGES: [&str; 2] = ["arrived", "gone on"];

impl Barrier {
    /// A barrier for `task` in `directory`, which need not exist.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new(directory: PathBuf, task: &Task) -> Result<Self> {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        let token = format!("{:016x}", u64::from_ne_bytes(bytes));
        let step = task.directory();
        Ok(Self { directory, step, rank: task.rank, tasks: task.tasks, token })
    }

    /// Comes back when all tasks have come here.
    ///
    /// # Errors
    /// When the directory cannot be used, or not all come before `timeout` is over.
    pub fn pass(&self, timeout: Option<Duration>) -> Result<()> {
        let patience = Patience { start: Instant::now(), timeout, told: Cell::new(false) };
        let passed = match self.rank {
            0 => self.lead(&patience),
            _ => self.follow(&patience),
        };
        passed.context(|| format!("cannot start together with the other tasks of {}", self.step))
    }

    fn lead(&self, patience: &Patience) -> Result<()> {
        let mut tokens = BTreeMap::from([(0, self.token.clone())]);
        let missing = |found: &BTreeMap<u32, String>| -> Vec<u32> {
            (0..self.tasks).filter(|rank| !found.contains_key(rank)).collect()
        };
        loop {
            self.keep("round", &self.token)?;
            self.keep(&arrival(0), &card(&self.token, &self.token))?;
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
            if patience.is_over() {
                self.write("verdict", &verdict(&ranges(&absent), &tokens))?;
                sleep(GRACE);
                self.remove();
                return Err(patience.error(STAGES[0], &ranges(&absent)));
            }
            if patience.is_long() {
                self.tell(STAGES[0], &absent);
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
            if patience.is_over() && !tokens.is_empty() {
                let left: Vec<_> = tokens.into_keys().collect();
                self.remove();
                return Err(patience.error(STAGES[1], &ranges(&left)));
            }
            if patience.is_long() && !tokens.is_empty() {
                self.tell(STAGES[1], &tokens.keys().copied().collect::<Vec<_>>());
            }
            if !tokens.is_empty() {
                sleep(INTERVAL);
            }
        }
        self.remove();
        Ok(())
    }

    fn follow(&self, patience: &Patience) -> Result<()> {
        loop {
            let round = self.read("round")?.unwrap_or_else(|| "-".into());
            self.keep(&arrival(self.rank), &card(&round, &self.token))?;
            let verdict = self.read("verdict")?.unwrap_or_default();
            match judge(&verdict, self.rank, &self.token) {
                Some("go") => return self.write(&departure(self.rank), &self.token),
                Some(absent) => return Err(patience.error(STAGES[0], absent)),
                None => {}
            }
            if patience.is_over() {
                return Err(patience.error(STAGES[0], &ranges(&self.absent(&round)?)));
            }
            if patience.is_long() && self.is_first(&round)? {
                self.tell(STAGES[0], &self.absent(&round)?);
            }
            sleep(INTERVAL);
        }
    }

    /// The ranks that are not in this round, as far as one can see who does not lead it.
    fn absent(&self, round: &str) -> Result<Vec<u32>> {
        let mut absent = Vec::new();
        for rank in 0..self.tasks {
            if !self.is_here(rank, round)? {
                absent.push(rank);
            }
        }
        // Then the round itself is an old one.
        Ok(if absent.is_empty() { vec![0] } else { absent })
    }

    fn is_here(&self, rank: u32, round: &str) -> Result<bool> {
        let card = self.read(&arrival(rank))?.unwrap_or_default();
        Ok(card.split_once(' ').is_some_and(|(seen, _)| seen == round))
    }

    /// Whether this is the lowest rank that has come: one warning is enough for all.
    fn is_first(&self, round: &str) -> Result<bool> {
        for rank in 0..self.rank {
            if self.is_here(rank, round)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn tell(&self, stage: &str, ranks: &[u32]) {
        let (step, seconds, ranks) = (&self.step, SILENCE.as_secs(), ranges(ranks));
        log::warn(
            SUBSYSTEM,
            &format!("{step} waits: after {seconds} s these ranks have not {stage}: {ranks}"),
        );
    }

    /// What stands in a file, if there is one that is complete.
    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.directory.join(name);
        let cannot = || format!("cannot read {}", path.display());
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.context(cannot)?,
        };
        match read_text_at_most(file, MAX_FILE) {
            // Removed on another node, on NFS.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
            read => read.context(cannot).map(Some),
        }
    }

    /// Writes the file `name` unless it says `text` already.
    fn keep(&self, name: &str, text: &str) -> Result<()> {
        if self.read(name)?.as_deref() == Some(text) { Ok(()) } else { self.write(name, text) }
    }

    /// Writes the file `name`, which others see with all of `text` or as it was before.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let mut tries = MAX_TRIES;
        loop {
            match replace(&path, &self.token, text) {
                // The leader of the round before is taking the directories away.
                Err(error) if error.kind() == ErrorKind::NotFound && tries > 0 => tries -= 1,
                result => return result.context(|| format!("cannot write {}", path.display())),
            }
        }
    }

    /// Takes the directory away. Who comes for the next round may write into it meanwhile: then it
    /// is their leader's.
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

fn card(round: &str, token: &str) -> String {
    format!("{round} {token}")
}

/// `word`, and for whom it is said.
fn verdict(word: &str, tokens: &BTreeMap<u32, String>) -> String {
    tokens
        .iter()
        .fold(format!("{word}\n"), |text, (rank, token)| text + &format!("{rank} {token}\n"))
}

/// What a verdict says to the process of `rank` with `token`, if it is meant.
fn judge<'a>(text: &'a str, rank: u32, token: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    let word = lines.next()?;
    let mine = format!("{rank} {token}");
    lines.any(|line| line == mine).then_some(word)
}

/// How long this process waits.
struct Patience {
    start: Instant,
    timeout: Option<Duration>,
    told: Cell<bool>,
}

impl Patience {
    fn is_over(&self) -> bool {
        self.timeout.is_some_and(|timeout| self.start.elapsed() >= timeout)
    }

    /// Whether it is time to say so; only once.
    fn is_long(&self) -> bool {
        self.start.elapsed() >= SILENCE && !self.told.replace(true)
    }

    fn error(&self, stage: &str, ranks: &str) -> Error {
        let seconds = self.timeout.unwrap_or_default().as_secs();
        Error::new(format!("after {seconds} s these ranks have not {stage}: {ranks}")).with_hint(
            "look for what became of them; SYNC_TIMEOUT of the hook says how long to wait",
        )
    }
}

/// More would make a message that nobody reads.
const MAX_RANGES: usize = 20;

/// `0, 3-5, 9` for ranks in ascending order.
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
