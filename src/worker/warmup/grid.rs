//! Times of made-up requests over a grid of rows and lengths, for a profile of a model.
//!
//! First runs at start have milliseconds and find out whether batching pays. This has seconds and
//! finds out what everything costs: each size is run again and again, by turns, so that a disturbance
//! of the machine meets all sizes and not one. The time of a size is the lower quartile of its runs:
//! up to three of four runs may be disturbed without moving it, and no single lucky run makes it, as
//! it would the fastest. Runs on the caller's thread; waits for nothing but the model.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Examples, example, has_free_inner, run};
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::request::length_of;
use crate::tensor::Tensor;
use crate::worker::Executor;

/// Shapes of made-up requests of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Length {
    /// What costs are known by ([`crate::cost`]).
    pub length: usize,
    shapes: BTreeMap<String, Vec<i64>>,
    /// What made-up values are where settings say it, by input.
    values: BTreeMap<String, String>,
}

/// Runs of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Length of the rows.
    pub length: usize,
    /// Rows in a run.
    pub rows: usize,
    /// What runs took, in the order in which they ran.
    times: Vec<Duration>,
}

/// A size that has no time, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Length of the rows.
    pub length: usize,
    /// Rows in a run; larger runs of that length were left out, too.
    pub rows: usize,
    /// What the runtime says, or that time was short.
    pub reason: String,
}

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Grid<'a> {
    /// The signature.
    pub spec: &'a ModelSpec,
    /// Lengths.
    pub lengths: &'a [Length],
    /// Rows of runs, rising.
    pub rows: &'a [usize],
    /// Time for everything.
    pub budget: Duration,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// Sizes that ran, by rows and length.
    pub cells: Vec<Cell>,
    /// Sizes that did not.
    pub left_out: Vec<LeftOut>,
}

/// Rows of runs in a profile: 1, 2, 3, 4, 6, 8, 12 and so on, and `most`.
pub fn sizes(most: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let (mut power, most) = (1_usize, most.max(1));
    while power <= most {
        sizes.extend([power, power + power / 2]);
        power = power.saturating_mul(2);
    }
    sizes.push(most);
    sizes.retain(|rows| *rows <= most);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Lengths of a profile that names none, beside the example's own: a quarter and a half of it, and
/// twice as much.
const SHARES: [(usize, usize); 3] = [(1, 4), (1, 2), (2, 1)];

impl Length {
    /// That of the example.
    pub fn of(spec: &ModelSpec, examples: Examples<'_>) -> Self {
        let tensors = example(spec, examples, 0);
        let inputs = spec.inputs.iter().zip(&tensors);
        let shapes =
            inputs.map(|(input, tensor)| (input.name.to_string(), tensor.shape().dims().to_vec()));
        let values = examples.values.clone();
        Self { length: length_of(&tensors, spec), shapes: shapes.collect(), values }
    }

    /// The example's own and those around it, rising.
    pub fn around(spec: &ModelSpec, examples: Examples<'_>) -> Vec<Self> {
        let own = Self::of(spec, examples);
        let others = SHARES.iter().filter_map(|(part, of)| own.near(spec, own.length * part / of));
        let mut all: Vec<Self> = others.collect();
        all.push(own);
        all.sort_unstable_by_key(|each| each.length);
        all.dedup_by_key(|each| each.length);
        all
    }

    /// The nearest to `asked` that the inputs have; `None` if all their sizes are fixed.
    ///
    /// What changes is the last free dimension of the first input that has one, and with it those of
    /// the same symbol, or, where dimensions have no names, of the same size.
    pub fn near(&self, spec: &ModelSpec, asked: usize) -> Option<Self> {
        let input = spec.inputs.iter().find(|input| has_free_inner(input))?;
        let (axis, dim) = free_inner(input).last()?;
        let size = *self.shapes.get(&*input.name)?.get(axis)?;
        let changes = |other: &Dim, its_size: i64| match (dim, other) {
            (Dim::Dynamic(Some(name)), Dim::Dynamic(Some(its))) => name == its,
            (Dim::Dynamic(None), Dim::Dynamic(None)) => its_size == size,
            _ => false,
        };
        let (mut shapes, mut changed) = (self.shapes.clone(), 0_i32);
        for input in &spec.inputs {
            let Some(shape) = shapes.get_mut(&*input.name) else { continue };
            for (axis, dim) in free_inner(input) {
                changed += i32::from(shape.get(axis).is_some_and(|its| changes(dim, *its)));
            }
        }
        // A symbol counts once in the length, however often it stands there.
        let power = if matches!(dim, Dim::Dynamic(Some(_))) { 1 } else { changed };
        let wanted = scaled(size, asked, self.length, power);
        for input in &spec.inputs {
            let Some(shape) = shapes.get_mut(&*input.name) else { continue };
            for (axis, dim) in free_inner(input) {
                if let Some(its) = shape.get_mut(axis).filter(|its| changes(dim, **its)) {
                    *its = wanted;
                }
            }
        }
        let given = Self { length: asked, shapes, values: self.values.clone() };
        let tensors = example(spec, given.examples(), 0);
        // What is too large to be made up fails when it runs, under the length that was asked for.
        let is_whole = tensors.len() == spec.inputs.len();
        Some(Self { length: if is_whole { length_of(&tensors, spec) } else { asked }, ..given })
    }

    fn examples(&self) -> Examples<'_> {
        // Every size is given.
        Examples { inner: 1, ..Examples::settled(&self.shapes, &self.values) }
    }
}

