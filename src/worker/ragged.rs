//! Requests of different length in one run: joined with padding, their answers cut back.
//!
//! A run with a single rider, or with riders of one length, is neither padded nor cut. How long the
//! riders of a run may differ is the batcher's choice; here is only the bound that holds whatever
//! it chooses, so that short requests beside a very long one cannot take all memory.

use std::cmp::Reverse;

use crate::job::Job;
use crate::model::{ModelSpec, TensorSpec};
use crate::tensor::Tensor;
use crate::tensor::rows::{Joined, RowsError, shorten, split};

/// Padded inputs may be this many times as large as what the riders brought.
const MAX_GROWTH: u128 = 4;
/// Growth up to this many bytes is never looked at: it is time that it costs, not memory.
const FREE_GROWTH: u128 = 1 << 20;

/// One input of a run.
///
/// # Errors
/// Those of [`Joined::padded`].
pub(super) fn join<'a>(
    parts: Vec<&'a Tensor>,
    input: &TensorSpec,
) -> Result<Joined<'a>, RowsError> {
    match (input.batch_axis, input.pad()) {
        (Some(axis), Some(pad)) => Joined::padded(parts, axis, pad),
        (axis, _) => Joined::new(parts, axis),
    }
}

/// Rows and lengths of a run's riders.
#[derive(Debug)]
pub(super) struct Sizes {
    rows: Vec<usize>,
    /// None where the run was not padded.
    lengths: Vec<usize>,
}

impl Sizes {
    /// From one rows and length for each rider of a model with this signature.
    pub(super) fn of(riders: impl Iterator<Item = (usize, usize)>, spec: &ModelSpec) -> Self {
        let (rows, mut lengths): (Vec<usize>, Vec<usize>) = riders.unzip();
        if !spec.is_ragged() || lengths.iter().all(|length| *length == lengths[0]) {
            lengths.clear();
        }
        Self { rows, lengths }
    }

    /// Rows of the run.
    pub(super) fn total_rows(&self) -> usize {
        self.rows.iter().sum()
    }

    /// An output of the run, apart: each rider's rows in its own length.
    ///
    /// # Errors
    /// [`RowsError`] if the output does not have the rows, or the length, that went in.
    pub(super) fn apart(
        &self,
        output: &Tensor,
        axis: usize,
        spec: &TensorSpec,
    ) -> Result<Vec<Tensor>, RowsError> {
        let parts = split(output, axis, &self.rows)?;
        let (Some(axis), Some(longest)) = (spec.length_axis(), self.lengths.iter().max()) else {
            return Ok(parts);
        };
        let own = parts.iter().zip(&self.lengths);
        own.map(|(part, length)| shorten(part, axis, *longest, *length)).collect()
    }
}

/// Puts the riders of a batch into runs whose padding is within the bound: one run, but where
/// lengths are very far apart. The order in a run, and among runs by their first rider, stays.
pub(super) fn runs(riders: Vec<Job>, spec: &ModelSpec) -> Vec<Vec<Job>> {
    if riders.len() == 1 || !spec.is_ragged() {
        return vec![riders];
    }
    let size = |job: &Job| {
        let inputs = spec.inputs.iter().zip(job.request.inputs());
        let padded = inputs.filter(|(input, _)| input.pad().is_some());
        (job.request.length(), padded.map(|(_, tensor)| tensor.byte_size()).sum())
    };
    let sizes: Vec<(usize, usize)> = riders.iter().map(size).collect();
    let mut riders: Vec<Option<Job>> = riders.into_iter().map(Some).collect();
    let runs = bounded(&sizes).into_iter();
    runs.map(|run| run.into_iter().filter_map(|rider| riders[rider].take()).collect()).collect()
}

/// The riders of each run, from length and bytes of all: the longest first, then as many of the
/// next shorter ones as the bound allows.
fn bounded(sizes: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|rider| Reverse(sizes[*rider].0));
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let (mut longest, mut own, mut padded) = (0, 0, 0);
    for rider in order {
        let (length, bytes) = (sizes[rider].0 as u128, sizes[rider].1 as u128);
        let grown = bytes * longest / length.max(1);
        match runs.last_mut() {
            Some(run) if padded + grown <= MAX_GROWTH * (own + bytes) + FREE_GROWTH => {
                run.push(rider);
                (own, padded) = (own + bytes, padded + grown);
            }
            _ => {
                runs.push(vec![rider]);
                (longest, own, padded) = (length, bytes, bytes);
            }
        }
    }
    for run in &mut runs {
        run.sort_unstable();
    }
    runs.sort_unstable();
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn lengths_that_are_near_stay_together() {
        assert_eq!(bounded(&[(3, 24)]), [[0]]);
        assert_eq!(bounded(&[(128, 1024), (8, 64), (64, 512)]), [[0, 1, 2]]);
        // Small, whatever the lengths.
        assert_eq!(bounded(&[(1, 8), (10_000, 80_000), (1, 8)]), [[0, 1, 2]]);
        // Large, but all alike.
        assert_eq!(bounded(&[(MIB, 8 * MIB); 64]), [(0..64).collect::<Vec<_>>()]);
        let half = |rider| if rider % 2 == 0 { (MIB, 8 * MIB) } else { (MIB / 2, 4 * MIB) };
        assert_eq!(bounded(&(0..64).map(half).collect::<Vec<_>>()).len(), 1);
    }

    #[test]
    fn a_very_long_request_takes_few_short_ones_along() {
        let mut sizes = vec![(1, 8); 16];
        sizes[5] = (MIB, 8 * MIB);
        let runs = bounded(&sizes);
        // Four times what the long one brought, and the rest by itself, the most urgent first.
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0], [0, 1, 2, 5]);
        assert_eq!(runs[1].len(), 12);
        sizes[0] = (MIB / 2, 4 * MIB);
        for run in bounded(&sizes) {
            let longest = run.iter().map(|rider| sizes[*rider].0).max().unwrap();
            let own: usize = run.iter().map(|rider| sizes[*rider].1).sum();
            assert!(longest * 8 * run.len() <= 4 * own + MIB, "{run:?}");
        }
        // Nothing overflows.
        let huge = [(usize::MAX, usize::MAX), (1, usize::MAX)];
        assert_eq!(bounded(&huge), [[0], [1]]);
    }
}
