//! What runs of one model cost, found out offline and thoroughly.
//!
//! Goes the way of a model that is about to serve (signature, first runs, whether rows may share a
//! run) and then, instead of serving, spends seconds on a grid of rows and lengths. So what is
//! measured is what would be served. Runs on the caller's thread. `cli` calls it.

use std::time::Duration;

use super::first_runs::{keep_padding, run_each, shared_runs};
use super::served::signature;
use crate::config::ModelConfig;
use crate::config::model::Batching;
use crate::cost::file::MeasuredPoint;
use crate::cost::{AROUND_A_RUN, CostModel};
use crate::model::{ModelKey, ModelSpec};
use crate::worker::warmup::Examples;
use crate::worker::warmup::grid::{Cell, Grid, Length, Measured, sizes};
use crate::worker::{LoadError, LoadedModel};

/// What to find out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Lengths to measure; empty for the example's and those around it.
    pub lengths: Vec<usize>,
    /// Time for measuring.
    pub budget: Duration,
}

/// What was found out.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// Times, by rows and length, and sizes that have none.
    pub measured: Measured,
    /// Most rows in a run.
    pub most_rows: usize,
    /// What else there is to know, for people.
    pub notes: Vec<String>,
}

/// Measures what runs of a loaded model cost. `on_run` hears of each size that ran.
///
/// # Errors
/// [`LoadError`] if settings and signature contradict each other, if made-up inputs do not run, or
/// if lengths are asked for that the model cannot have.
pub fn profile(
    key: &ModelKey,
    loaded: &mut LoadedModel,
    config: &ModelConfig,
    plan: &Plan,
    on_run: &mut dyn FnMut(&Cell),
) -> Result<Profile, LoadError> {
    let mut found = Profile::default();
    let (spec, reason) = signature(key, loaded.spec.clone(), config)?;
    found.notes.extend(reason.map(|reason| format!("requests run one at a time: {reason}")));
    let unmeasured = |reason| LoadError::new(format!("cannot be measured: {reason}"));
    let examples = run_each(&spec, &mut loaded.executors, config).map_err(unmeasured)?;
    let had_rows = spec.has_rows();
    let (spec, most) = shared_runs(key, spec, &mut loaded.executors, Ok(examples), config);
    let spec = keep_padding(key, spec, &mut loaded.executors, &Ok(examples), config);
    found.most_rows = most;
    if spec.has_rows() && config.batching == Batching::Off {
        // Requests share no run, but one of them may have as many rows.
        found.most_rows = config.max_batch_size;
        found.notes.push("batching is off: larger runs are of requests with several rows".into());
    } else if had_rows && !spec.has_rows() {
        found.notes.push("rows are not independent: requests run one at a time".to_owned());
    }
    let lengths = lengths(&spec, examples, &plan.lengths, &mut found.notes)?;
    let Some(executor) = loaded.executors.first_mut() else {
        return Err(unmeasured("there is no instance".to_owned()));
    };
    let rows = sizes(found.most_rows);
    let grid = Grid { spec: &spec, lengths: &lengths, rows: &rows, budget: plan.budget };
    found.measured = grid.measure(executor.as_mut(), on_run);
    Ok(found)
}

/// The lengths to measure, rising. Notes where a length that is asked for cannot be had exactly.
fn lengths<'a>(
    spec: &ModelSpec,
    examples: Examples<'a>,
    asked: &[usize],
    notes: &mut Vec<String>,
) -> Result<Vec<Length<'a>>, LoadError> {
    if asked.is_empty() {
        return Ok(Length::around(spec, examples));
    }
    let own = Length::of(spec, examples);
    let mut lengths = Vec::with_capacity(asked.len());
    for asked in asked {
        let near = own.near(spec, *asked).ok_or_else(|| {
            LoadError::new("all its requests have one length: no inner dimension is open")
        })?;
        if near.length != *asked {
            notes.push(format!("no request has length {asked}; {} is measured", near.length));
        }
        lengths.push(near);
    }
    lengths.sort_unstable_by_key(|each| each.length);
    lengths.dedup_by_key(|each| each.length);
    Ok(lengths)
}

impl Profile {
    /// Lengths that were measured, rising.
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self.measured.cells.iter().map(|cell| cell.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }

    /// Sizes of a length, by rows.
    pub fn of_length(&self, length: usize) -> impl Iterator<Item = &Cell> {
        self.measured.cells.iter().filter(move |cell| cell.length == length)
    }

    /// How many rows a run of that length should have, as a server that takes these times decides.
    pub fn best_rows(&self, length: usize) -> usize {
        let mut costs = CostModel::new(self.most_rows, AROUND_A_RUN);
        for cell in self.of_length(length) {
            costs.set(cell.rows, length, cell.time());
        }
        costs.best_rows(length, self.most_rows)
    }

    /// What was measured, as it is kept beside the model.
    pub fn points(&self) -> Vec<MeasuredPoint> {
        let mut cells: Vec<&Cell> = self.measured.cells.iter().collect();
        cells.sort_unstable_by_key(|cell| (cell.length, cell.rows));
        let point = |cell: &Cell| MeasuredPoint::new(cell.length, cell.rows, cell.time());
        cells.into_iter().filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests;
