//! Loading, swapping and unloading, one model after the other, on a thread of its own.
//!
//! Opening sessions in parallel is not safe and nothing may block the async side, so everything
//! that changes which models are served is done here. Three ways of control:
//!
//! | mode | at start | later |
//! | --- | --- | --- |
//! | none | every model | nothing |
//! | poll | every model | what changes on disk |
//! | explicit | the models that are named | what the operator asks for, by name |
//!
//! A version serves when it is loaded and warmed up, and only then the ones that it replaces leave.
//! They answer what they have and end with the last request that has found them. One that cannot
//! be loaded replaces nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::layout::{self, FoundModel, Listing};
use super::marks::{self, ModelMark};
use super::settings::select;
use super::{Repository, RepositoryError, State};
use crate::config::{ControlMode, ModelConfig};
use crate::model::{ModelKey, ModelName, ModelVersion, quoted};
use crate::worker::LoadError;

/// Asks for models to be loaded and unloaded. Clones ask the same thread.
#[derive(Debug, Clone)]
pub struct ModelControl {
    commands: SyncSender<Command>,
}

/// Why a model was not loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The repository has no model of that name.
    #[error("model \"{0}\" is not in the repository")]
    NotFound(String),
    /// It is there and cannot be served.
    #[error("model \"{model}\" was not loaded: {reason}")]
    Failed {
        /// Its name.
        model: String,
        /// Why not, one reason per version.
        reason: String,
    },
    /// Too many orders wait.
    #[error("{WAITING_ORDERS} orders wait already")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// Orders that wait for the one that is being carried out.
const WAITING_ORDERS: usize = 16;
/// Between two looks at files that seem to be changing.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Command {
    Load(String, Answer),
    Unload(String, Answer),
}

type Answer = oneshot::Sender<Result<(), ControlError>>;

impl ModelControl {
    /// Loads what the model's version policy selects, or loads it anew if its files have changed.
    /// Returns when it serves.
    ///
    /// # Errors
    /// [`ControlError`]. What served before serves on.
    pub async fn load(&self, name: &str) -> Result<(), ControlError> {
        self.ask(|answer| Command::Load(name.to_owned(), answer)).await
    }

    /// Takes all versions of a model out of service. Returns when no new request finds them;
    /// those that have found them are answered.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn unload(&self, name: &str) -> Result<(), ControlError> {
        self.ask(|answer| Command::Unload(name.to_owned(), answer)).await
    }

    async fn ask(&self, order: impl FnOnce(Answer) -> Command) -> Result<(), ControlError> {
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(order(answer)).map_err(|error| match error {
            TrySendError::Full(_) => ControlError::Busy,
            TrySendError::Disconnected(_) => ControlError::Stopping,
        })?;
        answered.await.unwrap_or(Err(ControlError::Stopping))
    }
}

/// Starts the thread. The receiver gets the outcome of the first loading. The thread ends when the
/// handle and its clones are gone.
///
/// # Errors
/// The system's, if there can be no thread.
pub fn start(
    repository: Arc<Repository>,
    path: PathBuf,
    mode: ControlMode,
) -> std::io::Result<(ModelControl, oneshot::Receiver<Result<(), RepositoryError>>)> {
    let (commands, orders) = sync_channel(WAITING_ORDERS);
    let (done, loaded) = oneshot::channel();
    let desk = Desk { repository, path, acted_on: BTreeMap::new(), last: BTreeMap::new() };
    std::thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || desk.work(&mode, &orders, done))?;
    Ok((ModelControl { commands }, loaded))
}

/// What the thread knows.
struct Desk {
    repository: Arc<Repository>,
    path: PathBuf,
    /// What models looked like when they were last loaded, or tried.
    acted_on: BTreeMap<ModelName, ModelMark>,
    /// What they looked like at the last look.
    last: BTreeMap<ModelName, ModelMark>,
}

