//! One model version that serves: signature, queue, workers, counts.
//!
//! Starting it decides what the signature leaves open: which axes hold the rows, whether rows are
//! independent, how many of them are worth running together. Stopping it drains the queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::costs::CostOrigin;
use super::first_runs::warm_up;
use super::labels::Labels;
use super::layout::{CONFIG_PBTXT, MODEL_TOML};
use crate::batcher::policy::{BatchPolicy, queue_jobs};
use crate::batcher::{Batcher, QueueLimits};
use crate::cache::ResponseCache;
use crate::config::ModelConfig;
use crate::config::model::Batching;
use crate::cost::file::MeasuredPoint;
use crate::job::ByteBudget;
use crate::job::courier::Courier;
use crate::model::declared::Declared;
use crate::model::{ModelKey, ModelSpec, ragged};
use crate::statistics::ModelStatistics;
use crate::telemetry::metrics::{CacheMetrics, Metrics, ModelFacts, ModelMetrics};
use crate::telemetry::traces::Traces;
use crate::worker::fitness::Fitness;
use crate::worker::warmup;
use crate::worker::{LoadError, LoadedModel, PoolParts, WorkerPool};

/// One model version that serves.
#[derive(Debug)]
pub struct ServedModel {
    /// Name and version.
    pub key: ModelKey,
    /// Signature with batch axes.
    pub spec: ModelSpec,
    /// Its settings.
    pub config: ModelConfig,
    /// What it runs on, for people.
    pub provider: String,
    labels: Labels,
    /// Its queue.
    pub batcher: Batcher,
    /// Its kept answers, if it is to keep any or to share runs.
    pub caching: Option<Arc<Caching>>,
    /// Where it knew from, at first, what its runs cost.
    pub costs_from: CostOrigin,
    /// Its counts, as clients ask for them.
    pub statistics: Arc<ModelStatistics>,
    /// Its counts, as scrapers ask for them.
    pub metrics: ModelMetrics,
    /// Whether it can be trusted with requests.
    pub fitness: Arc<Fitness>,
    /// Workers, until they are joined.
    pool: Mutex<Option<WorkerPool>>,
    ended: watch::Receiver<()>,
    instances: usize,
}

/// Answers that are kept, and the counts of their use.
#[derive(Debug)]
pub struct Caching {
    /// The answers.
    pub cache: Arc<ResponseCache>,
    /// The counts.
    pub metrics: CacheMetrics,
}

impl Caching {
    fn new(key: &ModelKey, config: &ModelConfig, around: &Surroundings<'_>) -> Option<Arc<Self>> {
        let cache = ResponseCache::new(config, around.budget).map(Arc::new);
        let metrics = around.metrics.cache(key, cache.as_ref());
        Some(Arc::new(Self { cache: cache?, metrics: metrics? }))
    }
}

/// Whoever found it has been answered: nothing waits, and the workers end.
impl Drop for ServedModel {
    fn drop(&mut self) {
        self.batcher.drain();
    }
}

/// What all models of a server share.
pub(super) struct Surroundings<'a> {
    pub(super) budget: &'a ByteBudget,
    pub(super) metrics: &'a Metrics,
    pub(super) courier: &'a Courier,
    pub(super) traces: Traces,
}

/// Time between the end of a run and its answers' way out, roughly.
const ANSWERING: Duration = Duration::from_micros(200);
/// A batch is cut this long before its earliest deadline, if it waits at all.
const DEADLINE_MARGIN: Duration = Duration::from_millis(1);

impl ServedModel {
    /// Warms the model up and starts its workers; what its runs cost is measured unless it is known.
    /// Blocks; called on the repository's thread.
    ///
    /// # Errors
    /// [`LoadError`] if settings and signature contradict each other or threads cannot be started.
    pub(super) fn start(
        key: ModelKey,
        (mut loaded, labels, known): (LoadedModel, Labels, Option<Vec<MeasuredPoint>>),
        config: ModelConfig,
        around: &Surroundings<'_>,
    ) -> Result<Self, LoadError> {
        let Surroundings { budget, metrics, courier, .. } = *around;
        let begun_at = Instant::now();
        let (spec, reason) = signature(&key, loaded.spec.clone(), &config)?;
        check_labels(&labels, &spec)?;
        if let Some(reason) = &reason {
            tracing::info!(model = %key.name, version = key.version.number(), reason, "requests run one at a time");
        }
        let (spec, costs, costs_from) = warm_up(&key, spec, &mut loaded.executors, &config, known);
        let max_rows = costs.most_rows();
        let policy = batch_policy(&config, max_rows);
        let instances = loaded.executors.len();
        let max_jobs = queue_jobs(config.max_queue_jobs, instances, max_rows);
        let (bytes, default_priority) = (budget.clone(), config.default_priority);
        let limits = QueueLimits { max_jobs, bytes, default_priority };
        let batcher = Batcher::new(policy, limits, instances, costs);
        let (statistics, fitness) = (Arc::<ModelStatistics>::default(), Arc::<Fitness>::default());
        let model_metrics = metrics.model(&key, &batcher, facts(&loaded, &config, &statistics));
        let pool = WorkerPool::spawn(PoolParts {
            model: key.name.to_string(),
            version: key.version.number(),
            traces: around.traces.clone(),
            spec: spec.clone(),
            batcher: batcher.clone(),
            statistics: Arc::clone(&statistics),
            metrics: model_metrics.clone(),
            courier: courier.clone(),
            fitness: Arc::clone(&fitness),
            in_order: config.preserve_ordering,
            executors: loaded.executors,
            make: loaded.make,
        })
        .map_err(|error| LoadError::new(format!("cannot start worker threads: {error}")))?;
        model_metrics.ready.set(1);
        tracing::info!(
            model = %key.name, version = key.version.number(),
            provider = loaded.provider,
            instances,
            max_rows_per_run = batcher.rows_per_run(),
            costs = costs_from.name(),
            warmup_ms = begun_at.elapsed().as_millis(),
            "serving"
        );
        Ok(Self {
            caching: Caching::new(&key, &config, around),
            key,
            spec,
            config,
            provider: loaded.provider,
            labels,
            batcher,
            costs_from,
            statistics,
            metrics: model_metrics,
            fitness,
            ended: pool.ended(),
            pool: Mutex::new(Some(pool)),
            instances,
        })
    }

