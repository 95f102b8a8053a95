//! Metrics that are read from the models when somebody scrapes, instead of being counted: how full
//! queues are, how busy workers, which states versions are in. And, where somebody moves over from
//! Triton, the sums of the statistics under Triton's names.
//!
//! Source: Triton, "Metrics" (names, meaning, microseconds as integers); statistics extension.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::exemplars::Exemplars;
use super::histogram::{Histogram, write_seconds};
use super::{ModelLabels, Outcome};
use crate::batcher::Batcher;
use crate::model::ModelKey;
use crate::statistics::{ModelStatistics, Snapshot, Tally};

/// States that a model version can be in, as labels.
pub const STATES: [&str; 6] = ["loading", "ready", "unfit", "failed", "unloading", "unloaded"];

/// What is told of a model version as it is.
#[derive(Debug, Clone, Default)]
pub struct ModelFacts {
    /// What it runs on.
    pub provider: String,
    /// What runs it.
    pub runtime: String,
    /// How its requests are put together.
    pub batching: &'static str,
    /// Whether its answers are kept.
    pub keeps_answers: bool,
    /// Its counts, as clients ask for them.
    pub statistics: Arc<ModelStatistics>,
}

/// A loaded version.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) labels: ModelLabels,
    pub(super) batcher: Batcher,
    pub(super) facts: ModelFacts,
    pub(super) outcomes: [Counter; Outcome::ALL.len()],
    pub(super) histograms: [(&'static str, Histogram); 3],
}

#[derive(Debug, Default)]
struct Known {
    loaded: Vec<Watched>,
    states: Vec<(ModelLabels, &'static str)>,
}

/// The versions that are looked at. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Models(Arc<Mutex<Known>>);

/// The same under Triton's names.
#[derive(Debug)]
pub(super) struct TritonNames(pub(super) Models);

impl Models {
    /// Looks at a version from now on, instead of one that had its key.
    pub(super) fn watch(&self, model: Watched) {
        let mut known = self.known();
        known.loaded.retain(|other| other.labels != model.labels);
        known.loaded.push(model);
    }

    pub(super) fn forget(&self, labels: &ModelLabels) {
        self.known().loaded.retain(|model| model.labels != *labels);
    }

    /// The states that versions are in now, by their names in [`STATES`].
    pub(super) fn set_states(&self, states: Vec<(ModelKey, &'static str)>) {
        let states = states.into_iter().map(|(key, state)| (ModelLabels::of(&key), state));
        self.known().states = states.collect();
    }

    /// What their values are exemplified by.
    pub(super) fn exemplars(&self, found: &mut Exemplars) {
        for Watched { labels, histograms, .. } in &self.known().loaded {
            let ModelLabels { model, version } = labels;
            let version = version.to_string();
            for (name, histogram) in histograms {
                let labels = [("model", model.as_str()), ("version", &version)];
                histogram.exemplars(|bound, exemplar| found.put(name, bound, &labels, exemplar));
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Value<T> = fn(&T) -> u64;

/// Writes one number of each model.
fn write<'a, T: 'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    models: impl Iterator<Item = (&'a ModelLabels, &'a T)>,
    value: Value<T>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, model) in models {
        family.encode_family(labels)?.encode_gauge(&value(model))?;
    }
    Ok(())
}

fn count(value: usize) -> u64 {
    value as u64
}

impl Collector for Models {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (known, now) = (self.known(), Instant::now());
        let all = || known.loaded.iter().map(|model| (&model.labels, &model.batcher));
        let gauges: [(&str, &str, Value<Batcher>); 5] = [
            ("queue_jobs", "Requests that wait.", |queue| count(queue.depth().jobs)),
            ("queue_rows", "Rows that wait.", |queue| count(queue.depth().rows)),
            ("queue_limit_jobs", "Requests that may wait.", |queue| count(queue.max_queue_jobs())),
            ("running", "Runs under way.", |queue| count(queue.depth().running)),
            ("instances", "Workers.", |queue| count(queue.instances())),
        ];
        for (name, help, value) in gauges {
            write(&mut encoder, (name, help, MetricType::Gauge), all(), value)?;
        }
        let (name, help) = ("busy_seconds", "Time that an instance had a batch.");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, batcher) in all() {
            for (instance, busy) in batcher.busy(now).into_iter().enumerate() {
                let labels = (labels.pairs(), [("instance", instance.to_string())]);
                write_seconds(family.encode_family(&labels)?, busy)?;
            }
        }
        let (name, help) = ("model_info", "What runs the model version; always 1.");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for Watched { labels, facts, .. } in &known.loaded {
            let facts = [
                ("provider", facts.provider.as_str()),
                ("runtime", facts.runtime.as_str()),
                ("batching", facts.batching),
            ];
            family.encode_family(&(labels.pairs(), facts))?.encode_gauge(&1_u64)?;
        }
        let (name, help) = ("model_state", "1 for the state that the version is in, else 0.");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, state) in &known.states {
            for each in STATES {
                let value = u64::from(each == *state);
                let labels = (labels.pairs(), [("state", each)]);
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// Why requests failed, as Triton tells it.
const REASONS: [&str; 4] = ["REJECTED", "CANCELED", "BACKEND", "OTHER"];

fn reason(outcome: Outcome) -> Option<&'static str> {
    Some(match outcome {
        Outcome::Ok => return None,
        Outcome::Full
        | Outcome::Congested
        | Outcome::TooLittleTime
        | Outcome::LateAtArrival
        | Outcome::LateInQueue => "REJECTED",
        Outcome::Cancelled => "CANCELED",
        Outcome::Failed => "BACKEND",
        Outcome::Invalid | Outcome::LateInExecution | Outcome::Unavailable => "OTHER",
    })
}

fn micros(tally: Tally) -> u64 {
    tally.nanos / 1000
}

const SUMS: [(&str, &str, Value<Snapshot>); 8] = [
    ("nv_inference_request_success", "Requests answered.", |sums| sums.success.count),
    ("nv_inference_count", "Rows run.", |sums| sums.inferences),
    ("nv_inference_exec_count", "Runs.", |sums| sums.executions),
    ("nv_inference_request_duration_us", "Time of requests.", |sums| micros(sums.success)),
    ("nv_inference_queue_duration_us", "Of it, waiting.", |sums| micros(sums.queue)),
    ("nv_inference_compute_input_duration_us", "Joining.", |sums| micros(sums.compute_input)),
    ("nv_inference_compute_infer_duration_us", "Running.", |sums| micros(sums.compute_infer)),
    ("nv_inference_compute_output_duration_us", "Cutting.", |sums| micros(sums.compute_output)),
];
const FAILURES: &str = "nv_inference_request_failure";
const PENDING: &str = "nv_inference_pending_request_count";
const CACHE_SUMS: [(&str, &str, Value<Snapshot>); 4] = [
    ("nv_cache_num_hits_per_model", "Answers kept and found.", |sums| sums.cache_hit.count),
    ("nv_cache_num_misses_per_model", "Answers not found.", |sums| sums.cache_miss.count),
    ("nv_cache_hit_duration_per_model", "Finding.", |sums| micros(sums.cache_hit)),
    ("nv_cache_miss_duration_per_model", "Not finding.", |sums| micros(sums.cache_miss)),
];

/// Whether what Triton calls so is a counter. OpenMetrics wants counters to end on `_total`, so there
/// they have no type.
pub(super) fn is_triton_counter(name: &str) -> bool {
    name.starts_with("nv_") && name != PENDING
}

impl Collector for TritonNames {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let known = self.0.known();
        let read = |model: &Watched| {
            (model.labels.clone(), model.facts.statistics.snapshot(), model.facts.keeps_answers)
        };
        let all: Vec<(ModelLabels, Snapshot, bool)> = known.loaded.iter().map(read).collect();
        let sums = || all.iter().map(|(labels, sums, _)| (labels, sums));
        for (name, help, value) in SUMS {
            write(&mut encoder, (name, help, MetricType::Unknown), sums(), value)?;
        }
        let help = "Requests not answered.";
        let mut family = encoder.encode_descriptor(FAILURES, help, None, MetricType::Unknown)?;
        for Watched { labels, outcomes, .. } in &known.loaded {
            for each in REASONS {
                let outcomes = Outcome::ALL.into_iter().zip(outcomes);
                let failed = outcomes.filter(|(outcome, _)| reason(*outcome) == Some(each));
                let failed: u64 = failed.map(|(_, counter)| counter.get()).sum();
                let labels = (labels.pairs(), [("reason", each)]);
                family.encode_family(&labels)?.encode_gauge(&failed)?;
            }
        }
        let queues = known.loaded.iter().map(|model| (&model.labels, &model.batcher));
        let described = (PENDING, "Requests that wait.", MetricType::Unknown);
        write::<Batcher>(&mut encoder, described, queues, |queue| count(queue.depth().jobs))?;
        if !all.iter().any(|(_, _, keeps_answers)| *keeps_answers) {
            return Ok(());
        }
        let kept =
            || all.iter().filter(|(_, _, keeps)| *keeps).map(|(labels, sums, _)| (labels, sums));
        for (name, help, value) in CACHE_SUMS {
            write(&mut encoder, (name, help, MetricType::Unknown), kept(), value)?;
        }
        Ok(())
    }
}

impl ModelLabels {
    pub(super) fn of(key: &ModelKey) -> Self {
        Self { model: key.name.to_string(), version: key.version.number() }
    }

    /// To be written with others behind them.
    fn pairs(&self) -> impl EncodeLabelSet {
        [("model", self.model.clone()), ("version", self.version.to_string())]
    }
}
