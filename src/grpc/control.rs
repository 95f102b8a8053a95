//! Loading and unloading by name: what the operator's port serves beside descriptions.
//!
//! A model is loaded by its name and from the repository only. What a caller brings along, a
//! configuration or a file, is refused: whoever can name what is opened can read the host's files.
//!
//! Source: Triton, model repository extension.

use std::collections::HashMap;

use tonic::Status;

use crate::pb::ModelRepositoryParameter;
use crate::repository::control::{ControlError, ModelControl};

/// Who is served on a port.
#[derive(Debug, Clone)]
pub(super) enum Audience {
    /// Callers: predictions and descriptions.
    Callers,
    /// The operator: descriptions, with reasons, and control where it is switched on.
    Operator(Option<ModelControl>),
}

const NOT_SWITCHED_ON: &str = "models are not loaded on request; `--model-control explicit` \
     switches that on";
const ADMIN_PORT: &str = "repository control is not served on the data port; the admin port has it";
const NO_PREDICTIONS: &str = "predictions are not served on the admin port; the data port has them";
/// What a caller may send along and means nothing here: no model depends on another.
const IGNORED: &str = "unload_dependents";

impl Audience {
    /// # Errors
    /// UNIMPLEMENTED where this port makes no predictions.
    pub(super) fn may_predict(&self) -> Result<(), Status> {
        match self {
            Self::Callers => Ok(()),
            Self::Operator(_) => Err(Status::unimplemented(NO_PREDICTIONS)),
        }
    }

    /// Whether reasons are shown: they name files.
    pub(super) fn sees_reasons(&self) -> bool {
        matches!(self, Self::Operator(_))
    }

    /// Loads a model.
    ///
    /// # Errors
    /// UNIMPLEMENTED where control is not served, `INVALID_ARGUMENT` for a parameter, `NOT_FOUND`,
    /// `FAILED_PRECONDITION` for a model that cannot be loaded, `RESOURCE_EXHAUSTED`, UNAVAILABLE.
    pub(super) async fn load(
        &self,
        model: &str,
        parameters: &HashMap<String, ModelRepositoryParameter>,
    ) -> Result<(), Status> {
        let control = self.control()?;
        refuse(parameters)?;
        control.load(model).await.map_err(|error| status(&error))
    }

    /// Unloads a model.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(super) async fn unload(
        &self,
        model: &str,
        parameters: &HashMap<String, ModelRepositoryParameter>,
    ) -> Result<(), Status> {
        let control = self.control()?;
        refuse(parameters)?;
        control.unload(model).await.map_err(|error| status(&error))
    }

    fn control(&self) -> Result<&ModelControl, Status> {
        match self {
            Self::Callers => Err(Status::unimplemented(ADMIN_PORT)),
            Self::Operator(None) => Err(Status::unimplemented(NOT_SWITCHED_ON)),
            Self::Operator(Some(control)) => Ok(control),
        }
    }
}

fn refuse(parameters: &HashMap<String, ModelRepositoryParameter>) -> Result<(), Status> {
    let mut keys: Vec<&str> = parameters.keys().map(String::as_str).collect();
    keys.retain(|key| *key != IGNORED);
    keys.sort_unstable();
    match keys.first() {
        None => Ok(()),
        Some(key) => {
            let key = crate::model::quoted(key);
            let refusal = format!("parameter `{key}`: models are loaded by name only");
            Err(Status::invalid_argument(refusal))
        }
    }
}

fn status(error: &ControlError) -> Status {
    let text = error.to_string();
    match error {
        ControlError::NotFound(_) => Status::not_found(text),
        ControlError::Failed { .. } => Status::failed_precondition(text),
        ControlError::Busy => Status::resource_exhausted(text),
        ControlError::Stopping => Status::unavailable(text),
    }
}
