//! How often something took how long, fine enough for percentiles.
//!
//! Eight classes to the octave, from a microsecond to two minutes: a percentile is told no more than
//! an eighth too high. Counting is one relaxed add, without a lock; classes only grow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Classes to the octave, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Octaves with classes of their own; the last class takes what lasted longer.
const OCTAVES: usize = 24;
const CLASSES: usize = STEPS * (OCTAVES + 1);

/// Counts by time.
pub struct Times([AtomicU64; CLASSES]);

/// How many took as long as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeClass {
    /// None of them took longer, in microseconds.
    pub at_most_micros: u64,
    /// How many they are.
    pub count: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl std::fmt::Debug for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.classes()).finish()
    }
}

impl Times {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        let micros = took.as_nanos().div_ceil(1000);
        let class = class(u64::try_from(micros).unwrap_or(u64::MAX));
        // Relaxed: a sum that is read by itself.
        self.0[class].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far, shortest first, without those that are zero.
    pub fn classes(&self) -> impl Iterator<Item = TimeClass> + '_ {
        let counts = self.0.iter().enumerate();
        counts.filter_map(|(class, count)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then(|| TimeClass { at_most_micros: longest(class), count })
        })
    }
}

/// The class of a time. Powers of two are the last of theirs: a bound is part of its class.
fn class(micros: u64) -> usize {
    let value = micros.max(1) - 1;
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let within = usize::try_from(value >> octave).unwrap_or(CLASSES);
    let below = usize::try_from(octave).unwrap_or(CLASSES) * STEPS;
    (below + within).min(CLASSES - 1)
}

/// The longest time of a class, in microseconds.
fn longest(class: usize) -> u64 {
    let (octave, within) = ((class / STEPS).saturating_sub(1), class % STEPS);
    let base = if class < STEPS { 0 } else { STEPS };
    ((base + within + 1) as u64) << octave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_class_that_ends_an_eighth_later_at_most() {
        let spread = (0..1 << 12).chain((12..27).flat_map(|bits| {
            (0..64).flat_map(move |step| {
                let from = (1_u64 << bits) + step * (1 << bits) / 64;
                [from - 1, from, from + 1]
            })
        }));
        let mut last = 0;
        for micros in spread {
            let end = longest(class(micros));
            assert!(end >= micros && end <= micros.max(1) + micros / 8, "{micros}: {end}");
            assert!(end >= last || micros < last, "{micros}");
            assert_eq!(class(end), class(micros.max(1)), "a bound is in its class");
            last = end;
        }
    }

    #[test]
    fn classes_are_told_in_order_and_the_last_takes_the_rest() {
        let times = Times::default();
        for micros in [0, 3, 3, 1_000, 200_000_000, u64::MAX] {
            times.add(Duration::from_micros(micros));
        }
        times.add(Duration::from_nanos(3_001));
        let told: Vec<_> = times.classes().map(|each| (each.at_most_micros, each.count)).collect();
        assert_eq!(told, [(1, 1), (3, 2), (4, 1), (1024, 1), (1 << 27, 2)]);
    }
}
