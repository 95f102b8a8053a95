//! Every metric: name, unit, labels, buckets.
//!
//! Each room is handed the part that it counts. Base units, `_total` for counters; labels only
//! from loaded models and fixed sets, so no client can add a series; every series of a model is
//! there, at zero, from the moment that the model is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use self::access::AccessMetrics;
use self::cache::CacheFamilies;
pub use self::cache::CacheMetrics;
pub use self::connections::{ConnectionMetrics, Counted, Refused};
pub use self::outcome::Outcome;
pub use self::tls::TlsMetrics;
use crate::batcher::Batcher;
use crate::batcher::policy::CutReason;
use crate::cache::ResponseCache;
use crate::job::ByteBudget;
use crate::model::ModelKey;
use crate::statistics::{Padding, RunTimes};

mod access;
mod cache;
mod connections;
mod outcome;
mod tls;

/// Labels of everything that is counted per model version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    model: String,
    version: u64,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    model: String,
    version: u64,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// All metrics of a server.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    families: Arc<Families>,
    queues: Arc<Mutex<Vec<(ModelLabels, Batcher)>>>,
}

#[derive(Debug)]
struct Families {
    requests: Family<OutcomeLabels, Counter>,
    batches: Family<ReasonLabels, Counter>,
    rows: Family<ModelLabels, Counter>,
    elements: Family<ModelLabels, Counter>,
    padded: Family<ModelLabels, Counter>,
    panics: Family<ModelLabels, Counter>,
    failed_runs: Family<ModelLabels, Counter>,
    stopped: Family<ModelLabels, Counter>,
    batch_rows: Family<ModelLabels, Histogram, fn() -> Histogram>,
    queue: Family<ModelLabels, Histogram, fn() -> Histogram>,
    execution: Family<ModelLabels, Histogram, fn() -> Histogram>,
    request: Family<ModelLabels, Histogram, fn() -> Histogram>,
    queue_jobs: Family<ModelLabels, Gauge>,
    running: Family<ModelLabels, Gauge>,
    ready: Family<ModelLabels, Gauge>,
    hung: Family<ModelLabels, Gauge>,
    memory: Gauge,
    memory_limit: Gauge,
    caches: CacheFamilies,
}

/// From 100 µs to 10 s, about 2.5 times apart: finer than any alert, coarser than any noise.
fn seconds() -> Histogram {
    Histogram::new([
        1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0,
    ])
}

/// Powers of two: what batches are usually limited to.
fn rows() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
}

impl Metrics {
    /// Registers everything. `version` is the server's, `runtime` ONNX Runtime's.
    pub fn new(version: &str, runtime: &str, budget: &ByteBudget) -> Self {
        let families = Families::new();
        let mut registry = Registry::with_prefix("onnxd");
        let build: Family<Vec<(String, String)>, Gauge> = Family::default();
        let labels = [("version", version), ("onnxruntime", runtime)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        build.get_or_create(&labels).set(1);
        registry.register("build_info", "Versions, as labels; always 1", build);
        families.register(&mut registry);
        families.memory_limit.set(i64::try_from(budget.limit()).unwrap_or(i64::MAX));
        Self {
            registry: Arc::new(Mutex::new(registry)),
            families: Arc::new(families),
            queues: Arc::default(),
        }
    }

    /// The part that one model version counts, all its series at zero.
    pub fn model(&self, key: &ModelKey, batcher: &Batcher) -> ModelMetrics {
        let labels = ModelLabels { model: key.name.to_string(), version: key.version.number() };
        let families = Arc::clone(&self.families);
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|(known, _)| *known != labels);
        queues.push((labels.clone(), batcher.clone()));
        drop(queues);
        let outcome = |outcome| {
            let ModelLabels { model, version } = labels.clone();
            families.requests.get_or_create_owned(&OutcomeLabels { model, version, outcome })
        };
        let reason = |reason: CutReason| {
            let ModelLabels { model, version } = labels.clone();
            let labels = ReasonLabels { model, version, reason: reason.label() };
            families.batches.get_or_create_owned(&labels)
        };
        ModelMetrics {
            outcomes: Outcome::ALL.map(|each| outcome(each.label())),
            batches: CutReason::ALL.map(reason),
            rows: families.rows.get_or_create_owned(&labels),
            elements: families.elements.get_or_create_owned(&labels),
            padded: families.padded.get_or_create_owned(&labels),
            panics: families.panics.get_or_create_owned(&labels),
            failed_runs: families.failed_runs.get_or_create_owned(&labels),
            stopped: families.stopped.get_or_create_owned(&labels),
            batch_rows: families.batch_rows.get_or_create_owned(&labels),
            queue: families.queue.get_or_create_owned(&labels),
            execution: families.execution.get_or_create_owned(&labels),
            request: families.request.get_or_create_owned(&labels),
            ready: families.ready.get_or_create_owned(&labels),
            hung: families.hung.get_or_create_owned(&labels),
        }
    }

    /// The part that the cache of a model version counts; without one there are no such series.
    pub fn cache(
        &self,
        key: &ModelKey,
        cache: Option<&Arc<ResponseCache>>,
    ) -> Option<CacheMetrics> {
        let labels = ModelLabels { model: key.name.to_string(), version: key.version.number() };
        if cache.is_none() {
            self.families.caches.forget(&labels);
        }
        cache.map(|cache| self.families.caches.model(&labels, cache))
    }

