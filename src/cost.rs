//! What a run costs: its time as a function of rows and length, learned from first runs and from
//! every run since.
//!
//! [`CostModel`] keeps one [`Curve`] over rows per class of lengths (the padded size, or the size of the
//! inner dimensions), of the length that was seen first in it; lengths beside it are judged by the line
//! to the next class. Kinds of runs that were seen a few times only are judged by what all tell of rows
//! and length, too ([`plane`]). A single slow run moves a curve little, many move it surely; a slowdown
//! of the whole machine is learned apart, within a few runs, as one factor for all. Which size is best
//! is judged by the sizes beside it, too, as far as runs vary ([`Curve`]).
//! Pure: no clock, no lock. The batcher asks it how many rows to run and who can still be in time;
//! first runs and the simulator fill it.

use std::collections::BTreeMap;
use std::time::Duration;

mod class;
mod curve;
mod factor;
pub mod file;
mod plane;

use class::{Class, class};
pub use curve::Curve;
use factor::Factor;
use plane::Plane;

/// Time of runs by rows and length. Starts empty, and then expects nothing.
#[derive(Debug, Clone)]
pub struct CostModel {
    /// Most rows in a run.
    most_rows: usize,
    /// Time that is spent beside each run, in seconds.
    around: f64,
    /// By class of length.
    classes: BTreeMap<u32, Class>,
    /// What runs of all classes tell of each.
    plane: Plane,
    /// How the machine is doing: what runs take over what the curves say.
    level: Factor,
    /// How much longer than expected one run in twenty takes.
    surprise: Factor,
}

/// One figure of a [`CostModel`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostPoint {
    /// Length that was seen first in its class.
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
/// Furthest that the level can be from where it began: e to this power. Slow runs lift the level, and the
/// sizes that are seen then make up for it: without a bound, sizes that are not seen would rise with every
/// accident, for days.
const LEVEL_LIMIT: f64 = 1.5;
/// Share of runs that may take longer than [`CostModel::at_most`] says.
const SURPRISED: f64 = 0.05;
/// Standard deviations that one normal run in twenty is above.
const ONE_IN_TWENTY: f64 = 1.645;
/// Step of the quantile above; larger learns faster and wobbles more.
const SURPRISE_STEP: f64 = 0.1;
/// Longest that a run is taken to last beyond expectation: e to this power.
const SURPRISE_LIMIT: f64 = 1.0;

/// What a run costs beside the model, roughly: a batch is taken, threads are woken, answers are
/// brought to their callers. Larger batches share it, which decides where the curve is flat.
pub const AROUND_A_RUN: Duration = Duration::from_micros(30);
/// A run has at most this many times the rows of the largest run that was seen: a curve is not
/// trusted far beyond its end.
const BEYOND: usize = 2;
/// A length is taken to cost at most this many times what the nearest known one costs, until it was
/// seen: what a short run takes says little of one a thousand times as long.
const FAR: f64 = 16.0;
/// Runs of a kind that tell as much of it as those of all kinds do, where nothing varies.
const FEW: f64 = 4.0;
/// Furthest that they can lead astray, as a factor.
const ASTRAY: f64 = 4.0;
/// How far kinds of runs are from what all tell of them, as a share, roughly: steps of kernels, attention.
const UNEVEN: f64 = 0.1;
/// Runs after which the best size of a class is looked for again.
const REFRESH: u32 = 16;

impl CostModel {
    /// A model of runs of at most `most_rows` rows; `around` is what each run costs beside the model:
    /// a batch is taken, threads are woken, answers are brought to their callers.
    pub fn new(most_rows: usize, around: Duration) -> Self {
        let classes = BTreeMap::new();
        let around = around.as_secs_f64();
        Self {
            most_rows: most_rows.max(1),
            around,
            classes,
            plane: Plane::default(),
            level: Factor::ONE,
            surprise: Factor::ONE,
        }
    }

