//! Every metric: name, unit, labels, buckets.
//!
//! Each room is handed the part that it counts. Base units, `_total` for counters; labels only
//! from loaded models and fixed sets, so no client can add a series; every series of a model is
//! there, at zero, from the moment that the model is. On the path of a request nothing is looked up,
//! locked or allocated here: each room holds what it counts.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use self::access::AccessMetrics;
pub use self::cache::CacheMetrics;
use self::calls::CallMetrics;
pub use self::connections::{ConnectionMetrics, Counted, Refused};
use self::families::{
    Families, LOADED, ModelLabels, OutcomeLabels, PHASES, PhaseLabels, ReasonLabels,
};
use self::histogram::{Histogram, Seconds};
pub use self::models::{ModelFacts, STATES};
use self::models::{Models, TritonNames, Watched};
pub use self::outcome::Outcome;
use self::process::ProcessMetrics;
pub use self::text::Format;
pub use self::tls::TlsMetrics;
use crate::batcher::Batcher;
use crate::batcher::policy::CutReason;
use crate::cache::ResponseCache;
use crate::job::ByteBudget;
use crate::model::ModelKey;
use crate::statistics::{Padding, RunTimes};

mod access;
mod cache;
pub mod calls;
mod connections;
mod exemplars;
mod families;
mod histogram;
mod models;
mod outcome;
mod process;
mod text;
mod tls;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// All metrics of a server.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Of what is this server's own, by its prefix.
    registry: Arc<Mutex<Registry>>,
    /// Of what others call the same.
    plain: Arc<Mutex<Registry>>,
    families: Arc<Families>,
    models: Models,
    calls: Arc<OnceLock<CallMetrics>>,
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
        let models = Models::default();
        registry.register_collector(Box::new(models.clone()));
        families.memory_limit.set(i64::try_from(budget.limit()).unwrap_or(i64::MAX));
        let mut plain = Registry::default();
        plain.register_collector(Box::new(ProcessMetrics::new()));
        Self {
            registry: Arc::new(Mutex::new(registry)),
            plain: Arc::new(Mutex::new(plain)),
            families: Arc::new(families),
            models,
            calls: Arc::default(),
        }
    }

    fn plain(&self) -> MutexGuard<'_, Registry> {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the counts of models under Triton's names, too. To be called once.
    pub fn with_triton_names(&self) {
        self.plain().register_collector(Box::new(TritonNames(self.models.clone())));
    }

    /// The part that one model version counts, all its series at zero.
    pub fn model(&self, key: &ModelKey, batcher: &Batcher, facts: ModelFacts) -> ModelMetrics {
        let labels = ModelLabels::of(key);
        let families = Arc::clone(&self.families);
        let outcome = |outcome| {
            let ModelLabels { model, version } = labels.clone();
            families.requests.get_or_create_owned(&OutcomeLabels { model, version, outcome })
        };
        let reason = |reason: CutReason| {
            let ModelLabels { model, version } = labels.clone();
            let labels = ReasonLabels { model, version, reason: reason.label() };
            (
                families.batches.get_or_create_owned(&labels),
                families.waits.get_or_create_owned(&labels),
            )
        };
        let phase = |phase| {
            let ModelLabels { model, version } = labels.clone();
            families.phases.get_or_create_owned(&PhaseLabels { model, version, phase })
        };
        let outcomes = Outcome::ALL.map(|each| outcome(each.label()));
        let histograms = [
            ("onnxd_queue_seconds", families.queue.get_or_create_owned(&labels)),
            ("onnxd_execution_seconds", families.execution.get_or_create_owned(&labels)),
            ("onnxd_request_seconds", families.request.get_or_create_owned(&labels)),
        ];
        self.models.watch(Watched {
            histograms,
            labels: labels.clone(),
            batcher: batcher.clone(),
            facts,
            outcomes: outcomes.clone(),
        });
        ModelMetrics {
            outcomes,
            batches: CutReason::ALL.map(reason),
            phases: PHASES.map(phase),
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
            load: families.load.get_or_create_owned(&labels),
        }
    }

    /// A version was loaded, or could not be.
    pub fn loaded(&self, ok: bool) {
        let result = LOADED[usize::from(!ok)];
        self.families.loads.get_or_create(&ResultLabels { result }).inc();
    }

    /// The states that versions are in, by their names in [`STATES`], for the next scrape.
    pub fn set_states(&self, states: Vec<(ModelKey, &'static str)>) {
        self.models.set_states(states);
    }

    /// The part that the cache of a model version counts; without one there are no such series.
    pub fn cache(
        &self,
        key: &ModelKey,
        cache: Option<&Arc<ResponseCache>>,
    ) -> Option<CacheMetrics> {
        let labels = ModelLabels::of(key);
        if cache.is_none() {
            self.families.caches.forget(&labels);
        }
        cache.map(|cache| self.families.caches.model(&labels, cache))
    }

    /// Drops all series of a model version that is gone.
    pub fn forget(&self, key: &ModelKey) {
        let labels = ModelLabels::of(key);
        self.models.forget(&labels);
        self.families.forget(&labels);
    }

    /// Everything as text. `budget` is read now.
    ///
    /// # Errors
    /// A label that cannot be written, which is a fault of this file.
    pub fn encode(&self, budget: &ByteBudget, format: Format) -> Result<String, std::fmt::Error> {
        self.families.memory.set(i64::try_from(budget.taken()).unwrap_or(i64::MAX));
        self.families.caches.read();
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode_registry(&mut text, &registry)?;
        drop(registry);
        encode_registry(&mut text, &self.plain())?;
        encode_eof(&mut text)?;
        Ok(match format {
            Format::OpenMetrics => self.with_exemplars(text),
            Format::Prometheus => text::to_prometheus(&text, models::is_triton_counter),
        })
    }
}

