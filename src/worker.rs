//! Runs batches on threads of their own, one executor each.
//!
//! A worker takes a batch from its model's queue, joins the riders' tensors, runs, cuts the
//! outputs and answers each rider; then it takes the next. Nothing else runs on its thread and
//! nobody else touches its executor, so there is no lock around a run. A panic ends neither the
//! thread nor another batch: the executor is built anew.
//!
//! [`Executor`] is the seam to what really runs a model: the `onnx` room implements it, and tests
//! script it. Below: `batcher`. Above: `repository`, which starts and joins the pool.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::batcher::Batcher;
use crate::config::ModelConfig;
use crate::error::ExecuteError;
use crate::job::courier::Courier;
use crate::job::{Answer, Reply, Stop};
use crate::model::{ModelKey, ModelSpec};
use crate::runtime::digest::hex;
use crate::statistics::ModelStatistics;
use crate::telemetry::limit::LogLimit;
use crate::telemetry::metrics::ModelMetrics;
use crate::telemetry::traces::Traces;
use crate::tensor::Tensor;
use crate::tensor::rows::Joined;

use fitness::Fitness;

mod batch;
pub mod fitness;
mod order;
mod ragged;
mod rerun;
mod thread;
pub mod warmup;

/// Runs a model. One instance belongs to one thread.
pub trait Executor: Send {
    /// A handle that ends the runs of the next batch. Asked for before each batch; runs that repeat
    /// parts of it share the handle.
    fn stopper(&mut self) -> Arc<dyn Stop>;

    /// Runs the model on one joined tensor per input, in the signature's order, and returns one
    /// tensor per output, in the signature's order.
    ///
    /// # Errors
    /// [`ExecuteError`]; the executor can be used again afterwards.
    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError>;
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// One tensor per output, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// When the inputs were joined and the model began.
    pub joined_at: Instant,
}

/// Builds one executor; called at load and again after a panic.
pub type MakeExecutor = Arc<dyn Fn(usize) -> Result<Box<dyn Executor>, String> + Send + Sync>;

/// Where a model version comes from.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// Name and version.
    pub key: ModelKey,
    /// The `.onnx` file.
    pub path: PathBuf,
    /// What its SHA-256 must be, in hexadecimal, if somebody has said so.
    pub sha256: Option<String>,
}

impl ModelSource {
    /// The contents of the file, where a sum is said: what was compared is what is loaded.
    ///
    /// # Errors
    /// A sentence with both sums, or why the file cannot be read.
    pub fn pinned(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(wanted) = &self.sha256 else { return Ok(None) };
        let contents = std::fs::read(&self.path).map_err(|error| error.to_string())?;
        let found = hex(&Sha256::digest(&contents));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        same_sum(&name, wanted, &found).map(|()| Some(contents))
    }
}

/// Holds the SHA-256 of a file against what the list in its model's folder says.
///
/// # Errors
/// A sentence with both.
pub fn same_sum(name: &str, wanted: &str, found: &str) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{name} has the SHA-256 {found}, SHA256SUMS says {wanted}"))
}

/// A model that is ready to run.
pub struct LoadedModel {
    /// Signature as the model declares it, without batch axes.
    pub spec: ModelSpec,
    /// What it runs on, for people.
    pub provider: String,
    /// Name and version of what runs it.
    pub runtime: String,
    /// Threads inside a run.
    pub threads: usize,
    /// One executor per instance.
    pub executors: Vec<Box<dyn Executor>>,
    /// Builds an executor anew.
    pub make: MakeExecutor,
}

/// Why a model version cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl LoadError {
    /// An error with the reason that people read.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Makes models runnable. The seam that lets the whole server run on scripted models.
pub trait ModelLoader: Send + Sync {
    /// Loads one version. Blocks; called on the repository's own thread, one model at a time.
    ///
    /// # Errors
    /// [`LoadError`], with a reason that names what was found.
    fn load(&self, source: &ModelSource, config: &ModelConfig) -> Result<LoadedModel, LoadError>;
}

/// Threads of one model version.
pub struct WorkerPool {
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Closed by the last thread that ends.
    ended: watch::Receiver<()>,
}