    /// Most rows in a run.
    pub fn most_rows(&self) -> usize {
        self.most_rows
    }

    /// Takes `took` as the time of such a run, as measured by somebody who has ruled out accidents.
    pub fn set(&mut self, rows: usize, length: usize, took: Duration) {
        let seconds = took.as_secs_f64() / self.beside(rows, length);
        let class = class(length);
        self.classes.entry(class).or_insert_with(|| Class::of(length)).curve.set(rows, seconds);
        self.plane.set(rows, length, took.as_secs_f64());
        self.refresh(class);
    }

    /// Learns from a run.
    pub fn observe(&mut self, rows: usize, length: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let known = self.base(rows, length);
        let error = known.map_or(0.0, |base| (seconds / base).ln() - self.level.logarithm);
        // A guess that was wrong says nothing of the machine.
        let guessed = !self.classes.get(&class(length)).is_some_and(|own| own.curve.knows(rows));
        if !guessed {
            let step = LEVEL_GAIN * error.clamp(-LEVEL_STEP, LEVEL_STEP);
            self.level.step(step, -LEVEL_LIMIT..=LEVEL_LIMIT);
        }
        let step = if error > self.surprise.logarithm { 1.0 - SURPRISED } else { -SURPRISED };
        self.surprise.step(SURPRISE_STEP * step, 0.0..=SURPRISE_LIMIT);
        self.plane.observe(rows, length, seconds / self.level.value);
        let beside = self.beside(rows, length);
        let (seconds, known) = (seconds / beside / self.level.value, known.map(|it| it / beside));
        let class = class(length);
        let seen = self.classes.entry(class).or_insert_with(|| Class::of(length));
        seen.curve.observe(rows, seconds, known, guessed);
        (seen.since, seen.runs) = (seen.since + 1, seen.runs + 1);
        if seen.best.0 == 0 || seen.since >= REFRESH {
            self.refresh(class);
        }
    }

    /// Expected time of a run; zero if nothing is known.
    pub fn expect(&self, rows: usize, length: usize) -> Duration {
        Duration::from_secs_f64(self.seconds(rows, length))
    }

    /// Time that a run of that kind will hardly exceed; zero if nothing is known.
    pub fn at_most(&self, rows: usize, length: usize) -> Duration {
        Duration::from_secs_f64(self.seconds(rows, length) * self.surprise.value)
    }

    /// Time per row of `length` where rows cost the least; zero if nothing is known.
    pub fn per_row(&self, length: usize) -> Duration {
        let Some((near, known)) = self.nearest_class(class(length)) else { return Duration::ZERO };
        let (rows, cost) = known.best;
        let seconds = if self.classes.len() > 1 {
            let around = self.around / self.level.value;
            self.base(rows, length).map_or(cost, |time| (time + around) / count(rows))
        } else if near == class(length) {
            cost * self.beside(rows, length)
        } else {
            cost * (count(length.max(1)) / count(known.length)).min(FAR)
        };
        Duration::from_secs_f64(seconds * self.level.value)
    }

    /// How many rows of `length` a run should have if there are `available` of them: those that get
    /// the most rows done in time, and among sizes that are as good but for noise the smallest, which
    /// answers first. As many as there are if nothing is known.
    pub fn best_rows(&self, length: usize, available: usize) -> usize {
        let available = available.min(self.most_rows).max(1);
        match self.classes.get(&class(length)) {
            // Found when the best was looked for: asked for every request that comes.
            Some(known) => {
                let within = known.sizes.partition_point(|size| *size <= available);
                known.sizes[..within].last().copied().unwrap_or(1)
            }
            None if self.classes.is_empty() => available,
            None => self.search(length, available).last().map_or(1, |(rows, _)| rows),
        }
    }

    /// Most rows that a run of `length` should have for what is known.
    pub fn reach(&self, length: usize) -> usize {
        let known = self.nearest_class(class(length)).and_then(|(_, known)| known.curve.largest());
        known.map_or(self.most_rows, |largest| self.most_rows.min(largest * BEYOND))
    }