/// What one model version counts.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    batches: [(Counter, Seconds); CutReason::ALL.len()],
    phases: [Seconds; PHASES.len()],
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
    load: Gauge<f64, AtomicU64>,
}

impl ModelMetrics {
    /// Loading and warming up took so long.
    pub fn load_took(&self, took: Duration) {
        self.load.set(took.as_secs_f64());
    }

    /// A request ended `took` after it arrived.
    pub fn ended(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].inc();
        if outcome == Outcome::Ok {
            self.request.observe(took);
        }
    }

    /// How many requests ended in each way so far.
    pub fn endings(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL.into_iter().zip(self.outcomes.iter().map(Counter::get))
    }

    /// A request whose trace is recorded was answered `took` after it arrived.
    pub fn answered(&self, took: Duration, trace: &SpanContext) {
        self.request.exemplify(took, trace);
    }

    /// A request whose trace is recorded waited so long, and rode a run that took so long.
    pub fn rode(&self, waited: Duration, run: Duration, trace: &SpanContext) {
        self.queue.exemplify(waited, trace);
        self.execution.exemplify(run, trace);
    }

    /// A batch was cut, so long after its first rider came.
    pub fn cut(&self, reason: CutReason, waited: Duration) {
        let (count, wait) = &self.batches[reason as usize];
        count.inc();
        wait.add(waited);
    }

    /// A run ended well: what it had in inputs that can be padded.
    pub fn padded(&self, padding: &Padding) {
        self.elements.inc_by(padding.elements as u64);
        self.padded.inc_by(padding.padded as u64);
    }

    /// A run ended well: its rows, each rider's time in the queue, its times.
    pub fn ran(&self, rows: usize, riders: &[Duration], times: &RunTimes) {
        let RunTimes { input, infer, output } = *times;
        self.rows.inc_by(rows as u64);
        self.batch_rows.add(rows as u64);
        self.execution.observe(input + infer + output);
        for (phase, took) in self.phases.iter().zip([input, infer, output]) {
            phase.add(took);
        }
        for queued in riders {
            self.queue.observe(*queued);
        }
    }
}