    /// Drops all series of a model version that is gone.
    pub fn forget(&self, key: &ModelKey) {
        let labels = ModelLabels { model: key.name.to_string(), version: key.version.number() };
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|(known, _)| *known != labels);
        drop(queues);
        self.families.forget(&labels);
    }

    /// Everything as OpenMetrics text. `budget` is read now.
    ///
    /// # Errors
    /// A label that cannot be written, which is a fault of this file.
    pub fn encode(&self, budget: &ByteBudget) -> Result<String, std::fmt::Error> {
        self.families.memory.set(i64::try_from(budget.taken()).unwrap_or(i64::MAX));
        for (labels, batcher) in self.queues.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let depth = batcher.depth();
            let set = |family: &Family<ModelLabels, Gauge>, value: usize| {
                family.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.families.queue_jobs, depth.jobs);
            set(&self.families.running, depth.running);
        }
        self.families.caches.read();
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Families {
    fn new() -> Self {
        Self {
            requests: Family::default(),
            batches: Family::default(),
            rows: Family::default(),
            elements: Family::default(),
            padded: Family::default(),
            panics: Family::default(),
            failed_runs: Family::default(),
            stopped: Family::default(),
            batch_rows: Family::new_with_constructor(rows),
            queue: Family::new_with_constructor(seconds),
            execution: Family::new_with_constructor(seconds),
            request: Family::new_with_constructor(seconds),
            queue_jobs: Family::default(),
            running: Family::default(),
            ready: Family::default(),
            hung: Family::default(),
            memory: Gauge::default(),
            memory_limit: Gauge::default(),
            caches: CacheFamilies::default(),
        }
    }

    fn forget(&self, labels: &ModelLabels) {
        let ModelLabels { model, version } = labels;
        for outcome in Outcome::ALL.map(Outcome::label) {
            let (model, version) = (model.clone(), *version);
            self.requests.remove(&OutcomeLabels { model, version, outcome });
        }
        for reason in CutReason::ALL.map(CutReason::label) {
            let (model, version) = (model.clone(), *version);
            self.batches.remove(&ReasonLabels { model, version, reason });
        }
        let faults = [&self.panics, &self.failed_runs, &self.stopped];
        for family in [&self.rows, &self.elements, &self.padded].into_iter().chain(faults) {
            family.remove(labels);
        }
        for family in [&self.batch_rows, &self.queue, &self.execution, &self.request] {
            family.remove(labels);
        }
        for family in [&self.queue_jobs, &self.running, &self.ready, &self.hung] {
            family.remove(labels);
        }
        self.caches.forget(labels);
    }

    fn register(&self, registry: &mut Registry) {
        let r = registry;
        let requests = self.requests.clone();
        r.register("requests", "Inference requests by how they ended", requests);
        r.register("batches", "Runs by why they were cut", self.batches.clone());
        r.register("rows", "Rows that were run", self.rows.clone());
        let elements = self.elements.clone();
        r.register("batch_elements", "Elements run in inputs that can be padded", elements);
        r.register("padded_elements", "Those of them that are padding", self.padded.clone());
        r.register("executor_panics", "Panics in an executor", self.panics.clone());
        r.register("failed_runs", "Runs that failed for their riders", self.failed_runs.clone());
        r.register("stopped_runs", "Runs that nobody waited for", self.stopped.clone());
        r.register("batch_rows", "Rows in a run", self.batch_rows.clone());
        let queue = self.queue.clone();
        r.register("queue_seconds", "Time from arrival to the start of the run", queue);
        let execution = self.execution.clone();
        r.register("execution_seconds", "Time of a run: join, run and cut", execution);
        let request = self.request.clone();
        r.register("request_seconds", "Time from arrival to answer", request);
        r.register("queue_jobs", "Requests that wait", self.queue_jobs.clone());
        r.register("running", "Runs under way", self.running.clone());
        r.register("model_ready", "1 while the model version serves", self.ready.clone());
        r.register("hung_workers", "Runs that have lasted too long", self.hung.clone());
        let memory = self.memory.clone();
        r.register("request_memory_bytes", "Memory that requests hold", memory);
        let limit = self.memory_limit.clone();
        r.register("request_memory_limit_bytes", "Memory that requests may hold", limit);
        self.caches.register(r);
    }
}

/// What one model version counts.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    batches: [Counter; CutReason::ALL.len()],
    rows: Counter,
    elements: Counter,
    padded: Counter,
    pub(crate) panics: Counter,
    pub(crate) failed_runs: Counter,
    pub(crate) stopped: Counter,
    batch_rows: Histogram,
    queue: Histogram,
    execution: Histogram,
    request: Histogram,
    pub(crate) ready: Gauge,
    pub(crate) hung: Gauge,
}

impl ModelMetrics {
    /// A request ended `took` after it arrived.
    pub fn ended(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].inc();
        if outcome == Outcome::Ok {
            self.request.observe(took.as_secs_f64());
        }
    }

    /// How many requests ended in each way so far.
    pub fn endings(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL.into_iter().zip(self.outcomes.iter().map(Counter::get))
    }

    /// A batch was cut.
    pub fn cut(&self, reason: CutReason) {
        self.batches[reason as usize].inc();
    }

    /// A run ended well: what it had in inputs that can be padded.
    pub fn padded(&self, padding: &Padding) {
        self.elements.inc_by(padding.elements as u64);
        self.padded.inc_by(padding.padded as u64);
    }

    /// A run ended well: its rows, each rider's time in the queue, its times.
    #[expect(clippy::cast_precision_loss, reason = "no batch has 2^52 rows")]
    pub fn ran(&self, rows: usize, riders: &[Duration], times: &RunTimes) {
        self.rows.inc_by(rows as u64);
        self.batch_rows.observe(rows as f64);
        self.execution.observe((times.input + times.infer + times.output).as_secs_f64());
        for queued in riders {
            self.queue.observe(queued.as_secs_f64());
        }
    }
}
