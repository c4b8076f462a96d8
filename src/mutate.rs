//! Texts and bytes that are almost right, for tests of what reads them.

/// Numbers that are the same each time: what fails once fails again.
#[derive(Debug)]
pub struct Random(u32);

impl Random {
    /// The first are always the same.
    pub fn new() -> Self {
        Self(1)
    }

    /// The next one, of those below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % end
    }
}

/// `seed` with one to four changes: cut off, repeated from somewhere on, and bytes of `dictionary` in place of
/// others or between them.
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
