//! Exponential backoff with jitter.

use std::time::Duration;

/// First pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(400);
/// Maximum number of tries. Six take about ten seconds: a registry that restarts is back by then.
const MAX_TRIES: u32 = 6;
/// Maximum pause that a server may request (`Retry-After`).
const MAX_ASKED: Duration = Duration::from_secs(120);

/// Tries of one operation.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Returns the pause before the next try: as the server requests, or growing with jitter; `None`
    /// to give up.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= MAX_TRIES {
            return None;
        }
        match asked {
            // All clients of a busy server got the same request: retry at different moments.
            Some(asked) => (asked <= MAX_ASKED).then(|| asked + FIRST.mul_f64(random())),
            None => Some(FIRST.saturating_mul(1 << (self.tries - 1)).mul_f64(0.5 + random() / 2.0)),
        }
    }

    /// Resets the count after progress: the next failure is a new one.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Returns a random number from 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the jitter is 0.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK).ok();
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = std::iter::from_fn(|| backoff.next(None)).collect();
        assert_eq!(pauses.len(), 5);
        for (at, pause) in pauses.iter().enumerate() {
            let longest = FIRST * (1 << at);
            assert!(*pause >= longest / 2 && *pause <= longest, "{at}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.next(Some(Duration::from_secs(3))).unwrap() >= Duration::from_secs(3));
        assert!(backoff.next(Some(Duration::from_secs(121))).is_none());
    }
}
