//! What a run costs: its time as a function of rows and length, learned from first runs and from
//! every run since.
//!
//! [`CostModel`] keeps one [`Curve`] over rows per class of lengths (the padded size, or the size of
//! the inner dimensions). A single slow run moves a curve little, many move it surely; a slowdown of
//! the whole machine is learned apart from the curves, within a few runs, as one factor for all.
//! Pure: no clock, no lock. The batcher asks it how many rows to run and who can still be in time;
//! first runs and the simulator fill it.

use std::collections::BTreeMap;
use std::time::Duration;

mod curve;

pub use curve::Curve;

/// Time of runs by rows and length. Starts empty, and then expects nothing.
#[derive(Debug, Clone, Default)]
pub struct CostModel {
    /// By class of length.
    curves: BTreeMap<u32, Curve>,
    /// How the machine is doing: logarithm of what runs take over what the curves say.
    level: f64,
    /// How much longer than expected one run in fifty takes, as a logarithm.
    surprise: f64,
}

/// One figure of a [`CostModel`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostPoint {
    /// Length that stands for the class.
    pub length: usize,
    /// Rows in the run.
    pub rows: usize,
    /// Expected time of the run.
    pub time: Duration,
    /// Runs that it was learned from.
    pub runs: u64,
}

/// What one run may move the level by: the share, and the largest step.
const LEVEL_GAIN: f64 = 0.1;
const LEVEL_STEP: f64 = 0.7;
/// Share of runs that may take longer than [`CostModel::at_most`] says.
const SURPRISED: f64 = 0.02;
/// Step of the quantile above; larger learns faster and wobbles more.
const SURPRISE_STEP: f64 = 0.1;
/// Longest that a run is taken to last beyond expectation: e to this power.
const SURPRISE_LIMIT: f64 = 1.0;

impl CostModel {
    /// A model that knows the given times, by rows, of runs of `length`.
    pub fn measured(length: usize, times: &[(usize, Duration)]) -> Self {
        let mut model = Self::default();
        for (rows, took) in times {
            model.set(*rows, length, *took);
        }
        model
    }

    /// Takes `took` as the time of such a run, as measured by somebody who has ruled out accidents.
    pub fn set(&mut self, rows: usize, length: usize, took: Duration) {
        self.curves.entry(class(length)).or_default().set(rows, took.as_secs_f64());
    }

    /// Learns from a run.
    pub fn observe(&mut self, rows: usize, length: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let known = self.base(rows, length);
        let error = known.map_or(0.0, |base| (seconds / base).ln() - self.level);
        self.level += LEVEL_GAIN * error.clamp(-LEVEL_STEP, LEVEL_STEP);
        let step = if error > self.surprise { 1.0 - SURPRISED } else { -SURPRISED };
        self.surprise = (self.surprise + SURPRISE_STEP * step).clamp(0.0, SURPRISE_LIMIT);
        let curve = self.curves.entry(class(length)).or_default();
        curve.observe(rows, seconds / self.level.exp(), known);
    }

    /// Expected time of a run; zero if nothing is known.
    pub fn expect(&self, rows: usize, length: usize) -> Duration {
        Duration::from_secs_f64(self.seconds(rows, length))
    }

    /// Time that a run of that kind will hardly exceed; zero if nothing is known.
    pub fn at_most(&self, rows: usize, length: usize) -> Duration {
        Duration::from_secs_f64(self.seconds(rows, length) * self.surprise.exp())
    }

    /// Time per row of `length` where rows cost the least, with `around` spent beside each run;
    /// zero if nothing is known.
    pub fn per_row(&self, length: usize, most_rows: usize, around: Duration) -> Duration {
        let best = self.best_rows(length, most_rows, around);
        let seconds = self.seconds(best, length);
        if seconds <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((seconds + around.as_secs_f64()) / count(best))
    }

