//! Models that bear padding, and models that look at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::error::ExecuteError;
use crate::job::Stop;
use crate::model::ragged::Ragged;
use crate::model::{Dim, TensorSpec};
use crate::tensor::rows::{Joined, Pad};
use crate::tensor::{DataType, Fill, Shape};
use crate::worker::Run;

/// Tokens and mask of one row.
type Row = Vec<(f32, i64)>;

/// A model as a function of a row of any length. It keeps what it was asked.
struct Scripted<F> {
    model: F,
    seen: Vec<Vec<Row>>,
}

struct NoStop;

impl Stop for NoStop {
    fn stop(&self) {}
}

fn contents(input: &Joined<'_>) -> Vec<u8> {
    let mut bytes = vec![0; input.byte_len()];
    input.copy_to(&mut bytes);
    bytes
}

fn floats(values: &[f32], dims: Vec<i64>) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::dense(DataType::Fp32, Shape::new(dims).unwrap(), bytes.into()).unwrap()
}

impl<F: FnMut(&Row) -> Result<(f32, Vec<f32>), String> + Send> Executor for Scripted<F> {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(NoStop)
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let dims = inputs[0].shape().dims().to_vec();
        assert_eq!(inputs[1].shape().dims(), dims);
        let width = inputs[0].shape().dim(1).unwrap();
        let (tokens, mask) = (contents(&inputs[0]), contents(&inputs[1]));
        let token = tokens.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        let flag = mask.chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()));
        let all: Row = token.zip(flag).collect();
        let rows: Vec<Row> = all.chunks_exact(width).map(<[_]>::to_vec).collect();
        let (mut pooled, mut scores) = (Vec::new(), Vec::new());
        for row in &rows {
            let (one, each) = (self.model)(row).map_err(ExecuteError::Input)?;
            pooled.push(one);
            scores.extend(each);
        }
        self.seen.push(rows);
        let outputs = vec![floats(&pooled, vec![dims[0], 1]), floats(&scores, dims)];
        Ok(Run { outputs, joined_at: Instant::now() })
    }
}

/// `tokens` and `mask`, both padded, to `pooled` and `scores`, the latter cut.
fn spec() -> ModelSpec {
    let tensor = |name: &str, dtype, width: Dim, ragged| TensorSpec {
        name: name.into(),
        dtype,
        dims: vec![Dim::Dynamic(None), width],
        batch_axis: Some(0),
        reshape: None,
        ragged,
    };
    let pad = |dtype| Some(Ragged::Padded(Pad { axis: 1, fill: Fill::zero(dtype) }));
    let open = || Dim::Dynamic(None);
    ModelSpec {
        inputs: vec![
            tensor("tokens", DataType::Fp32, open(), pad(DataType::Fp32)),
            tensor("mask", DataType::Int64, open(), pad(DataType::Int64)),
        ],
        outputs: vec![
            tensor("pooled", DataType::Fp32, Dim::Fixed(1), None),
            tensor("scores", DataType::Fp32, open(), Some(Ragged::Cut { axis: 1 })),
        ],
    }
}

/// Mean of the tokens that the mask names, and each token less that mean.
fn honest(row: &Row) -> Result<(f32, Vec<f32>), String> {
    let named = || row.iter().filter(|(_, flag)| *flag == 1).map(|(token, _)| token);
    let count = u8::try_from(named().count()).unwrap();
    if count == 0 {
        return Err("a text without a word".to_owned());
    }
    let mean = named().sum::<f32>() / f32::from(count);
    Ok((mean, row.iter().map(|(token, _)| token - mean).collect()))
}

static NO_SHAPES: BTreeMap<String, Vec<i64>> = BTreeMap::new();
static NO_VALUES: BTreeMap<String, String> = BTreeMap::new();

fn tried(
    model: impl FnMut(&Row) -> Result<(f32, Vec<f32>), String> + Send,
    examples: Examples<'_>,
) -> (Independence, Vec<Vec<Row>>) {
    let mut executor = Scripted { model, seen: Vec::new() };
    let found = check_padding(&mut executor, &spec(), examples);
    (found, executor.seen)
}

fn outcome(model: impl FnMut(&Row) -> Result<(f32, Vec<f32>), String> + Send) -> Independence {
    tried(model, Examples::settled(&NO_SHAPES, &NO_VALUES)).0
}