    /// How many rows a run should have if any number waits and it is of the length that was seen most.
    pub fn usual_rows(&self) -> usize {
        match self.usual() {
            Some(known) => known.best.0.clamp(1, self.most_rows),
            None => self.most_rows,
        }
    }

    /// The length that was seen most; 1 if none was.
    pub fn usual_length(&self) -> usize {
        self.usual().map_or(1, |known| known.length)
    }

    /// Takes known runs of `length` as the usual ones until others are seen more often.
    pub fn presume(&mut self, length: usize) {
        if let Some(known) = self.classes.get_mut(&class(length)) {
            known.runs += 1;
        }
    }

    fn usual(&self) -> Option<&Class> {
        self.classes.values().max_by_key(|known| known.runs)
    }

    /// Whether nothing has been learned.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Everything that was learned, by length and rows.
    pub fn points(&self) -> Vec<CostPoint> {
        let scale = self.level.value;
        let of = |known: &Class| {
            let length = known.length;
            let point = move |(rows, seconds, runs)| {
                let time = Duration::from_secs_f64(seconds * scale);
                CostPoint { length, rows, time, runs }
            };
            known.curve.points().map(point).collect::<Vec<_>>()
        };
        self.classes.values().flat_map(of).collect()
    }

    /// Sizes up to `available` at which a row costs less than at all smaller ones, with what it costs
    /// there in seconds, rising.
    fn search(&self, length: usize, available: usize) -> impl Iterator<Item = (usize, f64)> {
        let available = available.min(self.reach(length)).max(1);
        let mut best: Option<(usize, f64)> = None;
        sizes(available).filter_map(move |rows| {
            let cost = (self.settled(rows, length) + self.around) / count(rows);
            let is_worth = best.is_none_or(|(rows, least)| {
                cost < least * if rows == 1 { WORTH_COMPANY } else { WORTH }
            });
            is_worth.then(|| *best.insert((rows, cost)))
        })
    }

    fn refresh(&mut self, class: u32) {
        let Some(length) = self.classes.get(&class).map(|known| known.length) else { return };
        let found: Vec<(usize, f64)> = self.search(length, self.most_rows).collect();
        let scale = self.level.value;
        if let (Some(known), Some((best, cost))) = (self.classes.get_mut(&class), found.last()) {
            known.best = (*best, cost / scale);
            known.sizes = found.iter().map(|(rows, _)| *rows).collect();
            known.since = 0;
        }
    }

    fn seconds(&self, rows: usize, length: usize) -> f64 {
        self.base(rows, length).unwrap_or(0.0) * self.level.value
    }

    /// The same for a choice between sizes.
    fn settled(&self, rows: usize, length: usize) -> f64 {
        let own = self.classes.get(&class(length)).filter(|own| own.length == length);
        let varies = self.surprise.logarithm / ONE_IN_TWENTY;
        match own.and_then(|own| Some((own, own.curve.settled(rows, varies)?))) {
            Some((own, time)) => {
                self.among_all(time, own.curve.runs(rows), rows, length) * self.level.value
            }
            None => self.seconds(rows, length),
        }
    }

    /// Time of a run while the machine is as it was.
    fn base(&self, rows: usize, length: usize) -> Option<f64> {
        let own = self.classes.get(&class(length));
        // What nearly every run is: of the length that its class is known by, in sizes that were seen.
        if let Some(own) = own.filter(|own| own.length == length)
            && let Some(time) = own.curve.within(rows)
        {
            return Some(self.among_all(time, own.curve.runs(rows), rows, length));
        }
        let known = own.map_or(length, |own| own.length);
        let time = self.at_class(rows, known)? * self.beside(rows, length);
        Some(self.among_all(time, own.map_or(0, |own| own.curve.runs(rows)), rows, length))
    }

