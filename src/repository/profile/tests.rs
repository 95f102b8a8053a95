//! What is measured follows from what would be served.

use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::config::{Config, Origin};
use crate::error::ExecuteError;
use crate::job::Stop;
use crate::model::{Dim, ModelName, ModelVersion, TensorSpec};
use crate::tensor::rows::Joined;
use crate::tensor::{DataType, Tensor};
use crate::worker::{Executor, Run};

struct NoStop;

impl Stop for NoStop {
    fn stop(&self) {}
}

/// Gives its input back, or one row's values for every row.
struct Echo {
    mixes: bool,
}

impl Executor for Echo {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(NoStop)
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let input = &inputs[0];
        let mut bytes = vec![0; input.byte_len()];
        input.copy_to(&mut bytes);
        if self.mixes {
            let row = bytes.len() / input.shape().dim(0).unwrap();
            let first = bytes[..row].to_vec();
            bytes.chunks_exact_mut(row).for_each(|row| row.copy_from_slice(&first));
        }
        let output = Tensor::dense(DataType::Fp32, input.shape().clone(), bytes.into()).unwrap();
        Ok(Run { outputs: vec![output], joined_at: Instant::now() })
    }
}

/// A model of rows of any width.
fn loaded(mixes: bool) -> LoadedModel {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DataType::Fp32,
        dims: vec![Dim::Dynamic(Some("batch".into())), Dim::Dynamic(None)],
        batch_axis: None,
        reshape: None,
        ragged: None,
    };
    LoadedModel {
        spec: ModelSpec { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
        provider: "script".to_owned(),
        runtime: "script 1".to_owned(),
        threads: 1,
        executors: vec![Box::new(Echo { mixes })],
        make: Arc::new(|_| Err("never".to_owned())),
    }
}

/// Every size runs at least once: the first pass is let through, whatever it takes.
const ENOUGH: Duration = Duration::from_secs(1);

fn found(
    mut loaded: LoadedModel,
    settings: &[(&'static str, &'static str)],
    asked: &[usize],
) -> Result<Profile, LoadError> {
    let raw = |key: &str| {
        let given = settings.iter().find(|(known, _)| *known == key);
        given.map(|(_, text)| ((*text).to_owned(), Origin::Flag))
    };
    let config = Config::resolve(raw).unwrap().model;
    let key = ModelKey { name: ModelName::new("a").unwrap(), version: ModelVersion::FIRST };
    let plan = Plan { lengths: asked.to_vec(), budget: ENOUGH };
    profile(&key, &mut loaded, &config, &plan, &mut |_| {})
}

fn rows(profile: &Profile, length: usize) -> Vec<usize> {
    profile.of_length(length).map(|cell| cell.rows).collect()
}

#[test]
fn rows_and_lengths_around_the_example_are_measured() {
    let profile = found(loaded(false), &[("max_batch_size", "5")], &[]).unwrap();
    assert_eq!(profile.lengths(), [2, 4, 8, 16]);
    assert_eq!(rows(&profile, 16), [1, 2, 3, 4, 5]);
    assert_eq!((profile.most_rows, profile.notes.len()), (5, 0));
    let points = profile.points();
    assert_eq!(points.len(), 20);
    let sizes: Vec<_> = points.iter().map(|it| (it.length.get(), it.rows.get())).collect();
    assert!(sizes.is_sorted(), "{sizes:?}");
    assert!((1..=5).contains(&profile.best_rows(8)));
}

#[test]
fn lengths_that_are_asked_for_are_measured() {
    let few = [("max_batch_size", "2")];
    let profile = found(loaded(false), &few, &[64, 3, 64]).unwrap();
    assert_eq!(profile.lengths(), [3, 64]);
    let mut fixed = loaded(false);
    for tensor in fixed.spec.inputs.iter_mut().chain(&mut fixed.spec.outputs) {
        tensor.dims[1] = Dim::Fixed(4);
    }
    let refusal = found(fixed, &few, &[8]).unwrap_err().to_string();
    assert!(refusal.contains("no inner dimension is open"), "{refusal}");
}

#[test]
fn rows_that_would_not_share_a_run_are_measured_alone() {
    let profile = found(loaded(true), &[], &[8]).unwrap();
    assert_eq!((rows(&profile, 8), profile.most_rows), (vec![1], 1));
    assert!(profile.notes[0].contains("not independent"), "{:?}", profile.notes);
    let profile = found(loaded(true), &[("batching", "fixed"), ("max_batch_size", "2")], &[8]);
    assert_eq!(rows(&profile.unwrap(), 8), [1, 2], "as configured");
    let off = [("batching", "off"), ("max_batch_size", "3")];
    let profile = found(loaded(false), &off, &[8]).unwrap();
    assert_eq!(rows(&profile, 8), [1, 2, 3], "one request may have them");
    assert!(profile.notes[0].contains("batching is off"), "{:?}", profile.notes);
}

#[test]
fn without_first_runs_nothing_is_measured() {
    let refusal = found(loaded(false), &[("warmup_ms", "0")], &[]).unwrap_err();
    assert_eq!(refusal.to_string(), "cannot be measured: warmup_ms is 0");
}