#[test]
fn a_model_that_heeds_its_mask_bears_padding() {
    let (found, seen) = tried(honest, Examples::settled(&NO_SHAPES, &NO_VALUES));
    assert_eq!(found, Independence::Shown);
    let sizes: Vec<_> = seen.iter().map(|run| (run.len(), run[0].len())).collect();
    assert_eq!(sizes, [(1, 4), (1, 8), (2, 8), (1, 1), (1, 8), (2, 8)]);
    // The short row is the one that ran alone, and what follows is padding.
    assert_eq!(seen[2][0][..4], seen[0][0]);
    assert_eq!(seen[2][0][4..], [(0.0, 0); 4]);
    assert_eq!(seen[2][1], seen[1][0]);
}

#[test]
fn no_made_up_row_is_nothing_but_padding() {
    let (_, seen) = tried(honest, Examples::settled(&NO_SHAPES, &NO_VALUES));
    for row in seen.iter().flatten() {
        assert!(row.iter().any(|(_, flag)| *flag == 1), "{row:?}");
    }
}

#[test]
fn a_model_that_ignores_its_mask_is_refuted() {
    let mean_of_all = |row: &Row| {
        let count = f32::from(u8::try_from(row.len()).unwrap());
        let mean = row.iter().map(|(token, _)| token).sum::<f32>() / count;
        Ok((mean, vec![0.0; row.len()]))
    };
    let reason = "`pooled` of a row differs when 4 is padded to 8".to_owned();
    assert_eq!(outcome(mean_of_all), Independence::Refuted(reason));
    // Only what is cut off tells: tokens are read from the end.
    let backwards = |row: &Row| {
        let mut sum = 0.0;
        let sums = row.iter().rev().map(|(token, _)| {
            sum += token + 1.0;
            sum
        });
        let sums: Vec<f32> = sums.collect();
        Ok((0.0, sums.into_iter().rev().collect()))
    };
    let reason = "`scores` of a row differs when 4 is padded to 8".to_owned();
    assert_eq!(outcome(backwards), Independence::Refuted(reason));
}

#[test]
fn a_model_that_looks_only_back_needs_no_mask() {
    let forwards = |row: &Row| {
        let mut sum = 0.0;
        let sums = row.iter().map(|(token, _)| {
            sum += token;
            sum
        });
        Ok((0.0, sums.collect()))
    };
    assert_eq!(outcome(forwards), Independence::Shown);
}

#[test]
fn lengths_that_do_not_run_alone_say_nothing_while_another_does() {
    let at_least = |least: usize| {
        move |row: &Row| if row.len() < least { Err("short".to_owned()) } else { honest(row) }
    };
    assert_eq!(outcome(at_least(2)), Independence::Shown);
    assert_eq!(outcome(at_least(8)), Independence::Unknown("short".to_owned()));
    let odd =
        |row: &Row| if row.len().is_multiple_of(2) { Err("even".to_owned()) } else { honest(row) };
    assert_eq!(outcome(odd), Independence::Unknown("even".to_owned()));
    // Alone every length runs, together only short ones.
    let mut runs = 0;
    let weak = |row: &Row| {
        runs += 1;
        if runs > 2 { Err("too much".to_owned()) } else { honest(row) }
    };
    let reason = "two rows alone run, together not: too much".to_owned();
    assert_eq!(outcome(weak), Independence::Refuted(reason));
}

#[test]
fn settings_say_length_and_values_of_a_usual_request() {
    let shapes = BTreeMap::from([("tokens".to_owned(), vec![1, 20])]);
    let values = BTreeMap::from([("mask".to_owned(), "1".to_owned())]);
    let (found, seen) = tried(honest, Examples::settled(&shapes, &values));
    assert_eq!(found, Independence::Shown);
    let sizes: Vec<_> = seen.iter().map(|run| (run.len(), run[0].len())).collect();
    assert_eq!(sizes[..3], [(1, 10), (1, 20), (2, 20)]);
    assert!(seen[1][0].iter().all(|(_, flag)| *flag == 1));
    assert_eq!(seen[2][0].iter().filter(|(_, flag)| *flag == 1).count(), 10);
    // A length of one is padded to two.
    let shapes = BTreeMap::from([("mask".to_owned(), vec![1, 1])]);
    let (found, seen) = tried(honest, Examples::settled(&shapes, &values));
    assert_eq!(found, Independence::Shown);
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2][0].len(), 2);
}