/// What all threads of a pool share.
pub(crate) struct PoolShared {
    pub(crate) model: String,
    pub(crate) version: u64,
    pub(crate) spec: ModelSpec,
    pub(crate) batcher: Batcher,
    pub(crate) statistics: Arc<ModelStatistics>,
    pub(crate) metrics: ModelMetrics,
    pub(crate) traces: Traces,
    pub(crate) courier: Courier,
    pub(crate) fitness: Arc<Fitness>,
    /// For lines about runs that failed, which clients can provoke.
    pub(crate) failure_lines: LogLimit,
    pub(crate) make: MakeExecutor,
    pub(crate) rerun_budget: rerun::RerunBudget,
    /// Where answers wait for those of earlier batches, if the model asks for it.
    pub(crate) in_order: Option<order::InOrder>,
    /// Threads that have not ended.
    pub(crate) at_work: AtomicUsize,
}

/// What a pool is made of.
pub struct PoolParts {
    /// Name for threads and logs.
    pub model: String,
    /// Version for logs.
    pub version: u64,
    /// Signature, with batch axes.
    pub spec: ModelSpec,
    /// The queue to serve.
    pub batcher: Batcher,
    /// Where runs are counted.
    pub statistics: Arc<ModelStatistics>,
    /// Where runs are counted for scrapers.
    pub metrics: ModelMetrics,
    /// Where runs are recorded.
    pub traces: Traces,
    /// Who brings answers to their callers.
    pub courier: Courier,
    /// Where faults are noted.
    pub fitness: Arc<Fitness>,
    /// Whether answers go out in the order in which their batches were cut.
    pub in_order: bool,
    /// One executor per thread.
    pub executors: Vec<Box<dyn Executor>>,
    /// Builds an executor anew after a panic.
    pub make: MakeExecutor,
}

impl WorkerPool {
    /// Starts one thread per executor.
    ///
    /// # Errors
    /// The system's error if a thread cannot be started; the threads that were end by themselves.
    pub fn spawn(parts: PoolParts) -> std::io::Result<Self> {
        let (alive, ended) = watch::channel(());
        let shared = Arc::new(PoolShared {
            model: parts.model,
            version: parts.version,
            spec: parts.spec,
            batcher: parts.batcher,
            statistics: parts.statistics,
            metrics: parts.metrics,
            traces: parts.traces,
            courier: parts.courier,
            fitness: parts.fitness,
            failure_lines: LogLimit::default(),
            make: parts.make,
            rerun_budget: rerun::RerunBudget::default(),
            in_order: parts.in_order.then(order::InOrder::default),
            at_work: parts.executors.len().into(),
        });
        let alive = Arc::new(alive);
        let mut threads = Vec::with_capacity(parts.executors.len());
        for (instance, executor) in parts.executors.into_iter().enumerate() {
            let (own, alive) = (Arc::clone(&shared), Arc::clone(&alive));
            // Linux shows the first 15 bytes; the model's name comes before the number.
            let name = format!("infer-{}-{instance}", shared.model);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                thread::work(&own, instance, executor);
                drop(alive);
            });
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.batcher.drain();
                    return Err(error);
                }
            }
        }
        Ok(Self { threads, ended })
    }

    /// Closed by the last thread that ends.
    pub fn ended(&self) -> watch::Receiver<()> {
        self.ended.clone()
    }

    /// Waits until all threads have ended, which they do once their queue is drained.
    pub async fn join(mut self) {
        // The only outcome is the error that the last sender is gone.
        while self.ended.changed().await.is_ok() {}
        for thread in self.threads {
            // Every thread is past its last statement; a panic in it was logged there.
            drop(thread.join());
        }
    }

    /// Number of threads.
    pub fn instances(&self) -> usize {
        self.threads.len()
    }
}

impl PoolShared {
    /// Answers riders of a batch whose run took so long, now or when it is the batch's turn.
    fn deliver(&self, batch: u64, answers: Vec<(Reply, Answer)>, took: Duration) {
        let answers = match &self.in_order {
            Some(order) => order.pass(batch, answers),
            None => answers,
        };
        self.courier.deliver(answers, took);
    }

    /// Every rider of a batch was answered or dropped.
    fn batch_over(&self, batch: u64) {
        if let Some(order) = &self.in_order {
            // They have waited long enough to leave at once.
            self.courier.deliver(order.over(batch), Duration::MAX);
        }
    }
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool").field("instances", &self.threads.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PoolParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolParts").field("model", &self.model).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Longest time that a worker waits between two attempts to build an executor anew.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
