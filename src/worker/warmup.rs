//! First runs of a model before it serves: warm caches, prove that rows are independent, and
//! measure what rows cost.
//!
//! A model may declare a batch axis and still let its rows influence each other. Batching such a
//! model would mix the answers of strangers, so two different rows run alone and together, and the
//! answers are compared. A model may also be said to bear padding and look at it all the same, so a
//! short row runs beside a long one, too ([`padding`]). How far batching pays is then measured within a time budget.
//! Runs on the loader's thread; the choice of the size is a pure function.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use half::{bf16, f16};
use tokio::time::Instant;

use super::Executor;
use super::ragged::{self, Sizes};
use crate::cost::{AROUND_A_RUN, CostModel};
use crate::error::ExecuteError;
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::request::length_of;
use crate::tensor::{DataType, Fill, Shape, Tensor};

pub mod grid;
pub mod padding;

/// Whether rows that run together get the answers that they get alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Independence {
    /// They do.
    Shown,
    /// They do not: output and reason.
    Refuted(String),
    /// The made-up inputs did not run, so nothing is known.
    Unknown(String),
}

/// What made-up requests are like.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    /// Shapes that the model's settings say, by input.
    pub given: &'a BTreeMap<String, Vec<i64>>,
    /// The value of all elements that the model's settings say, by input.
    pub values: &'a BTreeMap<String, String>,
    /// Size of every other dynamic inner dimension.
    pub inner: i64,
    /// Length of padded inputs, instead of what the settings say.
    pub length: Option<i64>,
}

impl<'a> Examples<'a> {
    /// What settings say, before anything was tried.
    pub fn settled(
        given: &'a BTreeMap<String, Vec<i64>>,
        values: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { given, values, inner: INNER_SIZES[0], length: None }
    }
}

/// Values that settings give for made-up requests and that the signature does not take: each that
/// the input's datatype does not have, each of an input that the model lacks, with its key.
pub fn wrong_values(spec: &ModelSpec, values: &BTreeMap<String, String>) -> Vec<String> {
    let problem = |(name, text): (&String, &String)| {
        let input = spec.inputs.iter().find(|input| *input.name == **name);
        let tried = match input {
            None => Err("the model has no such input".to_owned()),
            Some(input) => Fill::parse(input.dtype, text).map(drop),
        };
        tried.err().map(|problem| format!("inputs.{name}.example_value: {problem}"))
    };
    values.iter().filter_map(problem).collect()
}

/// Sizes that dynamic inner dimensions are tried with, in order: the smallest suits token models,
/// the others suit images and audio.
const INNER_SIZES: [i64; 3] = [8, 32, 224];

/// Runs the model once on made-up values, so that the first caller does not pay for lazy set-up.
/// Returns what worked: `settled`, with a size of open dimensions that runs.
///
/// # Errors
/// The runtime's reason if no made-up input runs. That is no fault of the model: it may want values
/// that nobody can guess.
pub fn run_once<'a>(
    executor: &mut dyn Executor,
    spec: &ModelSpec,
    settled: Examples<'a>,
) -> Result<Examples<'a>, ExecuteError> {
    let mut last = ExecuteError::Runtime("no size was tried".into());
    for inner in INNER_SIZES {
        let examples = Examples { inner, ..settled };
        match run(executor, spec, &[example(spec, examples, 0)]) {
            Ok(_) => return Ok(examples),
            Err(error) => last = error,
        }
        if !spec.inputs.iter().any(has_free_inner) {
            break;
        }
    }
    Err(last)
}

/// Compares two rows run alone with the same rows run together.
pub fn check_independence(
    executor: &mut dyn Executor,
    spec: &ModelSpec,
    examples: Examples<'_>,
) -> Independence {
    compare(executor, spec, &two_rows(spec, examples), None, "when another row runs beside it")
}

