//! Random numbers that a seed makes repeatable: SplitMix64 (Steele, Lea and Flood 2014).

/// A source of them.
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// `low` or more, less than `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// One of them, each as often as its weight says. `None`: all weights are 0.
    pub fn weighted<T: Copy>(&mut self, from: &[(T, usize)]) -> Option<T> {
        let total: usize = from.iter().map(|(_, weight)| weight).sum();
        let mut left = if total == 0 {
            return None;
        } else {
            self.below(total)
        };
        for &(what, weight) in from {
            if left < weight {
                return Some(what);
            }
            left -= weight;
        }
        None
    }
}
