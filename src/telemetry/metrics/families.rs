//! What is counted per model version, and under which names.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::cache::CacheFamilies;
use super::histogram::{Histogram, Seconds};
use super::{Outcome, ResultLabels};
use crate::batcher::policy::CutReason;

/// Labels of everything that is counted per model version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) model: String,
    pub(super) version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PhaseLabels {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) phase: &'static str,
}

/// Phases of a run: joining, running, cutting.
pub(super) const PHASES: [&str; 3] = ["input", "infer", "output"];

/// How loading a version can end.
pub(super) const LOADED: [&str; 2] = ["ok", "failed"];

#[derive(Debug)]
pub(super) struct Families {
    pub(super) requests: Family<OutcomeLabels, Counter>,
    pub(super) batches: Family<ReasonLabels, Counter>,
    pub(super) waits: Family<ReasonLabels, Seconds>,
    pub(super) phases: Family<PhaseLabels, Seconds>,
    pub(super) rows: Family<ModelLabels, Counter>,
    pub(super) elements: Family<ModelLabels, Counter>,
    pub(super) padded: Family<ModelLabels, Counter>,
    pub(super) panics: Family<ModelLabels, Counter>,
    pub(super) failed_runs: Family<ModelLabels, Counter>,
    pub(super) stopped: Family<ModelLabels, Counter>,
    pub(super) batch_rows: Family<ModelLabels, Histogram, fn() -> Histogram>,
    pub(super) queue: Family<ModelLabels, Histogram, fn() -> Histogram>,
    pub(super) execution: Family<ModelLabels, Histogram, fn() -> Histogram>,
    pub(super) request: Family<ModelLabels, Histogram, fn() -> Histogram>,
    pub(super) ready: Family<ModelLabels, Gauge>,
    pub(super) hung: Family<ModelLabels, Gauge>,
    pub(super) load: Family<ModelLabels, Gauge<f64, AtomicU64>>,
    pub(super) loads: Family<ResultLabels, Counter>,
    pub(super) memory: Gauge,
    pub(super) memory_limit: Gauge,
    pub(super) caches: CacheFamilies,
}

impl Families {
    pub(super) fn new() -> Self {
        Self {
            requests: Family::default(),
            batches: Family::default(),
            waits: Family::default(),
            phases: Family::default(),
            rows: Family::default(),
            elements: Family::default(),
            padded: Family::default(),
            panics: Family::default(),
            failed_runs: Family::default(),
            stopped: Family::default(),
            batch_rows: Family::new_with_constructor(Histogram::rows),
            queue: Family::new_with_constructor(Histogram::seconds),
            execution: Family::new_with_constructor(Histogram::seconds),
            request: Family::new_with_constructor(Histogram::seconds),
            ready: Family::default(),
            hung: Family::default(),
            load: Family::default(),
            loads: Family::default(),
            memory: Gauge::default(),
            memory_limit: Gauge::default(),
            caches: CacheFamilies::default(),
        }
    }

    pub(super) fn forget(&self, labels: &ModelLabels) {
        let ModelLabels { model, version } = labels;
        for outcome in Outcome::ALL.map(Outcome::label) {
            let (model, version) = (model.clone(), *version);
            self.requests.remove(&OutcomeLabels { model, version, outcome });
        }
        for reason in CutReason::ALL.map(CutReason::label) {
            let (model, version) = (model.clone(), *version);
            let labels = ReasonLabels { model, version, reason };
            self.batches.remove(&labels);
            self.waits.remove(&labels);
        }
        for phase in PHASES {
            let (model, version) = (model.clone(), *version);
            self.phases.remove(&PhaseLabels { model, version, phase });
        }
        let faults = [&self.panics, &self.failed_runs, &self.stopped];
        for family in [&self.rows, &self.elements, &self.padded].into_iter().chain(faults) {
            family.remove(labels);
        }
        for family in [&self.batch_rows, &self.queue, &self.execution, &self.request] {
            family.remove(labels);
        }
        for family in [&self.ready, &self.hung] {
            family.remove(labels);
        }
        self.load.remove(labels);
        self.caches.forget(labels);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry;
        let requests = self.requests.clone();
        r.register("requests", "Inference requests by how they ended", requests);
        r.register("batches", "Runs by why they were cut", self.batches.clone());
        let text = "Time from the arrival of a run's first rider to its cut, by why it was cut";
        r.register("batch_wait_seconds", text, self.waits.clone());
        r.register("run_seconds", "Time of runs: joining, running, cutting", self.phases.clone());
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
        r.register("model_ready", "1 while the model version serves", self.ready.clone());
        let text = "What loading and warming up took";
        r.register("model_load_seconds", text, self.load.clone());
        for result in LOADED {
            drop(self.loads.get_or_create(&ResultLabels { result }));
        }
        let loads = self.loads.clone();
        r.register("model_loads", "Versions that were loaded, or could not be", loads);
        r.register("hung_workers", "Runs that have lasted too long", self.hung.clone());
        let memory = self.memory.clone();
        r.register("request_memory_bytes", "Memory that requests hold", memory);
        let limit = self.memory_limit.clone();
        r.register("request_memory_limit_bytes", "Memory that requests may hold", limit);
        self.caches.register(r);
    }
}
