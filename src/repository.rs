//! The models that are served now.
//!
//! Readers take a snapshot without a lock; one thread at a time makes the next one. What is loaded
//! and when is decided in [`control`], on a thread of its own. A version that is replaced leaves the
//! snapshot first and ends when the last request that found it there has been answered. Below:
//! `worker`, `config`. It names neither ONNX Runtime nor a message. `grpc` and `app` use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Manifests, ModelConfig};
use crate::error::PredictError;
use crate::job::ByteBudget;
use crate::job::courier::Courier;
use crate::model::{ModelKey, ModelName, ModelVersion, quoted};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::worker::fitness::Unfit;
use crate::worker::{LoadError, ModelLoader, ModelSource};

pub mod control;
pub mod costs;
mod first_runs;
pub mod integrity;
mod labels;
pub mod layout;
mod marks;
pub mod profile;
pub mod served;
pub mod settings;
mod state;
pub mod trial;
pub mod version_policy;
pub mod watchdog;

use layout::{FoundModel, LayoutError};
use served::Surroundings;
pub use served::{Caching, ServedModel};
use settings::read_config;
pub use state::{IndexEntry, State};

/// The models that are served now, and those that are not, with the reason.
#[derive(Debug)]
pub struct Repository {
    snapshot: ArcSwap<Snapshot>,
    /// Held while the next snapshot is made.
    change: Mutex<()>,
    changed: watch::Sender<u64>,
    parts: Parts,
    trial: OnceLock<trial::Trial>,
    manifests: OnceLock<Manifests>,
    traces: OnceLock<Traces>,
}

/// What loading needs.
struct Parts {
    loader: Arc<dyn ModelLoader>,
    defaults: ModelConfig,
    budget: ByteBudget,
    metrics: Metrics,
    courier: Courier,
    /// Where the end of a version that leaves is waited for.
    runtime: Handle,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("defaults", &self.defaults).finish_non_exhaustive()
    }
}

/// All models at one moment.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    models: HashMap<ModelName, BTreeMap<ModelVersion, State>>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Starting,
    Serving,
    Draining,
}

impl Snapshot {
    fn settle(&mut self, key: &ModelKey, after: Option<State>) {
        let Some(versions) = self.models.get_mut(&key.name) else { return };
        match after {
            Some(state) => drop(versions.insert(key.version, state)),
            None => drop(versions.remove(&key.version)),
        }
        if versions.is_empty() {
            self.models.remove(&key.name);
        }
    }
}

/// What one look at the repository's folder found.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The path cannot be listed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is nothing to serve.
    #[error("no model in {0}: expected <name>/<version>/model.onnx, or one .onnx file")]
    Empty(String),
}

