//! How the machine is doing, as numbers.

/// A factor that is learned as a logarithm. Asked for with every estimate, so both are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    pub(super) logarithm: f64,
    pub(super) value: f64,
}

impl Factor {
    pub(super) const ONE: Self = Self { logarithm: 0.0, value: 1.0 };

    pub(super) fn step(&mut self, step: f64, within: std::ops::RangeInclusive<f64>) {
        self.logarithm = (self.logarithm + step).clamp(*within.start(), *within.end());
        self.value = self.logarithm.exp();
    }
}