/// Dimensions that are open and are not the rows.
fn free_inner(input: &TensorSpec) -> impl DoubleEndedIterator<Item = (usize, &Dim)> {
    let dims = input.dims.iter().enumerate();
    dims.filter(|(axis, dim)| dim.is_dynamic() && input.batch_axis != Some(*axis))
}

/// The size whose `power`-th power makes `length` out of `known`, whose size is `size`.
#[expect(clippy::cast_possible_truncation, reason = "sizes of dimensions are far smaller")]
#[expect(clippy::cast_precision_loss, reason = "a size is rounded anyway")]
fn scaled(size: i64, length: usize, known: usize, power: i32) -> i64 {
    let factor = length as f64 / known.max(1) as f64;
    let size = size as f64 * factor.powf(1.0 / f64::from(power.max(1)));
    (size.round() as i64).max(1)
}

/// Runs of a size in a row, so that most of them find the processor's caches as runs of that size
/// leave them.
const IN_A_ROW: u32 = 4;
/// Runs of a size that come before more runs of another.
const A_FEW: usize = 8;
/// Most runs of a size: more make its quartile no surer.
const MOST_RUNS: usize = 1000;

impl Cell {
    /// Time of a run: the lower quartile of its runs.
    pub fn time(&self) -> Duration {
        let mut times = self.times.clone();
        let position = times.len().saturating_sub(1) / 4;
        if times.is_empty() {
            return Duration::ZERO;
        }
        *times.select_nth_unstable(position).1
    }

    /// How often it ran.
    pub fn runs(&self) -> usize {
        self.times.len()
    }

    fn total(&self) -> Duration {
        self.times.iter().sum()
    }
}