/// Compares two requests of one row each run alone with the same run together. `lengths` are theirs
/// where they differ; `when` says what a difference would come from.
fn compare(
    executor: &mut dyn Executor,
    spec: &ModelSpec,
    rows: &[Vec<Tensor>; 2],
    lengths: Option<[usize; 2]>,
    when: &str,
) -> Independence {
    let alone: Result<Vec<_>, _> =
        rows.iter().map(|row| run(executor, spec, std::slice::from_ref(row))).collect();
    let together = run(executor, spec, rows);
    let (alone, together) = match (alone, together) {
        (Ok(alone), Ok(together)) => (alone, together),
        (Err(error), _) => return Independence::Unknown(error.to_string()),
        (Ok(_), Err(error)) => {
            return Independence::Refuted(format!("two rows alone run, together not: {error}"));
        }
    };
    let sizes = Sizes::of(lengths.unwrap_or([1; 2]).map(|length| (1, length)).into_iter(), spec);
    for (index, output) in spec.outputs.iter().enumerate() {
        let parts = match sizes.apart(&together[index], output.batch_axis.unwrap_or(0), output) {
            Ok(parts) => parts,
            Err(error) => return Independence::Refuted(format!("`{}`: {error}", output.name)),
        };
        for (part, single) in parts.iter().zip(&alone) {
            if !close(part, &single[index]) {
                return Independence::Refuted(format!("`{}` of a row differs {when}", output.name));
            }
        }
    }
    Independence::Shown
}

/// Two requests of one row each that differ in every input that has rows and no settled value: equal
/// rows would hide what they do to each other, and a single flag is easily the same twice.
fn two_rows(spec: &ModelSpec, examples: Examples<'_>) -> [Vec<Tensor>; 2] {
    let one = example(spec, examples, 1);
    let differs = |other: &Vec<Tensor>| {
        let mut inputs = spec.inputs.iter().zip(one.iter().zip(other));
        let same = |input: &TensorSpec| {
            input.batch_axis.is_none() || examples.values.contains_key(&*input.name)
        };
        inputs.all(|(input, (left, right))| same(input) || left != right)
    };
    let mut others = (2..TRIED_SEEDS).map(|seed| example(spec, examples, seed));
    let other = others.find(differs).unwrap_or_else(|| example(spec, examples, 2));
    [one, other]
}

/// Seeds that are tried for a row that differs: two flags are equal in half of all cases.
const TRIED_SEEDS: u64 = 64;

/// Time of a run by rows: 1, 2, 4 and so on up to `max_rows`, within `budget`. Each size counts
/// with the fastest of its runs, which is the one that was disturbed least. The sizes are gone
/// through again, which takes little, until what follows from them stays the same.
pub fn measure(
    executor: &mut dyn Executor,
    spec: &ModelSpec,
    examples: Examples<'_>,
    max_rows: usize,
    budget: Duration,
) -> Vec<(usize, Duration)> {
    let begun_at = Instant::now();
    let mut time = |rows: usize| {
        let inputs: Vec<Vec<Tensor>> =
            (0..rows as u64).map(|seed| example(spec, examples, seed)).collect();
        let run_at = Instant::now();
        run(executor, spec, &inputs).ok().map(|_| run_at.elapsed())
    };
    let left = || budget.saturating_sub(begun_at.elapsed());
    let mut curve: Vec<(usize, Duration)> = Vec::new();
    let sizes = std::iter::successors(Some(1_usize), |rows| rows.checked_mul(2));
    for rows in sizes.take_while(|rows| *rows <= max_rows) {
        // The next size takes about twice as long at worst.
        let expected = curve.last().map_or(Duration::ZERO, |(_, took)| *took * 2);
        if !curve.is_empty() && expected >= left() {
            return curve;
        }
        let Some(mut fastest) = time(rows) else { return curve };
        // All others are held against one row.
        let again = if curve.is_empty() { MEASURED_RUNS - 1 } else { 0 };
        for _ in 0..again {
            if fastest * 2 >= left() {
                break;
            }
            fastest = time(rows).map_or(fastest, |took| took.min(fastest));
        }
        curve.push((rows, fastest));
    }
    // One round that changes nothing will do: while the budget lasts, nothing then stands on a single run.
    let (mut best, mut settled) = (best_rows(&curve, max_rows), false);
    while !settled && curve.iter().map(|(_, took)| *took).sum::<Duration>() < left() {
        for (rows, fastest) in &mut curve {
            *fastest = time(*rows).map_or(*fastest, |took| took.min(*fastest));
        }
        let before = std::mem::replace(&mut best, best_rows(&curve, max_rows));
        settled = agrees(best, before);
    }
    curve
}

