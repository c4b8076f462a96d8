//! How long to wait before asking again: longer each time, and never all at the same moment.

use std::time::Duration;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(400);
/// Six tries take about ten seconds: a registry that restarts is back by then.
const MAX_TRIES: u32 = 6;
/// Longest pause that a server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(120);

/// Counts the tries of one thing.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The pause before the next try: what the server asked for, or a growing one with jitter;
    /// `None` when it is time to give up.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= MAX_TRIES {
            return None;
        }
        match asked {
            // All clients of a busy server were told the same: come a little after.
            Some(asked) => (asked <= MAX_ASKED).then(|| asked + FIRST.mul_f64(random())),
            None => Some(FIRST.saturating_mul(1 << (self.tries - 1)).mul_f64(0.5 + random() / 2.0)),
        }
    }

    /// It got on: what fails next is a new failure.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the pauses are what they are.
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
