//! Time of a run over rows and length at once: a part that each run takes, a part for each row, one
//! for each step of the length, and one for each element.
//!
//! Where lengths are mixed, there are so many kinds of runs that each is seen a few times only; but all
//! of them tell of these four numbers. Least squares of relative errors, none of the numbers below
//! zero, later runs counting more.

/// The four numbers, and what they are found from.
#[derive(Debug, Clone, Default)]
pub(super) struct Plane {
    /// Seconds of each part.
    parts: [f64; 4],
    /// Sums of products of what parts a run has, over its time; and of the same with 1.
    products: [[f64; 4]; 4],
    shares: [f64; 4],
    runs: u32,
}

/// What a sum keeps when a run is added.
const KEEPS: f64 = 1.0 - 1.0 / 512.0;
/// Most that one run can differ from what is known, as a factor.
const STEP: f64 = 1.5;
/// Runs before the numbers mean anything.
const ENOUGH: u32 = 8;
/// Times that each number is moved to where it is best while the others stay, after each run: from run
/// to run they move little.
const SWEEPS: usize = 8;

impl Plane {
    /// Takes `seconds` as the time of such a run, as measured by somebody who has ruled out accidents.
    pub(super) fn set(&mut self, rows: usize, length: usize, seconds: f64) {
        self.add(rows, length, seconds, 1.0);
    }

    /// Learns from a run.
    pub(super) fn observe(&mut self, rows: usize, length: usize, seconds: f64) {
        // Errors are relative: without a bound, one run that ended at once would count for all others.
        let within = |known: f64| seconds.clamp(known / STEP, known * STEP);
        self.add(rows, length, self.at(rows, length).map_or(seconds, within), KEEPS);
    }

    fn add(&mut self, rows: usize, length: usize, seconds: f64, keeps: f64) {
        if seconds <= 0.0 {
            return;
        }
        let has = Self::has(rows, length).map(|part| part / seconds);
        for (row, part) in self.products.iter_mut().zip(has) {
            for (sum, other) in row.iter_mut().zip(has) {
                *sum = *sum * keeps + part * other;
            }
        }
        for (sum, part) in self.shares.iter_mut().zip(has) {
            *sum = *sum * keeps + part;
        }
        self.runs = self.runs.saturating_add(1);
        self.fit();
    }

    fn fit(&mut self) {
        for _ in 0..SWEEPS {
            // As long as runs do not tell parts apart, elements are taken for what costs.
            for index in (0..4).rev() {
                let row = &self.products[index];
                let others: f64 = row.iter().zip(&self.parts).map(|(sum, part)| sum * part).sum();
                let others = others - row[index] * self.parts[index];
                self.parts[index] = ((self.shares[index] - others) / row[index]).max(0.0);
            }
        }
    }

    /// Seconds of a run; `None` while too little is known.
    pub(super) fn at(&self, rows: usize, length: usize) -> Option<f64> {
        let parts = Self::has(rows, length).into_iter().zip(self.parts);
        let seconds: f64 = parts.map(|(has, part)| has * part).sum();
        (self.runs >= ENOUGH && seconds > 0.0).then_some(seconds)
    }

    fn has(rows: usize, length: usize) -> [f64; 4] {
        let (rows, length) = (super::count(rows), super::count(length.max(1)));
        [1.0, rows, length, rows * length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [(usize, usize); 8] =
        [(1, 64), (2, 16), (4, 8), (1, 128), (8, 32), (3, 100), (16, 8), (1, 8)];

    fn learned(time: fn(f64, f64) -> f64, rounds: usize) -> Plane {
        let mut plane = Plane::default();
        for (rows, length) in KINDS.into_iter().cycle().take(rounds * KINDS.len()) {
            let count = super::super::count;
            plane.observe(rows, length, time(count(rows), count(length)));
        }
        plane
    }

    #[test]
    fn few_kinds_of_runs_tell_of_all() {
        let transformer = |rows: f64, length: f64| 4.5e-3 + 0.2e-3 * rows * length;
        let recurrent = |rows: f64, length: f64| length * (50e-6 + 10e-6 * rows);
        for time in [transformer, recurrent] {
            let plane = learned(time, 10);
            for (rows, length) in [(2, 64), (8, 8), (5, 90), (12, 128)] {
                let count = super::super::count;
                let ratio = plane.at(rows, length).unwrap() / time(count(rows), count(length));
                assert!((0.9..1.1).contains(&ratio), "{rows} of {length}: {ratio}");
            }
        }
    }

    #[test]
    fn what_costs_less_with_more_rows_is_no_reason_for_times_below_zero() {
        let plane = learned(|rows, _| 1e-3 / rows, 50);
        for (rows, length) in [(1, 1), (64, 1), (1, 4096), (64, 4096)] {
            assert!(plane.at(rows, length).unwrap() > 0.0);
        }
    }

    #[test]
    fn a_run_that_ends_at_once_changes_little() {
        let time = |rows: f64, length: f64| 4.5e-3 + 0.2e-3 * rows * length;
        let mut plane = learned(time, 10);
        let before = plane.at(4, 64).unwrap();
        plane.observe(4, 64, 1e-5);
        let after = plane.at(4, 64).unwrap();
        assert!(after < before && after > 0.9 * before, "{before} became {after}");
    }

    #[test]
    fn runs_of_one_row_and_length_say_that_elements_cost() {
        let mut plane = Plane::default();
        for _ in 0..ENOUGH {
            plane.observe(1, 64, 0.016);
        }
        for (rows, length, seconds) in [(4, 64, 0.064), (1, 128, 0.032), (2, 32, 0.016)] {
            let ratio = plane.at(rows, length).unwrap() / seconds;
            assert!((0.99..1.01).contains(&ratio), "{rows} of {length}: {ratio}");
        }
    }

    #[test]
    fn seven_runs_tell_nothing_yet_and_eight_do() {
        let mut plane = Plane::default();
        for _ in 1..ENOUGH {
            plane.observe(1, 8, 1e-3);
            assert_eq!(plane.at(1, 8), None);
        }
        plane.observe(1, 8, 0.0);
        assert_eq!(plane.at(1, 8), None, "a run without time is none");
        plane.observe(1, 8, 1e-3);
        assert!((plane.at(1, 8).unwrap() - 1e-3).abs() < 1e-5);
    }
}
