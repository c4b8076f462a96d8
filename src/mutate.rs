//! Mutated input for tests of parsers.

/// Pseudo-random numbers, the same in each run, so that a failure is reproducible.
#[derive(Debug)]
pub struct Random(u32);

impl Random {
    /// A generator with a fixed seed.
    pub fn new() -> Self {
        Self(1)
    }

    /// Returns the next number, less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % end
    }
}

/// Returns `seed` with one to four mutations: truncated, a tail repeated, a byte of `dictionary`
/// inserted, or one put in place of another.
pub fn mutate(seed: &[u8], dictionary: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let byte = dictionary[random.below(dictionary.len())];
        match random.below(4) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = byte,
            2 => bytes.insert(at, byte),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}