    /// Most rows in one request. A model without rows takes one request at a time, of any size.
    pub fn max_rows(&self) -> usize {
        let config = &self.config;
        match config.batching {
            _ if !self.spec.has_rows() => usize::MAX,
            Batching::Off => config.max_batch_size.min(config.max_request_rows),
            Batching::Auto | Batching::Fixed => config.max_request_rows,
        }
    }

    /// Names of the values of an output; empty if it has none.
    pub fn labels(&self, output: &str) -> &[String] {
        self.labels.get(output).map_or(&[], Vec::as_slice)
    }

    /// Number of workers.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Closed when all workers have ended.
    pub(super) fn ended(&self) -> watch::Receiver<()> {
        self.ended.clone()
    }

    /// Refuses new requests and lets the workers run what waits.
    pub(super) fn drain(&self) {
        self.metrics.ready.set(0);
        self.batcher.drain();
    }

    /// Waits until the workers have ended. Only the first caller waits.
    pub(super) async fn join(&self) {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pool) = pool {
            pool.join().await;
        }
    }
}

fn check_labels(labels: &Labels, spec: &ModelSpec) -> Result<(), LoadError> {
    let is_output = |name: &str| spec.outputs.iter().any(|output| *output.name == *name);
    match labels.keys().find(|name| !is_output(name)) {
        Some(unknown) => Err(LoadError::new(format!("labels for `{unknown}`, which is no output"))),
        None => Ok(()),
    }
}

/// What metrics tell of a version beside its counts.
fn facts(
    loaded: &LoadedModel,
    config: &ModelConfig,
    statistics: &Arc<ModelStatistics>,
) -> ModelFacts {
    ModelFacts {
        provider: loaded.provider.clone(),
        runtime: loaded.runtime.clone(),
        batching: config.batching.name(),
        keeps_answers: config.response_cache_bytes > 0,
        statistics: Arc::clone(statistics),
    }
}

fn batch_policy(config: &ModelConfig, max_rows: usize) -> BatchPolicy {
    let preferred = config.preferred_batch_sizes.iter().filter(|rows| **rows <= max_rows);
    BatchPolicy {
        max_rows,
        measured: config.batching == Batching::Auto,
        splits: config.batching != Batching::Off,
        preferred: match config.batching {
            Batching::Fixed => preferred.copied().collect(),
            Batching::Auto | Batching::Off => Arc::default(),
        },
        max_queue_delay: config.max_queue_delay,
        deadline_margin: DEADLINE_MARGIN,
        answering: ANSWERING,
    }
}

/// The signature with what the settings say of it, and why requests share no run if they do not.
pub(super) fn signature(
    key: &ModelKey,
    spec: ModelSpec,
    config: &ModelConfig,
) -> Result<(ModelSpec, Option<String>), LoadError> {
    let declared = &config.declared;
    let file = if *declared == Declared::default() { MODEL_TOML } else { CONFIG_PBTXT };
    let (spec, reason) = declared
        .apply(spec, &config.axes)
        .and_then(|(spec, reason)| {
            let wrong_values = warmup::wrong_values(&spec, &config.example_values);
            match ragged::assign(spec, &config.ragged) {
                Ok(spec) if wrong_values.is_empty() => Ok((spec, reason)),
                Ok(_) => Err(wrong_values),
                Err(problems) => Err([problems, wrong_values].concat()),
            }
        })
        .map_err(|problems| LoadError::new(format!("{file}: {}", problems.join("\n"))))?;
    let is_listed = |name: &str| declared.outputs.iter().any(|output| output.name == name);
    let mut unlisted = spec.outputs.iter().filter(|output| !is_listed(&output.name));
    if let Some(output) = unlisted.next().filter(|_| !declared.outputs.is_empty()) {
        let output = &output.name;
        tracing::warn!(model = %key.name, version = key.version.number(), %output, "is served, though {file} does not list it");
    }
    Ok((spec, reason))
}