/// Runs of one row that are measured in a row while the budget lasts; of larger sizes, which take
/// most of the time, one, because they are gone through again.
const MEASURED_RUNS: usize = 3;

/// Whether two sizes of runs are the same as far as doubling tells: between two measured sizes, where
/// the best one lies is a guess.
fn agrees(rows: usize, others: usize) -> bool {
    rows.next_power_of_two() == others.next_power_of_two()
}

/// How many rows a run should have, from the time of a run by rows.
fn best_rows(curve: &[(usize, Duration)], max_rows: usize) -> usize {
    let mut costs = CostModel::new(max_rows, AROUND_A_RUN);
    for (rows, took) in curve {
        costs.set(*rows, 1, *took);
    }
    costs.best_rows(1, max_rows)
}

/// What costs of example requests are known by ([`crate::cost`]).
pub fn length(spec: &ModelSpec, examples: Examples<'_>) -> usize {
    length_of(&example(spec, examples, 0), spec)
}

fn has_free_inner(input: &TensorSpec) -> bool {
    let mut dims = input.dims.iter().enumerate();
    dims.any(|(axis, dim)| dim.is_dynamic() && input.batch_axis != Some(axis))
}

fn run(
    executor: &mut dyn Executor,
    spec: &ModelSpec,
    rows: &[Vec<Tensor>],
) -> Result<Vec<Tensor>, ExecuteError> {
    if rows.iter().any(|row| row.len() < spec.inputs.len()) {
        return Err(ExecuteError::Runtime("inputs of that size are not made up".to_owned()));
    }
    let mut inputs = Vec::with_capacity(spec.inputs.len());
    for (index, input) in spec.inputs.iter().enumerate() {
        let parts = rows.iter().filter_map(|row| row.get(index)).collect();
        let joined =
            ragged::join(parts, input).map_err(|error| ExecuteError::Runtime(error.to_string()))?;
        inputs.push(joined);
    }
    // Nobody stops a warm-up run; the handle only readies the executor.
    drop(executor.stopper());
    executor.run(&inputs).map(|run| run.outputs)
}

/// Made-up inputs of one row, different for each seed but for the inputs that rows share.
fn example(spec: &ModelSpec, examples: Examples<'_>, seed: u64) -> Vec<Tensor> {
    let length = examples.length.or_else(|| padding::given_length(spec, examples));
    let tensor = |(index, input): (usize, &TensorSpec)| {
        let given = examples.given.get(&*input.name);
        let size = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) if input.batch_axis == Some(axis) => 1,
            Dim::Dynamic(_) if input.length_axis() == Some(axis) => {
                length.unwrap_or(examples.inner)
            }
            Dim::Dynamic(_) => {
                given.and_then(|dims| dims.get(axis)).copied().unwrap_or(examples.inner)
            }
        };
        let dims = input.dims.iter().enumerate().map(size).collect();
        let shape = Shape::new(dims).ok()?;
        if let Some(value) = examples.values.get(&*input.name) {
            let fill = Fill::parse(input.dtype, value).ok()?;
            return (shape.elements() <= MAX_MADE_UP).then(|| Tensor::filled(fill, shape).ok())?;
        }
        let seed = if input.batch_axis.is_some() { seed } else { 0 };
        made_up(input.dtype, shape, seed.wrapping_mul(31).wrapping_add(index as u64))
    };
    spec.inputs.iter().enumerate().filter_map(tensor).collect()
}