impl Grid<'_> {
    /// Runs every size once, small ones first, and then all of them by turns until the budget is
    /// used up. `on_run` hears of each size that ran. What fails, or would take more than its share of
    /// the budget, is left out with all larger runs of that length.
    pub fn measure(&self, executor: &mut dyn Executor, on_run: &mut dyn FnMut(&Cell)) -> Measured {
        let begun_at = Instant::now();
        let left = || self.budget.saturating_sub(begun_at.elapsed());
        // Half of the time is kept for further runs: one run of a size says little of it.
        let kept = self.budget / 2;
        let rows = Rows::new(self);
        let mut measured = Measured::default();
        for count in self.rows {
            for length in self.lengths {
                let length = length.length;
                if measured.left_out.iter().any(|out| out.length == length) {
                    continue;
                }
                let mut cell = Cell { length, rows: *count, times: Vec::new() };
                let fits = measured.expected(&cell) <= left().saturating_sub(kept);
                let ran = if fits || measured.cells.is_empty() {
                    rows.run(executor, &mut cell, 1)
                } else {
                    Err("the time for measuring is used up".to_owned())
                };
                if let Err(reason) = ran {
                    measured.leave_out(length, *count, reason);
                    continue;
                }
                on_run(&cell);
                measured.cells.push(cell);
            }
        }
        while let Some((at, runs)) = measured.next(left()) {
            let cell = &mut measured.cells[at];
            let ran = rows.run(executor, cell, runs);
            on_run(cell);
            if let Err(reason) = ran {
                let (length, rows) = (cell.length, cell.rows);
                measured.leave_out(length, rows, reason);
            }
        }
        measured
    }
}

/// Made-up rows of every length.
struct Rows<'a> {
    spec: &'a ModelSpec,
    /// By length. Few are made: a run's time hardly follows from its values, its memory does.
    made: BTreeMap<usize, Vec<Vec<Tensor>>>,
}

/// Different rows of a length.
const MADE_ROWS: u64 = 8;

impl<'a> Rows<'a> {
    fn new(grid: &Grid<'a>) -> Self {
        let rows = |length: &Length| {
            (0..MADE_ROWS).map(|seed| example(grid.spec, length.examples(), seed)).collect()
        };
        let made = grid.lengths.iter().map(|length| (length.length, rows(length))).collect();
        Self { spec: grid.spec, made }
    }

    /// Runs a size so often and adds the times.
    fn run(&self, executor: &mut dyn Executor, cell: &mut Cell, runs: u32) -> Result<(), String> {
        let made = self.made.get(&cell.length).into_iter().flatten();
        let rows: Vec<Vec<Tensor>> = made.cycle().take(cell.rows).cloned().collect();
        for _ in 0..runs {
            let begun_at = Instant::now();
            run(executor, self.spec, &rows).map_err(|error| error.to_string())?;
            cell.times.push(begun_at.elapsed());
        }
        Ok(())
    }
}

impl Measured {
    /// What a size that has not run yet will take, by the elements of the run before it.
    fn expected(&self, cell: &Cell) -> Duration {
        let before = self.cells.iter().rev().find(|before| before.length == cell.length);
        let Some(before) = before.or_else(|| self.cells.last()) else { return Duration::ZERO };
        let elements = |cell: &Cell| cell.rows.saturating_mul(cell.length).max(1);
        let growth = elements(cell).div_ceil(elements(before));
        before.time().saturating_mul(u32::try_from(growth).unwrap_or(u32::MAX))
    }

    /// A size, and every larger one of that length, has no time.
    fn leave_out(&mut self, length: usize, rows: usize, reason: String) {
        self.cells.retain(|cell| cell.length != length || cell.rows < rows);
        self.left_out.push(LeftOut { length, rows, reason });
    }

    /// The size to run next, of those that can still run, and how often. Large ones that ran a few times
    /// leave the rest of the time to those that have had less of it.
    fn next(&self, left: Duration) -> Option<(usize, u32)> {
        let round: Duration = self.cells.iter().map(Cell::time).sum();
        let runs = if round * IN_A_ROW <= left { IN_A_ROW } else { 1 };
        let fits = |cell: &Cell| cell.runs() < MOST_RUNS && cell.time() * runs <= left;
        let cells = self.cells.iter().enumerate().filter(|(_, cell)| fits(cell));
        let (at, _) = cells.min_by_key(|(_, cell)| (cell.runs().min(A_FEW), cell.total()))?;
        (!left.is_zero()).then_some((at, runs))
    }
}

#[cfg(test)]
mod tests;