    /// How many rows of `length` a run should have, at most `most_rows`: those that get the most rows
    /// done in time, and among sizes that are as good but for noise the smallest, which answers first.
    /// `around` is spent beside each run. `most_rows` if nothing is known.
    pub fn best_rows(&self, length: usize, most_rows: usize, around: Duration) -> usize {
        let around = around.as_secs_f64();
        let per_row = |rows| (self.seconds(rows, length) + around) / count(rows);
        if self.curves.is_empty() || most_rows <= 1 {
            return most_rows.max(1);
        }
        let (mut best, mut cost) = (1, per_row(1));
        for rows in sizes(most_rows).skip(1) {
            let other = per_row(rows);
            if other < cost * WORTH {
                (best, cost) = (rows, other);
            }
        }
        best
    }

    /// Whether nothing has been learned.
    pub fn is_empty(&self) -> bool {
        self.curves.is_empty()
    }

    /// Everything that was learned, by length and rows.
    pub fn points(&self) -> Vec<CostPoint> {
        let scale = self.level.exp();
        let of = |(class, curve): (&u32, &Curve)| {
            let length = representative(*class);
            let point = move |(rows, seconds, runs)| {
                let time = Duration::from_secs_f64(seconds * scale);
                CostPoint { length, rows, time, runs }
            };
            curve.points().map(point).collect::<Vec<_>>()
        };
        self.curves.iter().flat_map(of).collect()
    }

    fn seconds(&self, rows: usize, length: usize) -> f64 {
        self.base(rows, length).unwrap_or(0.0) * self.level.exp()
    }

    /// Time of a run while the machine is as it was. A size that its own curve does not reach is
    /// judged by the nearest curve, at the rows that make the same number of elements there.
    fn base(&self, rows: usize, length: usize) -> Option<f64> {
        let wanted = class(length);
        let own = self.curves.get(&wanted);
        if let Some(time) = own.and_then(|curve| curve.within(rows)) {
            return Some(time);
        }
        let others = self.curves.iter().filter(|(class, _)| **class != wanted);
        let nearest = others.min_by_key(|(class, _)| class.abs_diff(wanted));
        let Some((other, near)) = nearest else { return own?.beyond(rows) };
        let scale = count(length.max(1)) / count(representative(*other));
        let there = |rows: usize| near.beyond_real((count(rows) * scale).max(1.0));
        match own.and_then(|curve| curve.nearest(rows)) {
            // The own curve tells how high, the other one how it goes on.
            Some((edge, time)) => Some(time * there(rows)? / there(edge)?),
            None => {
                let time = there(rows)?;
                // Below one row of the other length, time shrinks with the elements.
                Some(time * (count(rows) * scale).min(1.0))
            }
        }
    }
}

/// A larger run must cost at most this share per row of what a smaller one costs: above that, the
/// gain is in the noise and the wait for the larger run is not.
const WORTH: f64 = 0.98;

/// Sizes that are considered: all up to 64, then eight to the octave, and the largest.
pub fn sizes(most_rows: usize) -> impl Iterator<Item = usize> {
    let next = |rows: &usize| Some(rows + (*rows / 64 * 8).max(1));
    let below = std::iter::successors(Some(1_usize), next).take_while(move |rows| *rows < most_rows);
    below.chain((most_rows > 0).then_some(most_rows))
}

/// Classes of lengths: four to the octave.
fn class(length: usize) -> u32 {
    let length = u32::try_from(length.max(1)).unwrap_or(u32::MAX);
    let octave = length.ilog2();
    // The two bits after the leading one.
    let within = if octave >= 2 { (length >> (octave - 2)) & 3 } else { (length << (2 - octave)) & 3 };
    octave * 4 + within
}

/// Smallest length of a class.
fn representative(class: u32) -> usize {
    let (octave, within) = (class / 4, class % 4);
    let length = (4_u64 + u64::from(within)) << octave;
    usize::try_from(length / 4).unwrap_or(usize::MAX)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
