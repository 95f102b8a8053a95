//! Lengths that are near enough to share a curve.

use super::Curve;

/// What is known of one class of lengths.
#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    /// The length that its curve is for.
    pub(super) length: usize,
    pub(super) curve: Curve,
    /// How many rows a run should have, and what a row costs then, in seconds.
    pub(super) best: (usize, f64),
    /// Sizes at which a row costs less than at all smaller ones, rising; the last one is the best.
    pub(super) sizes: Vec<usize>,
    /// Runs since the best was looked for.
    pub(super) since: u32,
    /// Runs of this class.
    pub(super) runs: u64,
}

impl Class {
    pub(super) fn of(length: usize) -> Self {
        Self { length: length.max(1), ..Self::default() }
    }
}

/// Classes of lengths: four to the octave.
pub(super) fn class(length: usize) -> u32 {
    let length = u32::try_from(length.max(1)).unwrap_or(u32::MAX);
    let octave = length.ilog2();
    // The two bits after the leading one.
    let within =
        if octave >= 2 { (length >> (octave - 2)) & 3 } else { (length << (2 - octave)) & 3 };
    octave * 4 + within
}
