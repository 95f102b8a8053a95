//! ONNX Runtime: the only room that names it.
//!
//! Loads the library, reads signatures, opens sessions, runs them. Implements the worker's
//! [`ModelLoader`] and [`crate::worker::Executor`]; knows no queue, no message and no repository.
//! One session belongs to one executor and so to one thread, because running a session from two
//! threads is not safe with every provider. Each instance holds the weights of its model: ONNX
//! Runtime shares them between sessions only if they are handed over apart from the model's file.
//!
//! Source: ONNX Runtime C API documentation; `ort` on why running takes `&mut self`.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use crate::config::ModelConfig;
use crate::config::model::{GraphOptimization, Provider};
use crate::model::ModelSpec;
use crate::runtime::processors::Processors;
use crate::worker::{Executor, LoadError, LoadedModel, MakeExecutor, ModelLoader, ModelSource};

mod binding;
mod elements;
pub mod environment;
mod executor;
mod providers;
mod signature;
mod strings;

use executor::OnnxExecutor;
use providers::Placement;

/// Loads models with ONNX Runtime.
#[derive(Debug, Clone)]
pub struct OnnxLoader {
    environment: Environment,
    processors: Processors,
    runtime: String,
    always_bind: bool,
}

impl OnnxLoader {
    /// A loader on a loaded library.
    pub fn new(environment: Environment, processors: Processors) -> Self {
        let runtime = environment::version(Path::new(""));
        Self { environment, processors, runtime, always_bind: false }
    }

    /// Says which version the library is ([`environment::version`]): measured costs hold for that one.
    #[must_use]
    pub fn with_runtime(mut self, version: String) -> Self {
        self.runtime = version;
        self
    }

    /// Lets tensors reach the processor through an I/O binding, too, as they reach a GPU: slower,
    /// and the way to try that path on a machine without one.
    #[must_use]
    pub fn always_binding(mut self) -> Self {
        self.always_bind = true;
        self
    }
}

/// Looks whether any of the providers that all models are asked to run on can be had, so that a
/// server without its GPU does not start at all.
///
/// # Errors
/// What was looked for and what was found, when none can.
pub fn check_providers(config: &ModelConfig) -> Result<(), LoadError> {
    let mut reasons = Vec::new();
    for provider in &config.providers {
        let device_id = config.device_ids.first().copied().unwrap_or(0);
        match providers::check(*provider, device_id) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(LoadError::new(reasons.join("; ")))
}

impl ModelLoader for OnnxLoader {
    fn load(&self, source: &ModelSource, config: &ModelConfig) -> Result<LoadedModel, LoadError> {
        let placements = providers::place(config);
        let opener = Opener {
            environment: self.environment.clone(),
            source: source.clone(),
            config: config.clone(),
            always_bind: self.always_bind,
            intra_op_threads: config.intra_op_threads.unwrap_or_else(|| {
                let instances = NonZeroUsize::new(placements.len()).unwrap_or(NonZeroUsize::MIN);
                self.processors.intra_op_threads(instances)
            }),
        };
        let first = opener.open(&placements[0])?;
        let provider = first.provider.name().to_owned();
        let (runtime, threads) = (self.runtime.clone(), opener.intra_op_threads.get());
        let spec = signature::read(&first.session)
            .map_err(|reason| LoadError::new(format!("unsupported signature: {reason}")))?;
        let mut executors: Vec<Box<dyn Executor>> = Vec::with_capacity(placements.len());
        executors.push(Box::new(opener.executor(first, &spec, &placements[0])?));
        for placement in &placements[1..] {
            let opened = opener.open(placement)?;
            executors.push(Box::new(opener.executor(opened, &spec, placement)?));
        }
        let made_spec = spec.clone();
        let make: MakeExecutor = Arc::new(move |instance| {
            let placement = placements
                .get(instance)
                .ok_or_else(|| format!("there is no instance {instance}"))?;
            let opened = opener.open(placement).map_err(|error| error.to_string())?;
            let executor = opener.executor(opened, &made_spec, placement);
            Ok(Box::new(executor.map_err(|error| error.to_string())?))
        });
        Ok(LoadedModel { spec, provider, runtime, threads, executors, make })
    }
}

/// Opens the sessions of one model.
struct Opener {
    environment: Environment,
    source: ModelSource,
    config: ModelConfig,
    always_bind: bool,
    intra_op_threads: NonZeroUsize,
}

fn level(optimization: GraphOptimization) -> GraphOptimizationLevel {
    match optimization {
        GraphOptimization::All => GraphOptimizationLevel::All,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::Off => GraphOptimizationLevel::Disable,
    }
}

/// A session and what it runs on.
struct Opened {
    session: Session,
    provider: Provider,
}

impl Opener {
    /// Tries the providers in order; the last one's failure is the model's.
    fn open(&self, placement: &Placement) -> Result<Opened, LoadError> {
        let mut reasons = Vec::new();
        for (position, provider) in self.config.providers.iter().copied().enumerate() {
            match self.open_with(provider, placement) {
                Ok(session) => {
                    if position > 0 {
                        tracing::warn!(
                            model = %self.source.key.name,
                            version = self.source.key.version.number(),
                            provider = provider.name(),
                            reason = reasons.join("; "),
                            "runs on a fallback provider"
                        );
                    }
                    return Ok(Opened { session, provider });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        Err(LoadError::new(reasons.join("; ")))
    }

    fn open_with(&self, provider: Provider, placement: &Placement) -> Result<Session, String> {
        providers::check(provider, placement.device_id)?;
        let contents = self.source.pinned()?;
        let build = || -> Result<Session, ort::Error> {
            let builder = Session::builder(&self.environment)?
                .with_optimization_level(level(self.config.graph_optimization))?
                .with_intra_threads(self.intra_op_threads.get())?
                // Threads that spin between runs take the processor from everybody else.
                .with_intra_op_spinning(false)?;
            let mut builder = providers::register(builder, provider, placement, &self.config)?;
            match &contents {
                Some(contents) => builder.commit_from_memory(contents),
                None => builder.commit_from_file(&self.source.path),
            }
        };
        // The binding asserts what it believes of a model; a strange file must not end the loader.
        match catch_unwind(AssertUnwindSafe(build)) {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(providers::explain(provider, &error)),
            Err(_) => Err("ONNX Runtime's binding panicked while it read the model".to_owned()),
        }
    }

    fn executor(
        &self,
        opened: Opened,
        spec: &ModelSpec,
        placement: &Placement,
    ) -> Result<OnnxExecutor, LoadError> {
        let Opened { session, provider } = opened;
        OnnxExecutor::new(session, spec, provider, placement.device_id, self.always_bind)
            .map_err(|error| LoadError::new(format!("{}: {error}", self.source.key)))
    }
}