    /// The time of a kind of runs that was seen `runs` times: by itself, and by what all runs tell, the
    /// more the fewer there were and the more they vary (shrinkage, as in [`Curve::settled`]).
    fn among_all(&self, time: f64, runs: u64, rows: usize, length: usize) -> f64 {
        if self.classes.len() < 2 {
            return time;
        }
        let Some(of_all) = self.plane.at(rows, length) else { return time };
        let runs = count(usize::try_from(runs).unwrap_or(usize::MAX));
        let varies = self.surprise.logarithm / ONE_IN_TWENTY;
        let own = runs / (runs + (varies / UNEVEN).powi(2).max(FEW));
        time.powf(own) * of_all.clamp(time / ASTRAY, time * ASTRAY).powf(1.0 - own)
    }

    /// What a run of `length` takes over one of the length that its class is known by.
    ///
    /// Lengths between those of neighbouring classes are on the line between them. Without a
    /// neighbour, time grows with the length.
    fn beside(&self, rows: usize, length: usize) -> f64 {
        let wanted = class(length);
        let Some(own) = self.classes.get(&wanted) else { return 1.0 };
        if length == own.length {
            return 1.0;
        }
        let towards = if length > own.length { Some(wanted + 1) } else { wanted.checked_sub(1) };
        let Some(other) = towards.and_then(|class| self.classes.get(&class)) else {
            return count(length.max(1)) / count(own.length);
        };
        let times = self.at_class(rows, own.length).zip(self.at_class(rows, other.length));
        let Some((own_time, other_time)) = times else { return 1.0 };
        let way = count(length.abs_diff(own.length)) / count(other.length.abs_diff(own.length));
        1.0 + way * (other_time / own_time - 1.0)
    }

    /// Time of a run of a length that a class is known by, or of a class that is not known. A size
    /// that its own curve does not reach is judged by the nearest curve, at the rows that make the
    /// same number of elements there.
    fn at_class(&self, rows: usize, length: usize) -> Option<f64> {
        let wanted = class(length);
        let own = self.classes.get(&wanted).map(|known| &known.curve);
        if let Some(time) = own.and_then(|curve| curve.within(rows)) {
            return Some(time);
        }
        let others = self.classes.iter().filter(|(class, _)| **class != wanted);
        let nearest = others.min_by_key(|(class, _)| class.abs_diff(wanted));
        let Some((_, near)) = nearest else { return own?.beyond(rows) };
        let scale = (count(length.max(1)) / count(near.length)).min(FAR);
        let there = |rows: usize| near.curve.beyond_real((count(rows) * scale).max(1.0));
        match own.and_then(|curve| curve.nearest(rows)) {
            // The own curve tells how high, the other one how it goes on.
            Some((edge, time)) => Some(time * there(rows)? / there(edge)?),
            // Below one row of the other length, time shrinks with the elements.
            None => Some(there(rows)? * (count(rows) * scale).min(1.0)),
        }
    }

    fn nearest_class(&self, wanted: u32) -> Option<(u32, &Class)> {
        let nearest = self.classes.iter().min_by_key(|(class, _)| class.abs_diff(wanted))?;
        Some((*nearest.0, nearest.1))
    }
}

/// Running rows together at all must cost at most this share per row of what a row costs alone: what
/// company saves must show above the noise, since it makes the first wait for the last.
const WORTH_COMPANY: f64 = 0.9;
/// A larger run must cost at most this share per row of what a smaller one costs: above that, the
/// gain is in the noise and the wait for the larger run is not.
const WORTH: f64 = 0.995;

/// Sizes that are considered: all up to 64, then eight to the octave, and the largest.
pub fn sizes(most_rows: usize) -> impl Iterator<Item = usize> {
    let next = |rows: &usize| Some(rows + (*rows / 64 * 8).max(1));
    let below =
        std::iter::successors(Some(1_usize), next).take_while(move |rows| *rows < most_rows);
    below.chain((most_rows > 0).then_some(most_rows))
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
