//! Random numbers that are the same on every machine and in every release.
//!
//! A crate would be free to change its sequence with its version, and then a seed would no longer
//! repeat what it did. Splitmix64 is five lines. Used by arrivals and by the noise of runs.

/// A sequence of random numbers from a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for each `purpose`, so that one that draws more shifts no other.
    pub fn purpose(seed: u64, purpose: u64) -> Self {
        let mut dice = Self(seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(dice.bits())
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly spread, above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        const STEPS: f64 = 4_294_967_296.0;
        let [a, b, c, d, e, f, g, h] = self.bits().to_be_bytes();
        let high = u32::from_be_bytes([a, b, c, d]);
        let low = u32::from_be_bytes([e, f, g, h]);
        (f64::from(high) + (f64::from(low) + 1.0) / STEPS) / STEPS
    }

    /// Exponential with mean 1: the gap between events that know nothing of each other.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Normal with mean 0 and deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Lognormal with mean 1; `sigma` is the deviation of its logarithm.
    pub fn lognormal(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal() - sigma * sigma / 2.0).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    fn mean(count: u32, mut draw: impl FnMut() -> f64) -> f64 {
        (0..count).map(|_| draw()).sum::<f64>() / f64::from(count)
    }

    #[test]
    fn means_are_as_told() {
        let mut dice = Dice::new(1);
        assert!((mean(100_000, || dice.unit()) - 0.5).abs() < 0.005);
        assert!((mean(100_000, || dice.exponential()) - 1.0).abs() < 0.01);
        assert!(mean(100_000, || dice.normal()).abs() < 0.01);
        assert!((mean(100_000, || dice.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(100_000, || dice.lognormal(0.3)) - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_seed_repeats_and_purposes_differ() {
        let draw = |mut dice: Dice| (0..10).map(|_| dice.unit().to_bits()).collect::<Vec<_>>();
        assert_eq!(draw(Dice::purpose(7, 1)), draw(Dice::purpose(7, 1)));
        assert_ne!(draw(Dice::purpose(7, 1)), draw(Dice::purpose(7, 2)));
        assert_ne!(draw(Dice::purpose(7, 1)), draw(Dice::purpose(8, 1)));
    }
}
