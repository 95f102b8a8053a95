//! Whole requests through the library: from a decoded message to the answer's message, with the
//! repository, the queue and a worker's thread, without a socket and without ONNX Runtime.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onnxd::access::Caller;
use onnxd::config::{Config, ModelConfig, Origin};
use onnxd::deadline::Deadline;
use onnxd::error::ExecuteError;
use onnxd::grpc::inference::{Call, Inference, Sender};
use onnxd::job::courier::Courier;
use onnxd::job::{ByteBudget, Stop};
use onnxd::repository::{Repository, control};
use onnxd::telemetry::metrics::Metrics;
use onnxd::tensor::rows::Joined;
use onnxd::worker::{Executor, LoadError, LoadedModel, ModelLoader, ModelSource, Run};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Problem, SCORES, Unstoppable, message, spec, zeros};

/// Name of the model.
pub(crate) const MODEL: &str = "tiny";
/// Callers that ask at the same time.
const CALLERS: usize = 64;

/// A model without a runtime: joins its inputs as a real one does, and answers zeros.
struct Zeros;

impl Executor for Zeros {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(Unstoppable)
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let joined_at = Instant::now();
        let input = &inputs[0];
        let mut bytes = vec![0; input.byte_len()];
        input.copy_to(&mut bytes);
        let rows = input.shape().dim(0).unwrap_or(0);
        let output =
            zeros(rows, SCORES).map_err(|error| ExecuteError::Runtime(error.to_string()))?;
        Ok(Run { outputs: vec![output], joined_at })
    }
}

impl ModelLoader for Zeros {
    fn load(&self, _: &ModelSource, _: &ModelConfig) -> Result<LoadedModel, LoadError> {
        Ok(LoadedModel {
            spec: spec(None),
            provider: "none".to_owned(),
            runtime: "none".to_owned(),
            threads: 1,
            executors: vec![Box::new(Self)],
            make: Arc::new(|_| Ok(Box::new(Self))),
        })
    }
}

/// A repository that serves the model.
async fn inference(folder: &Path) -> Result<Inference, Problem> {
    let version = folder.join(MODEL).join("1");
    std::fs::create_dir_all(&version)?;
    std::fs::write(version.join("model.onnx"), "")?;
    // Nothing is measured beforehand: estimates would follow from how fast valgrind is today.
    let given = |key: &str| match key {
        "batching" => Some(("fixed".to_owned(), Origin::Flag)),
        "warmup_ms" => Some(("0".to_owned(), Origin::Flag)),
        _ => None,
    };
    let config = Config::resolve(given)?;
    let budget = ByteBudget::new(config.request_memory_bytes);
    let metrics = Metrics::new("0", "0", &budget);
    let repository =
        Repository::new(Arc::new(Zeros), config.model, budget, metrics, Courier::start());
    let repository = Arc::new(repository);
    let (_, loaded) =
        control::start(Arc::clone(&repository), folder.to_owned(), config.model_control)?;
    loaded.await??;
    Ok(Inference::new(repository, config.requests))
}

async fn ask(inference: &Inference) -> Result<(), Problem> {
    let arrived_at = Instant::now();
    let deadline = Deadline::after(arrived_at, Duration::from_hours(1));
    let sender = Sender { tenant: 1, caller: Caller::anyone() };
    inference
        .infer(message(), Call { arrived_at, deadline, sender, request_id: None, trace: None })
        .await?;
    Ok(())
}

fn on_runtime<F>(work: impl FnOnce(Inference) -> F) -> Result<(), Problem>
where
    F: Future<Output = Result<(), Problem>>,
{
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { work(inference(folder.path()).await?).await })
}

/// One caller, who waits for each answer.
pub(crate) fn one_by_one(rounds: usize) -> Result<(), Problem> {
    on_runtime(|inference| async move {
        for _ in 0..rounds {
            ask(&inference).await?;
        }
        Ok(())
    })
}

/// Callers who ask together, again when all have their answers; a round is one request.
pub(crate) fn together(rounds: usize) -> Result<(), Problem> {
    on_runtime(|inference| async move {
        for _ in 0..rounds.div_ceil(CALLERS) {
            let mut callers = JoinSet::new();
            for _ in 0..CALLERS {
                let inference = inference.clone();
                callers.spawn(async move { ask(&inference).await.map_err(|e| e.to_string()) });
            }
            while let Some(ended) = callers.join_next().await {
                ended??;
            }
        }
        Ok(())
    })
}