impl Desk {
    fn work(
        mut self,
        mode: &ControlMode,
        orders: &Receiver<Command>,
        done: oneshot::Sender<Result<(), RepositoryError>>,
    ) {
        let begun = self.begin(mode);
        if begun.is_err() {
            drop(done.send(begun));
            return;
        }
        drop(done.send(begun));
        let mut pause = match mode {
            ControlMode::Poll { every } => Some(*every),
            ControlMode::None | ControlMode::Explicit { .. } => None,
        };
        loop {
            let order = match pause {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(pause) => orders.recv_timeout(pause),
            };
            match order {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let is_unsettled = self.look();
                    pause = pause.map(|_| match mode {
                        ControlMode::Poll { every } if !is_unsettled => *every,
                        ControlMode::Poll { every } => SETTLE.min(*every),
                        _ => SETTLE,
                    });
                }
            }
        }
    }

    /// The first loading.
    fn begin(&mut self, mode: &ControlMode) -> Result<(), RepositoryError> {
        let listing = layout::list(&self.path)?;
        warn(&listing);
        let wanted: Vec<&FoundModel> = match mode {
            ControlMode::Explicit { load } if !load.iter().any(|name| name == "*") => {
                for name in load {
                    if !listing.models.iter().any(|model| model.name.as_str() == name) {
                        tracing::error!(model = quoted(name), "to be loaded and not there");
                    }
                }
                let is_named = |model: &&FoundModel| load.iter().any(|n| n == model.name.as_str());
                listing.models.iter().filter(is_named).collect()
            }
            _ => listing.models.iter().collect(),
        };
        if listing.models.is_empty() && *mode == ControlMode::None {
            return Err(RepositoryError::Empty(self.path.display().to_string()));
        }
        for model in &listing.models {
            if !wanted.iter().any(|each| each.name == model.name) {
                self.repository.set_known(&newest(model));
            }
        }
        let configured: Vec<_> =
            wanted.into_iter().map(|model| (model, self.repository.config_of(model))).collect();
        // So that the index has all of them from the start.
        for (model, config) in &configured {
            let Ok(config) = config else { continue };
            for (source, _) in select(model, config) {
                self.repository.set(source.key, State::Loading);
            }
        }
        for (model, config) in configured {
            // The reason is in the log and in the index; the others serve.
            drop(self.apply(model, config));
        }
        self.last = self.acted_on.clone();
        self.repository.begin_serving();
        Ok(())
    }

    fn carry_out(&mut self, order: Command) {
        let (outcome, answer) = match order {
            Command::Load(name, answer) => (self.load(&name), answer),
            Command::Unload(name, answer) => (self.unload(&name), answer),
        };
        // Whoever asked may have left; what was asked for is done all the same.
        drop(answer.send(outcome));
    }

    fn load(&mut self, name: &str) -> Result<(), ControlError> {
        let listing = layout::list(&self.path).map_err(|error| {
            let (model, reason) = (quoted(name), error.to_string());
            ControlError::Failed { model, reason }
        })?;
        let Some(model) = listing.models.iter().find(|model| model.name.as_str() == name) else {
            return Err(ControlError::NotFound(quoted(name)));
        };
        let config = self.repository.config_of(model);
        self.apply(model, config).map_err(|reasons| {
            let reason = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            ControlError::Failed { model: name.to_owned(), reason }
        })
    }

    fn unload(&mut self, name: &str) -> Result<(), ControlError> {
        if !self.repository.contains(name) {
            return Err(ControlError::NotFound(quoted(name)));
        }
        self.acted_on.remove(name);
        for (version, _) in self.repository.versions(name) {
            self.repository.retire(name, version, Some(State::Unloaded));
        }
        Ok(())
    }

    /// Looks at the files once. Returns whether something seems to be changing.
    fn look(&mut self) -> bool {
        let listing = match layout::list(&self.path) {
            Ok(listing) => listing,
            // A volume that is away for a moment takes no model out of service.
            Err(error) => {
                tracing::warn!(%error, "the repository cannot be read; nothing changes");
                return false;
            }
        };
        let found = listing.models.iter().map(|model| (model.name.clone(), marks::of(model)));
        let now: BTreeMap<ModelName, ModelMark> = found.collect();
        let changes = marks::compare(&self.acted_on, &self.last, &now);
        self.last = now;
        for model in &listing.models {
            if changes.changed.contains(&model.name) {
                let config = self.repository.config_of(model);
                drop(self.apply(model, config));
            }
        }
        for name in &changes.gone {
            tracing::info!(model = %name, "its folder is gone; unloading");
            self.acted_on.remove(name);
            for (version, _) in self.repository.versions(name.as_str()) {
                self.repository.retire(name.as_str(), version, None);
            }
        }
        changes.is_unsettled
    }

    /// Brings what is served of a model in line with its files.
    ///
    /// # Errors
    /// Why versions could not be loaded; what served before serves on.
    fn apply(
        &mut self,
        model: &FoundModel,
        config: Result<ModelConfig, LoadError>,
    ) -> Result<(), Vec<LoadError>> {
        let repository = Arc::clone(&self.repository);
        let name = model.name.as_str();
        let mark = marks::of(model);
        let before = self.acted_on.insert(model.name.clone(), mark.clone()).unwrap_or_default();
        let config = config.map_err(|reason| {
            let served = repository.loaded_versions(name);
            match served.first() {
                Some(served) => log_kept(&served.key, &reason),
                None => repository.set_failed(newest(model), &reason),
            }
            vec![reason]
        })?;
        let chosen = select(model, &config);
        let mut reasons = Vec::new();
        for (source, config) in &chosen {
            let version = source.key.version;
            let is_ready = matches!(repository.state(name, version), Some(State::Ready(_)));
            if is_ready && before.get(&version) == mark.get(&version) {
                continue;
            }
            if !is_ready {
                repository.set(source.key.clone(), State::Loading);
            }
            let tried = repository.try_out(source);
            match tried.and_then(|()| repository.load(source, config.clone())) {
                Ok(served) => repository.put(source.key.clone(), served),
                Err(reason) => {
                    if is_ready {
                        log_kept(&source.key, &reason);
                    } else {
                        repository.set_failed(source.key.clone(), &reason);
                    }
                    reasons.push(reason);
                }
            }
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let is_chosen = |version| chosen.iter().any(|(source, _)| source.key.version == version);
        for (version, _) in repository.versions(name) {
            if !is_chosen(version) {
                repository.retire(name, version, None);
            }
        }
        Ok(())
    }
}

fn warn(listing: &Listing) {
    for warning in &listing.warnings {
        tracing::warn!("{warning}");
    }
}

fn log_kept(key: &ModelKey, reason: &LoadError) {
    tracing::error!(model = %key.name, version = key.version.number(), %reason, "not loaded anew; what served before serves on");
}

/// The newest version of a model, to have something to show.
fn newest(model: &FoundModel) -> ModelKey {
    let version = model.versions.keys().next_back().copied().unwrap_or(ModelVersion::FIRST);
    ModelKey { name: model.name.clone(), version }
}
