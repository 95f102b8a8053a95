//! Whether padding changes results, tried before a model serves.
//!
//! The settings say that a model bears padding; whether it does lies in the model. One that takes a
//! mean over all tokens without looking at the mask gives other answers beside a longer request
//! than alone, and nobody would see it. So a short row runs alone, and padded beside a longer one,
//! and what is cut back is compared.

use super::{Examples, Independence, TRIED_SEEDS, compare, example};
use crate::model::{ModelSpec, TensorSpec};
use crate::tensor::Tensor;
use crate::worker::Executor;

/// Compares rows that are padded with the same rows alone: half as long as the row beside them, and
/// a single element. Lengths that do not run alone are passed over; one must.
pub fn check_padding(
    executor: &mut dyn Executor,
    spec: &ModelSpec,
    examples: Examples<'_>,
) -> Independence {
    let long = given_length(spec, examples).unwrap_or(examples.inner).max(2);
    let mut shorts = vec![long / 2, 1];
    shorts.dedup();
    let mut found = None;
    for short in shorts {
        let rows = [(short, 1), (long, 2)].map(|(length, seed)| {
            let examples = Examples { length: Some(length), ..examples };
            real(spec, examples, seed)
        });
        let lengths = [short, long].map(|length| usize::try_from(length).unwrap_or(0));
        let when = format!("when {short} is padded to {long}");
        match compare(executor, spec, &rows, Some(lengths), &when) {
            Independence::Shown => found = Some(Independence::Shown),
            Independence::Refuted(reason) => return Independence::Refuted(reason),
            Independence::Unknown(reason) => {
                found.get_or_insert(Independence::Unknown(reason));
            }
        }
    }
    found.unwrap_or_else(|| Independence::Unknown("no length was tried".to_owned()))
}

/// The length of a usual request, if the settings give one for any padded input.
pub(super) fn given_length(spec: &ModelSpec, examples: Examples<'_>) -> Option<i64> {
    let length = |input: &TensorSpec| {
        let dims = examples.given.get(&*input.name)?;
        dims.get(input.length_axis()?).copied().filter(|length| *length > 0)
    };
    spec.inputs.iter().find_map(length)
}

/// A made-up request that is more than padding: a mask of nothing but zeros lets models divide
/// nothing by nothing, or look everywhere, and says nothing of requests that callers send.
fn real(spec: &ModelSpec, examples: Examples<'_>, first_seed: u64) -> Vec<Tensor> {
    let is_real = |request: &Vec<Tensor>| {
        let mut inputs = spec.inputs.iter().zip(request);
        !inputs.any(|(input, tensor)| is_all_padding(input, tensor))
    };
    let mut seeds = first_seed..first_seed + TRIED_SEEDS;
    let request = seeds.find_map(|seed| Some(example(spec, examples, seed)).filter(is_real));
    request.unwrap_or_else(|| example(spec, examples, first_seed))
}

fn is_all_padding(input: &TensorSpec, tensor: &Tensor) -> bool {
    let (Some(pad), Some(bytes)) = (input.pad(), tensor.dense_bytes()) else { return false };
    let element = pad.fill.element();
    bytes.chunks_exact(element.len()).all(|found| found == element)
}

#[cfg(test)]
mod tests;
