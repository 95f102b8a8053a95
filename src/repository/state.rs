//! The states of a model version, and how they are called.

use std::sync::Arc;

use super::ServedModel;
use crate::model::ModelKey;

/// State of one model version.
#[derive(Debug, Clone)]
pub enum State {
    /// Being loaded and warmed up.
    Loading,
    /// Serves.
    Ready(Arc<ServedModel>),
    /// Could not be loaded, with the reason.
    Failed(String),
    /// No new request finds it; those that have found it are being answered.
    Unloading,
    /// In the repository and not loaded.
    Unloaded,
}

impl State {
    /// The version, if it serves.
    pub fn served(&self) -> Option<&Arc<ServedModel>> {
        match self {
            Self::Ready(served) => Some(served),
            Self::Loading | Self::Failed(_) | Self::Unloading | Self::Unloaded => None,
        }
    }

    /// Stable word for the label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready(served) if served.fitness.verdict().is_some() => "unfit",
            Self::Ready(_) => "ready",
            Self::Failed(_) => "failed",
            Self::Unloading => "unloading",
            Self::Unloaded => "unloaded",
        }
    }

    /// The state as the repository index names it, and the reason, which is for the operator.
    ///
    /// Source: Triton, model repository extension.
    pub fn describe(&self) -> (&'static str, &str) {
        match self {
            Self::Loading => ("LOADING", ""),
            Self::Ready(served) => match served.fitness.verdict() {
                None => ("READY", ""),
                Some(unfit) => ("UNAVAILABLE", unfit.reason()),
            },
            Self::Failed(reason) => ("UNAVAILABLE", reason),
            Self::Unloading => ("UNLOADING", ""),
            Self::Unloaded => ("UNAVAILABLE", "unloaded"),
        }
    }
}

/// One line of the repository's index.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Name and version.
    pub key: ModelKey,
    /// Its state.
    pub state: State,
}
