//! Chance that is the same in every run of a seed.

/// Numbers that look like chance (a linear congruential generator).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below a bound that is not 0.
    ///
    /// # Panics
    /// Where no bound is given.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