impl Repository {
    /// An empty repository that loads with `loader`. Must be called on the async runtime.
    pub fn new(
        loader: Arc<dyn ModelLoader>,
        defaults: ModelConfig,
        budget: ByteBudget,
        metrics: Metrics,
        courier: Courier,
    ) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            change: Mutex::new(()),
            changed: watch::Sender::new(0),
            trial: OnceLock::new(),
            manifests: OnceLock::new(),
            traces: OnceLock::new(),
            parts: Parts { loader, defaults, budget, metrics, courier, runtime: Handle::current() },
        }
    }

    /// Says where runs are recorded from now on. To be called once, before models are loaded.
    pub fn record_in(&self, traces: Traces) {
        drop(self.traces.set(traces));
    }

    /// The version that serves a request for `name`: the given one, else the newest ready one.
    ///
    /// # Errors
    /// [`PredictError::ModelNotFound`], [`PredictError::VersionNotFound`],
    /// [`PredictError::ModelNotReady`] while it loads, after it failed or was unloaded.
    pub fn resolve(
        &self,
        name: &str,
        version: Option<ModelVersion>,
    ) -> Result<Arc<ServedModel>, PredictError> {
        let snapshot = self.snapshot.load();
        let Some(versions) = snapshot.models.get(name) else {
            let model = quoted(name);
            // Before the first look at the folder nobody knows what is in it.
            return Err(match snapshot.phase {
                Phase::Starting => PredictError::ModelNotReady { model, reason: "still loading" },
                Phase::Serving | Phase::Draining => PredictError::ModelNotFound { model },
            });
        };
        let not_ready = |state: &State| PredictError::ModelNotReady {
            model: name.to_owned(),
            reason: match state {
                State::Failed(_) => "loading failed; the server's log has the reason",
                State::Ready(served) => {
                    served.fitness.verdict().map_or("still loading", Unfit::reason)
                }
                State::Loading => "still loading",
                State::Unloading | State::Unloaded => "not loaded",
            },
        };
        if let Some(version) = version {
            if let Some(state) = versions.get(&version) {
                return state.ready().cloned().ok_or_else(|| not_ready(state));
            }
            let ready = versions.iter().filter(|(_, state)| state.ready().is_some());
            let served: Vec<String> = ready.map(|(version, _)| version.to_string()).collect();
            let served = if served.is_empty() { "none".to_owned() } else { served.join(", ") };
            return Err(PredictError::VersionNotFound { model: name.to_owned(), version, served });
        }
        let ready = versions.values().rev().find_map(State::ready).cloned();
        let last = versions.values().next_back();
        let unknown = || PredictError::ModelNotFound { model: quoted(name) };
        ready.ok_or_else(|| last.map_or_else(unknown, not_ready))
    }

    /// Versions of a model that are loaded, ready or not, oldest first; empty if there is no such
    /// model.
    pub fn loaded_versions(&self, name: &str) -> Vec<Arc<ServedModel>> {
        let snapshot = self.snapshot.load();
        let versions = snapshot.models.get(name).into_iter().flatten();
        versions.filter_map(|(_, state)| state.served().cloned()).collect()
    }

    /// Those of them that serve.
    pub fn ready_versions(&self, name: &str) -> Vec<Arc<ServedModel>> {
        let mut versions = self.loaded_versions(name);
        versions.retain(|served| served.fitness.verdict().is_none());
        versions
    }

    /// Whether the repository has a model of that name, ready or not.
    pub fn contains(&self, name: &str) -> bool {
        self.snapshot.load().models.contains_key(name)
    }

    /// Every model version and its state, by name and version.
    pub fn index(&self) -> Vec<IndexEntry> {
        let snapshot = self.snapshot.load();
        let names: BTreeSet<&ModelName> = snapshot.models.keys().collect();
        let mut entries = Vec::new();
        for name in names {
            for (version, state) in &snapshot.models[name] {
                let key = ModelKey { name: name.clone(), version: *version };
                entries.push(IndexEntry { key, state: state.clone() });
            }
        }
        entries
    }

    /// Every model version and the name of its state, as metrics have it.
    pub fn states(&self) -> Vec<(ModelKey, &'static str)> {
        self.index().into_iter().map(|entry| (entry.key, entry.state.label())).collect()
    }

    /// Whether the server can serve: everything was tried, nothing stops, and something is ready
    /// unless nothing was to be loaded.
    pub fn is_ready(&self) -> bool {
        let snapshot = self.snapshot.load();
        let states = || snapshot.models.values().flat_map(BTreeMap::values);
        let is_wanted = |state: &State| !matches!(state, State::Unloading | State::Unloaded);
        snapshot.phase == Phase::Serving
            && (states().any(|state| state.ready().is_some()) || !states().any(is_wanted))
    }

    /// Whether the server is stopping.
    pub fn is_draining(&self) -> bool {
        self.snapshot.load().phase == Phase::Draining
    }

    /// Whether every model was tried.
    pub fn is_loaded(&self) -> bool {
        self.snapshot.load().phase != Phase::Starting
    }

    /// Tells of every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Says that the server stops: not ready from now on, but serving what comes.
    pub fn announce_drain(&self) {
        self.change(|snapshot| snapshot.phase = Phase::Draining);
    }

    /// Refuses new requests, runs what waits, and waits for the workers to end.
    pub async fn drain(&self) {
        self.announce_drain();
        let all = self.index();
        let served: Vec<_> = all.iter().filter_map(|entry| entry.state.served()).collect();
        for model in &served {
            model.drain();
        }
        for model in &served {
            model.join().await;
        }
    }

    /// Settings of a model: its file over the server's. What its file says in vain is logged.
    fn config_of(&self, model: &FoundModel) -> Result<ModelConfig, LoadError> {
        let (config, warning) = read_config(model, &self.parts.defaults)?;
        if let Some(warning) = warning {
            tracing::warn!(model = %model.name, "{warning}");
        }
        Ok(config)
    }

    /// Loads a version and warms it up. Blocks; called on the thread of [`control`].
    fn load(&self, source: &ModelSource, config: ModelConfig) -> Result<ServedModel, LoadError> {
        let begun_at = Instant::now();
        let loaded = self.load_uncounted(source, config);
        self.parts.metrics.loaded(loaded.is_ok());
        if let Ok(model) = &loaded {
            model.metrics.load_took(begun_at.elapsed());
        }
        loaded
    }

    fn load_uncounted(
        &self,
        source: &ModelSource,
        config: ModelConfig,
    ) -> Result<ServedModel, LoadError> {
        // `<name>/<version>/model.onnx`: the model's own folder is two up.
        let folder = source.path.ancestors().nth(2).unwrap_or(&source.path);
        let labels = labels::read(&config.label_files, folder)?;
        let loaded = self.parts.loader.load(&self.verified(source, &config)?, &config)?;
        let known = costs::fitting(&source.key, &source.path, &loaded, &config);
        let Parts { budget, metrics, courier, .. } = &self.parts;
        let traces = self.traces.get().cloned().unwrap_or_default();
        let around = Surroundings { budget, metrics, courier, traces };
        ServedModel::start(source.key.clone(), (loaded, labels, known), config, &around)
    }

    /// Every model was tried.
    fn begin_serving(&self) {
        self.change(|snapshot| {
            if snapshot.phase == Phase::Starting {
                snapshot.phase = Phase::Serving;
            }
        });
    }

    /// State of one version; `None` if it is not known.
    fn state(&self, name: &str, version: ModelVersion) -> Option<State> {
        self.snapshot.load().models.get(name)?.get(&version).cloned()
    }

    /// All versions of a model and their states.
    fn versions(&self, name: &str) -> Vec<(ModelVersion, State)> {
        let snapshot = self.snapshot.load();
        let versions = snapshot.models.get(name).into_iter().flatten();
        versions.map(|(version, state)| (*version, state.clone())).collect()
    }

    /// A version serves from now on. One that served under the same key leaves.
    fn put(&self, key: ModelKey, served: ServedModel) {
        self.set(key, State::Ready(Arc::new(served)));
    }

    /// Takes a version out of service. Requests that have found it are answered; then it has the
    /// state `after`, or is forgotten.
    fn retire(self: &Arc<Self>, name: &str, version: ModelVersion, after: Option<State>) {
        let Some(state) = self.state(name, version) else { return };
        let Ok(name) = ModelName::new(name) else { return };
        let key = ModelKey { name, version };
        let Some(served) = state.served() else {
            self.settle(&key, after);
            return;
        };
        served.metrics.ready.set(0);
        self.set(key.clone(), State::Unloading);
        let mut ended = served.ended();
        let repository = Arc::clone(self);
        self.parts.runtime.spawn(async move {
            // The only outcome is the error that the last worker is gone.
            while ended.changed().await.is_ok() {}
            tracing::info!(model = %key.name, version = key.version.number(), "unloaded");
            // Asked and settled in one: it may have been loaded again, this very moment, too.
            repository.change(|snapshot| {
                let state = snapshot.models.get(&key.name).and_then(|all| all.get(&key.version));
                if matches!(state, Some(State::Unloading)) {
                    repository.parts.metrics.forget(&key);
                    snapshot.settle(&key, after);
                }
            });
        });
    }

    /// A version that does not serve gets the state `after`, or is forgotten.
    fn settle(&self, key: &ModelKey, after: Option<State>) {
        self.change(|snapshot| snapshot.settle(key, after));
    }

    /// A version is in the repository and was not asked for.
    fn set_known(&self, key: &ModelKey) {
        self.set(key.clone(), State::Unloaded);
    }

    fn set_failed(&self, key: ModelKey, reason: &LoadError) {
        tracing::error!(model = %key.name, version = key.version.number(), %reason, "cannot be served");
        self.set(key, State::Failed(reason.to_string()));
    }

    fn set(&self, key: ModelKey, state: State) {
        self.change(|snapshot| {
            snapshot.models.entry(key.name).or_default().insert(key.version, state);
        });
    }

    fn change(&self, make: impl FnOnce(&mut Snapshot)) {
        let guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot.load());
        make(&mut next);
        self.snapshot.store(Arc::new(next));
        drop(guard);
        self.changed.send_modify(|count| *count += 1);
    }
}
