//! The models that are served now.
//!
//! Readers take a snapshot without a lock; one thread at a time makes the next one. Loading happens
//! on a thread of its own, one model after the other, because opening sessions in parallel is not
//! safe and because nothing may block the async side. Below: `worker`, `config`. It names neither
//! ONNX Runtime nor a message. `grpc` and `app` use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::config::ModelConfig;
use crate::error::PredictError;
use crate::job::ByteBudget;
use crate::job::courier::Courier;
use crate::model::{ModelKey, ModelName, ModelVersion, quoted};
use crate::telemetry::metrics::Metrics;
use crate::worker::{LoadError, ModelLoader, ModelSource};

pub mod layout;
pub mod served;
pub mod version_policy;

use layout::{FoundModel, LayoutError};
pub use served::ServedModel;
use served::Surroundings;

/// The models that are served now, and those that are not, with the reason.
#[derive(Debug)]
pub struct Repository {
    snapshot: ArcSwap<Snapshot>,
    /// Held while the next snapshot is made.
    change: Mutex<()>,
    changed: watch::Sender<u64>,
    parts: Parts,
}

/// What loading needs.
struct Parts {
    loader: Arc<dyn ModelLoader>,
    defaults: ModelConfig,
    budget: ByteBudget,
    metrics: Metrics,
    courier: Courier,
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

/// State of one model version.
#[derive(Debug, Clone)]
pub enum State {
    /// Being loaded and warmed up.
    Loading,
    /// Serves.
    Ready(Arc<ServedModel>),
    /// Could not be loaded, with the reason.
    Failed(String),
}

/// One line of the repository's index.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Name and version.
    pub key: ModelKey,
    /// Its state.
    pub state: State,
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
    /// An empty repository that loads with `loader`.
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
            parts: Parts { loader, defaults, budget, metrics, courier },
        }
    }

    /// Loads every model under `path`, one after the other. A model that cannot be loaded is
    /// listed with its reason, the others serve. Blocks; called on a thread of its own.
    ///
    /// # Errors
    /// [`RepositoryError`] if the path cannot be listed or holds no model.
    pub fn load_all(&self, path: &Path) -> Result<(), RepositoryError> {
        let listing = layout::list(path)?;
        for warning in &listing.warnings {
            tracing::warn!("{warning}");
        }
        if listing.models.is_empty() {
            return Err(RepositoryError::Empty(path.display().to_string()));
        }
        let mut sources = Vec::new();
        for model in &listing.models {
            match self.config_of(model) {
                Ok(config) => sources.extend(select(model, &config)),
                Err(reason) => {
                    let newest = model.versions.keys().next_back();
                    let version = newest.copied().unwrap_or(ModelVersion::FIRST);
                    let key = ModelKey { name: model.name.clone(), version };
                    self.set_failed(key, &reason);
                }
            }
        }
        for (source, _) in &sources {
            self.set(source.key.clone(), State::Loading);
        }
        for (source, config) in sources {
            match self.load(&source, config) {
                Ok(served) => self.set(source.key, State::Ready(Arc::new(served))),
                Err(reason) => self.set_failed(source.key, &reason),
            }
        }
        self.change(|snapshot| {
            if snapshot.phase == Phase::Starting {
                snapshot.phase = Phase::Serving;
            }
        });
        Ok(())
    }

    /// The version that serves a request for `name`: the given one, else the newest ready one.
    ///
    /// # Errors
    /// [`PredictError::ModelNotFound`], [`PredictError::VersionNotFound`],
    /// [`PredictError::ModelNotReady`] while it loads or after it failed,
    /// [`PredictError::ShuttingDown`].
    pub fn resolve(
        &self,
        name: &str,
        version: Option<ModelVersion>,
    ) -> Result<Arc<ServedModel>, PredictError> {
        let snapshot = self.snapshot.load();
        let Some(versions) = snapshot.models.get(name) else {
            return Err(PredictError::ModelNotFound { model: quoted(name) });
        };
        let not_ready = |state: &State| PredictError::ModelNotReady {
            model: name.to_owned(),
            reason: match state {
                State::Failed(_) => "loading failed; the server's log has the reason",
                State::Loading | State::Ready(_) => "still loading",
            },
        };
        if let Some(version) = version {
            return match versions.get(&version) {
                Some(State::Ready(served)) => Ok(Arc::clone(served)),
                Some(state) => Err(not_ready(state)),
                None => {
                    let served: Vec<String> = versions.keys().map(ToString::to_string).collect();
                    let served = served.join(", ");
                    Err(PredictError::VersionNotFound { model: name.to_owned(), version, served })
                }
            };
        }
        let mut newest_first = versions.values().rev();
        let ready = newest_first.find_map(|state| match state {
            State::Ready(served) => Some(Arc::clone(served)),
            State::Loading | State::Failed(_) => None,
        });
        let last = versions.values().next_back();
        ready.ok_or_else(|| last.map_or(PredictError::ShuttingDown, not_ready))
    }

    /// Versions of a model that serve, oldest first; empty if there is no such model.
    pub fn ready_versions(&self, name: &str) -> Vec<Arc<ServedModel>> {
        let snapshot = self.snapshot.load();
        let versions = snapshot.models.get(name).into_iter().flatten();
        versions
            .filter_map(|(_, state)| match state {
                State::Ready(served) => Some(Arc::clone(served)),
                State::Loading | State::Failed(_) => None,
            })
            .collect()
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

    /// Whether the server can serve: everything was tried, something is ready, nothing stops.
    pub fn is_ready(&self) -> bool {
        let snapshot = self.snapshot.load();
        let mut states = snapshot.models.values().flat_map(BTreeMap::values);
        snapshot.phase == Phase::Serving && states.any(|state| matches!(state, State::Ready(_)))
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
        let served: Vec<Arc<ServedModel>> = all
            .into_iter()
            .filter_map(|entry| match entry.state {
                State::Ready(served) => Some(served),
                State::Loading | State::Failed(_) => None,
            })
            .collect();
        for model in &served {
            model.drain();
        }
        for model in &served {
            model.join().await;
        }
    }

    /// Settings of a model: its file over the server's defaults.
    fn config_of(&self, model: &FoundModel) -> Result<ModelConfig, LoadError> {
        read_config(model, &self.parts.defaults)
    }

    fn load(&self, source: &ModelSource, config: ModelConfig) -> Result<ServedModel, LoadError> {
        let loaded = self.parts.loader.load(source, &config)?;
        let Parts { budget, metrics, courier, .. } = &self.parts;
        let around = Surroundings { budget, metrics, courier };
        ServedModel::start(source.key.clone(), loaded, config, &around)
    }

    fn set_failed(&self, key: ModelKey, reason: &LoadError) {
        tracing::error!(model = %key, %reason, "cannot be served");
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

/// Reads a model's settings over `defaults`.
///
/// # Errors
/// All mistakes in its file, or why it cannot be read.
pub fn read_config(model: &FoundModel, defaults: &ModelConfig) -> Result<ModelConfig, LoadError> {
    let Some(path) = &model.config else { return Ok(defaults.clone()) };
    let text = fs::read_to_string(path)
        .map_err(|error| LoadError::new(format!("cannot read model.toml: {error}")))?;
    ModelConfig::parse(&text, defaults)
        .map_err(|errors| LoadError::new(format!("model.toml: {errors}")))
}

/// The versions of a model that its policy selects.
pub fn select(model: &FoundModel, config: &ModelConfig) -> Vec<(ModelSource, ModelConfig)> {
    let available: BTreeSet<ModelVersion> = model.versions.keys().copied().collect();
    let chosen = config.version_policy.select(&available);
    if chosen.is_empty() {
        tracing::warn!(model = %model.name, "its version policy selects none of its versions");
    }
    let source = |version: ModelVersion| {
        let key = ModelKey { name: model.name.clone(), version };
        let path: PathBuf = model.versions[&version].clone();
        (ModelSource { key, path }, config.clone())
    };
    chosen.into_iter().map(source).collect()
}
