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
pub struct Length<'a> {
    /// What costs are known by ([`crate::cost`]).
    pub length: usize,
    /// By input.
    shapes: BTreeMap<String, Vec<i64>>,
    /// What the model's settings say, by input.
    values: &'a BTreeMap<String, String>,
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
    pub lengths: &'a [Length<'a>],
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

impl<'a> Length<'a> {
    /// That of the example.
    pub fn of(spec: &ModelSpec, examples: Examples<'a>) -> Self {
        let tensors = example(spec, examples, 0);
        let inputs = spec.inputs.iter().zip(&tensors);
        let shapes =
            inputs.map(|(input, tensor)| (input.name.to_string(), tensor.shape().dims().to_vec()));
        let (length, shapes) = (length_of(&tensors, spec), shapes.collect());
        Self { length, shapes, values: examples.values }
    }

    /// The example's own and those around it, rising.
    pub fn around(spec: &ModelSpec, examples: Examples<'a>) -> Vec<Self> {
        let own = Self::of(spec, examples);
        let others = SHARES.iter().filter_map(|(part, of)| own.near(spec, own.length * part / of));
        let mut all: Vec<Self> = others.collect();
        all.push(own);
        all.sort_unstable_by_key(|each| each.length);
        all.dedup_by_key(|each| each.length);
        all
    }

    /// The nearest to `asked` that the inputs have; `None` if all their sizes are fixed.
    pub fn near(&self, spec: &ModelSpec, asked: usize) -> Option<Self> {
        let changing = self.changing(spec)?;
        let length = |size| self.length_with(spec, &changing, size);
        let size = nearest(asked.max(1), length);
        let mut near = self.clone();
        for (input, axis) in &changing {
            let shape = near.shapes.get_mut(input);
            if let Some(its) = shape.and_then(|shape| shape.get_mut(*axis)) {
                *its = i64::try_from(size).unwrap_or(i64::MAX);
            }
        }
        near.length = length(size);
        Some(near)
    }

    /// The dimensions that change with the length, by input and axis. Where inputs are padded, those
    /// along which they are; else the last open one of the input that makes the length. With them
    /// those of the same symbol, or, where dimensions have no names, of the same size.
    fn changing(&self, spec: &ModelSpec) -> Option<Vec<(String, usize)>> {
        let padded = spec.inputs.iter().find_map(|input| Some((input, input.length_axis()?)));
        let (input, axis) = padded.or_else(|| {
            // The first of the largest.
            let open = spec.inputs.iter().rev().filter(|input| has_free_inner(input));
            let largest = open.max_by_key(|input| self.open_size(input, |_, its| its))?;
            Some((largest, free_inner(largest).last()?.0))
        })?;
        let (dim, size) = (input.dims.get(axis)?, self.size(input, axis)?);
        let changes = |other: &TensorSpec, its_axis: usize, its_dim: &Dim| match (dim, its_dim) {
            _ if other.length_axis() == Some(its_axis) => true,
            (Dim::Dynamic(Some(name)), Dim::Dynamic(Some(its))) => name == its,
            (Dim::Dynamic(None), Dim::Dynamic(None)) => {
                padded.is_none() && self.size(other, its_axis) == Some(size)
            }
            _ => false,
        };
        let of_input = |input| free_inner(input).map(move |(axis, dim)| (input, axis, dim));
        let all = spec.inputs.iter().flat_map(of_input);
        let changing = all.filter(|(input, axis, dim)| changes(input, *axis, dim));
        Some(changing.map(|(input, axis, _)| (input.name.to_string(), axis)).collect())
    }

    /// The length if those dimensions have that size ([`crate::request::ValidRequest::length`]).
    fn length_with(&self, spec: &ModelSpec, changing: &[(String, usize)], size: usize) -> usize {
        if spec.inputs.iter().any(|input| input.length_axis().is_some()) {
            return size;
        }
        let open = |input: &TensorSpec| {
            let is_changing = |axis| changing.iter().any(|(n, a)| **n == *input.name && *a == axis);
            self.open_size(input, |axis, its| if is_changing(axis) { size } else { its })
        };
        spec.inputs.iter().map(open).max().unwrap_or(1)
    }

    /// Product of the open dimensions of an input, each as `size` has it from what it is now.
    fn open_size(&self, input: &TensorSpec, size: impl Fn(usize, usize) -> usize) -> usize {
        let sizes = free_inner(input).map(|(axis, _)| {
            let its = self.size(input, axis).and_then(|its| usize::try_from(its).ok());
            size(axis, its.unwrap_or(1))
        });
        sizes.fold(1, usize::saturating_mul)
    }

    fn size(&self, input: &TensorSpec, axis: usize) -> Option<i64> {
        self.shapes.get(&*input.name)?.get(axis).copied()
    }

    fn examples(&self) -> Examples<'_> {
        // Every size is given.
        Examples { given: &self.shapes, values: self.values, inner: 1, length: None }
    }
}

/// Dimensions that are open and are not the rows.
fn free_inner(input: &TensorSpec) -> impl DoubleEndedIterator<Item = (usize, &Dim)> {
    let dims = input.dims.iter().enumerate();
    dims.filter(|(axis, dim)| dim.is_dynamic() && input.batch_axis != Some(*axis))
}

/// The size, at least 1, whose length is the nearest to `asked`, and the largest of those. Lengths
/// rise with sizes and are no smaller; they may stay where another input is larger.
fn nearest(asked: usize, length: impl Fn(usize) -> usize) -> usize {
    let least = asked.max(length(1));
    let (mut fits, mut above) = (1, least.saturating_add(1));
    while above - fits > 1 {
        let middle = fits.midpoint(above);
        if length(middle) <= least { fits = middle } else { above = middle }
    }
    let is_nearer = length(above).abs_diff(asked) < length(fits).abs_diff(asked);
    if is_nearer { above } else { fits }
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
        let rows = |length: &Length<'_>| {
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
