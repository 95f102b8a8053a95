//! First runs of a model before it serves, and what is decided by them: whether rows are independent,
//! whether padding is borne, what runs cost.
//!
//! Runs on the repository's thread, or on that of a command. Below: [`crate::worker::warmup`], which
//! makes requests up, runs them and compares their answers. A model that is to serve and one that is
//! profiled take the same way.

use super::costs::{self, CostOrigin};
use crate::config::ModelConfig;
use crate::config::model::Batching;
use crate::cost::file::MeasuredPoint;
use crate::cost::{AROUND_A_RUN, CostModel};
use crate::model::{ModelKey, ModelSpec};
use crate::worker::Executor;
use crate::worker::warmup::padding::check_padding;
use crate::worker::warmup::{self, Examples, Independence};

/// First runs. Returns the signature, without rows unless requests may share a run, and what runs
/// cost, whose most rows are those that a run may have. That is measured only where it is not known.
pub(super) fn warm_up(
    key: &ModelKey,
    spec: ModelSpec,
    executors: &mut [Box<dyn Executor>],
    config: &ModelConfig,
    known: Option<Vec<MeasuredPoint>>,
) -> (ModelSpec, CostModel, CostOrigin) {
    let tried = run_each(&spec, executors, config);
    if let Err(reason) = &tried {
        tracing::debug!(model = %key.name, version = key.version.number(), reason, "not warmed up");
    }
    let (spec, most_rows) = shared_runs(key, spec, executors, tried.clone(), config);
    let spec = keep_padding(key, spec, executors, &tried, config);
    let mut costs = CostModel::new(most_rows, AROUND_A_RUN);
    if let Some(known) = known.filter(|known| costs::cover(key, known, most_rows)) {
        for point in &known {
            point.tell(&mut costs);
        }
        if let Ok(examples) = tried {
            costs.presume(warmup::length(&spec, examples));
        }
        return (spec, costs, CostOrigin::File);
    }
    if let (Ok(examples), Some(executor)) = (tried, executors.first_mut()) {
        let length = warmup::length(&spec, examples);
        let curve = warmup::measure(executor.as_mut(), &spec, examples, most_rows, config.warmup);
        for (rows, took) in &curve {
            costs.set(*rows, length, *took);
        }
        tracing::debug!(model = %key.name, version = key.version.number(), ?curve, best = costs.usual_rows(), "measured");
    }
    let origin = if costs.is_empty() { CostOrigin::Nothing } else { CostOrigin::FirstRuns };
    (spec, costs, origin)
}

/// Decides whether requests may share a run. Returns the signature, without rows if not, and the
/// most rows that a run may have.
pub(super) fn shared_runs(
    key: &ModelKey,
    spec: ModelSpec,
    executors: &mut [Box<dyn Executor>],
    tried: Result<Examples<'_>, String>,
    config: &ModelConfig,
) -> (ModelSpec, usize) {
    if !spec.has_rows() || config.batching == Batching::Off {
        return (spec, 1);
    }
    let independence = match (tried, executors.first_mut()) {
        (Ok(examples), Some(executor)) => {
            warmup::check_independence(executor.as_mut(), &spec, examples)
        }
        (Err(reason), _) => Independence::Unknown(reason),
        (Ok(_), None) => Independence::Unknown("there is no instance".to_owned()),
    };
    match independence {
        Independence::Shown => (spec, config.max_batch_size),
        Independence::Refuted(reason) if config.batching == Batching::Fixed => {
            tracing::warn!(model = %key.name, version = key.version.number(), reason, "rows are batched as configured, although");
            (spec, config.max_batch_size)
        }
        Independence::Unknown(_) if config.batching == Batching::Fixed => {
            (spec, config.max_batch_size)
        }
        Independence::Refuted(reason) => {
            tracing::warn!(model = %key.name, version = key.version.number(), reason, "rows are not independent; batching is off");
            (spec.without_rows(), 1)
        }
        // Rows of strangers that influence each other would be wrong without a sign of it.
        Independence::Unknown(reason) => {
            tracing::warn!(
                model = %key.name, version = key.version.number(),
                reason,
                "whether rows are independent could not be tried, so batching is off; \
                 batching = \"fixed\" says that they are"
            );
            (spec.without_rows(), 1)
        }
    }
}

/// The signature with its padding, if first runs show that padded rows get the answers that they
/// get alone; without, if not, so that only requests of equal shape share a run.
pub(super) fn keep_padding(
    key: &ModelKey,
    spec: ModelSpec,
    executors: &mut [Box<dyn Executor>],
    tried: &Result<Examples<'_>, String>,
    config: &ModelConfig,
) -> ModelSpec {
    if !spec.is_ragged() {
        return spec;
    }
    if !spec.has_rows() {
        return spec.without_padding();
    }
    let padding = match (tried, executors.first_mut()) {
        (Ok(examples), Some(executor)) => check_padding(executor.as_mut(), &spec, *examples),
        (Err(reason), _) => Independence::Unknown(reason.clone()),
        (Ok(_), None) => Independence::Unknown("there is no instance".to_owned()),
    };
    match padding {
        Independence::Shown => {
            tracing::info!(model = %key.name, version = key.version.number(), "requests of different length share runs, padded");
            spec
        }
        Independence::Refuted(reason) if config.batching == Batching::Fixed => {
            tracing::warn!(model = %key.name, version = key.version.number(), reason, "rows are padded as configured, although");
            spec
        }
        Independence::Unknown(_) if config.batching == Batching::Fixed => spec,
        Independence::Refuted(reason) => {
            tracing::warn!(
                model = %key.name, version = key.version.number(),
                reason,
                "padding changes answers, so only requests of equal shape share a run"
            );
            spec.without_padding()
        }
        Independence::Unknown(reason) => {
            tracing::warn!(
                model = %key.name, version = key.version.number(),
                reason,
                "whether padding changes answers could not be tried, so only requests of equal \
                 shape share a run; example_shape and example_value say what runs"
            );
            spec.without_padding()
        }
    }
}

/// Runs every instance once. Returns the shapes that worked, or why none did.
pub(super) fn run_each<'a>(
    spec: &ModelSpec,
    executors: &mut [Box<dyn Executor>],
    config: &'a ModelConfig,
) -> Result<Examples<'a>, String> {
    if config.warmup.is_zero() {
        return Err("warmup_ms is 0".to_owned());
    }
    let settled = Examples::settled(&config.examples, &config.example_values);
    let mut tried = Err("there is no instance".to_owned());
    for executor in executors {
        let ran = warmup::run_once(executor.as_mut(), spec, settled);
        if ran.is_ok() || tried.is_err() {
            tried = ran.map_err(|error| format!("made-up inputs do not run: {error}"));
        }
    }
    tried
}
