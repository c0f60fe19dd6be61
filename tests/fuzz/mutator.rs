//! Mutations by lot, the same for the same seed: what a bad line, a bad disk and a bad person do
//! to bytes.

/// Longer inputs show nothing that shorter ones do not.
const BYTES_MAX: usize = 64 * 1024;

/// What parsers tend to stumble over.
const INTERESTING: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x1f\x8b\x08\x1f",
    b"\n",
    b"\r\n",
    b" ",
    b"+",
    b"-1",
    b"0",
    b"007",
    b"18446744073709551616",
    b"253402300800",
    b"1e9",
    b"\"",
    b"[[",
    b"{}",
    b"null",
    b"/../",
    b"=",
    "\u{0665}".as_bytes(),
    "\u{202e}ſ".as_bytes(),
];

/// Makes inputs.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        // Xorshift stays at zero for ever.
        Self { state: seed | 1 }
    }

    /// Returns one of the seeds after one to eight mutations.
    pub(crate) fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        // Mostly one: what is broken at many places is refused at the first.
        for _ in 0..=self.below(8).saturating_sub(self.below(8)) {
            self.once(&mut bytes, seeds);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn once(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let (from, to) = self.range(bytes.len());
        match self.below(8) {
            0 | 1 if from < bytes.len() => bytes[from] ^= 1 << self.below(8),
            2 if from < bytes.len() => bytes[from] = self.below(256) as u8,
            3 => bytes.truncate(from),
            4 => drop(bytes.drain(from..to)),
            5 => {
                let twice = bytes[from..to].to_vec();
                bytes.splice(to..to, twice);
            }
            6 => {
                let other = &seeds[self.below(seeds.len())];
                let (start, end) = self.range(other.len());
                // The rest of another, or a piece of it.
                let end = if self.below(2) == 0 { other.len() } else { end };
                bytes.splice(from..to, other[start..end].iter().copied());
            }
            _ => {
                let inserted = INTERESTING[self.below(INTERESTING.len())];
                let end = if self.below(2) == 0 { from } else { to };
                bytes.splice(from..end, inserted.iter().copied());
            }
        }
    }

    /// Returns a part of so many bytes; either end may be that of the whole.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let (one, other) = (self.below(len + 1), self.below(len + 1));
        // Often a few bytes: a digit, a name, a field.
        let other = if self.below(2) == 0 { (one + self.below(5)).min(len) } else { other };
        (one.min(other), one.max(other))
    }

    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) as usize % end
    }
}