/// Numbers between 0 and 1, integers 0 or 1, so that they suit as indices, lengths and masks.
fn made_up(dtype: DataType, shape: Shape, seed: u64) -> Option<Tensor> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        // xorshift64: any generator will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u16::try_from(state >> 48).unwrap_or(0)
    };
    let count = shape.elements();
    if count > MAX_MADE_UP {
        return None;
    }
    if dtype == DataType::Bytes {
        let elements = (0..count).map(|_| Bytes::from((next() % 10).to_string())).collect();
        return Tensor::strings(shape, elements).ok();
    }
    let size = dtype.size_bytes()?;
    let mut bytes = Vec::with_capacity(count.checked_mul(size)?);
    for _ in 0..count {
        let number = next();
        let unit = f32::from(number) / f32::from(u16::MAX);
        match dtype {
            DataType::Fp32 => bytes.extend(unit.to_le_bytes()),
            DataType::Fp64 => bytes.extend(f64::from(unit).to_le_bytes()),
            DataType::Fp16 => bytes.extend(f16::from_f32(unit).to_le_bytes()),
            DataType::Bf16 => bytes.extend(bf16::from_f32(unit).to_le_bytes()),
            _ => bytes.extend((u64::from(number) & 1).to_le_bytes().iter().take(size)),
        }
    }
    Tensor::dense(dtype, shape, Bytes::from(bytes)).ok()
}

/// Most elements that are made up for one input: several images of the largest size that is tried
/// fit, while the same size on four or more dimensions at once does not.
const MAX_MADE_UP: usize = 1 << 26;

/// Equal but for rounding: batch size may change the order of sums.
fn close(left: &Tensor, right: &Tensor) -> bool {
    if left.dtype() != right.dtype() || left.shape() != right.shape() {
        return false;
    }
    let (Some(one), Some(other)) = (left.dense_bytes(), right.dense_bytes()) else {
        return left == right;
    };
    let numbers = |bytes: &Bytes| -> Option<Vec<f64>> {
        let size = left.dtype().size_bytes()?;
        bytes.chunks_exact(size).map(|chunk| as_number(left.dtype(), chunk)).collect()
    };
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => {
            // A number near zero is rounded like the larger ones beside it. Where all are small, a
            // difference that looks small need not be rounding.
            let sizes = one.iter().chain(&other).map(|number| number.abs());
            let largest = sizes.filter(|size| size.is_finite()).fold(0.0, f64::max);
            one.iter().zip(&other).all(|(a, b)| {
                let limit = TOLERANCE * a.abs().max(b.abs()).max((FLOOR * largest).min(1.0));
                let near = limit.is_finite() && (a - b).abs() <= limit;
                near || (a.is_nan() && b.is_nan()) || a.to_bits() == b.to_bits()
            })
        }
        _ => one == other,
    }
}

/// Relative difference that rounding explains. Scores of magika differ by 1e-2 on made-up bytes;
/// rows that mix differ by as much as they are.
const TOLERANCE: f64 = 2e-2;
/// Numbers near zero may differ by this many times the tolerance of the largest one.
const FLOOR: f64 = 5.0;

fn as_number(dtype: DataType, chunk: &[u8]) -> Option<f64> {
    match dtype {
        DataType::Fp32 => Some(f64::from(f32::from_le_bytes(chunk.try_into().ok()?))),
        DataType::Fp64 => Some(f64::from_le_bytes(chunk.try_into().ok()?)),
        DataType::Fp16 => Some(f16::from_le_bytes(chunk.try_into().ok()?).to_f64()),
        DataType::Bf16 => Some(bf16::from_le_bytes(chunk.try_into().ok()?).to_f64()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
