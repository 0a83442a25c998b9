//! Repeatable pseudorandom numbers from a seed: SplitMix64 (Steele, Lea and Flood 2014).

/// The generator.
pub struct Random(u64);

impl Random {
    /// Equal seeds produce equal numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// A number from `low` up to, but not including, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low)
    }

    /// Returns `true` with a probability of `chance` percent.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Picks one element.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Picks one element with a probability proportional to its weight. Returns `None` if all
    /// weights are 0.
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
