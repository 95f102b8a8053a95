//! The file beside a model that says what its runs cost: where it lies, when it fits, how it is kept.
//!
//! `onnxd profile --save` makes it, loading a model reads it. It saves measuring, and knows more than
//! the short time at start can find out. It is taken only where everything that it was measured on is
//! as it was; a file that is wrong in any way is told of and left alone, for it must never keep a
//! model from serving. Below: [`crate::cost::file`], which knows its form.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::ModelConfig;
use crate::config::model::MODEL_FILE;
use crate::cost::file::{CostFile, MAX_BYTES, MeasuredOn, MeasuredPoint};
use crate::model::ModelKey;
use crate::runtime::{digest, hardware};
use crate::worker::LoadedModel;

/// Name of the file, beside a model that has the usual name. Another model's costs have its name in
/// front, so that two models in one folder keep theirs apart.
const COSTS_FILE: &str = "costs.toml";
/// End of the name that the file has until it is complete.
const PARTIAL: &str = ".partial";

/// Where a model's costs come from until its own runs have corrected them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostOrigin {
    /// The file beside it.
    File,
    /// Runs that were measured at start.
    FirstRuns,
    /// Nowhere: nothing was measured, or made-up inputs do not run.
    Nothing,
}

impl CostOrigin {
    /// Name in logs and on the operator's port.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::FirstRuns => "first_runs",
            Self::Nothing => "nothing",
        }
    }
}

/// Where the costs of a model lie: `costs.toml` beside `model.onnx`, `NAME.costs.toml` beside
/// `NAME.onnx`.
pub fn path_of(model: &Path) -> PathBuf {
    if model.file_name() == Some(OsStr::new(MODEL_FILE)) {
        return model.with_file_name(COSTS_FILE);
    }
    model.with_extension(COSTS_FILE)
}

/// Whether a file is one with costs, complete or not. Such a file says nothing of the model.
pub(super) fn is_costs(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let name = name.strip_suffix(PARTIAL).unwrap_or(name);
    name.strip_suffix(COSTS_FILE).is_some_and(|stem| stem.is_empty() || stem.ends_with('.'))
}

/// Reads the file; `None` if there is none.
///
/// # Errors
/// Why it cannot be read, or its first mistake with line and key.
pub fn read(path: &Path) -> Result<Option<CostFile>, String> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        // To open a pipe could take for ever.
        Ok(_) => return Err("it is no file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    let mut bytes = Vec::new();
    // One more than it may have: the reader of the text says that it is too long.
    let bounded = File::open(path).map(|file| file.take(MAX_BYTES as u64 + 1));
    let read = bounded.and_then(|mut bounded| bounded.read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    CostFile::parse(&text).map(Some).map_err(|error| error.to_string())
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// Why it cannot be written.
pub fn save(path: &Path, costs: &CostFile) -> Result<(), String> {
    let text = costs.to_text()?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// What runs of a loaded model are measured on, with the sum of its file.
///
/// # Errors
/// The system's, if its file cannot be read.
pub fn measured_on(
    model: &Path,
    loaded: &LoadedModel,
    config: &ModelConfig,
) -> io::Result<MeasuredOn> {
    let on = without_sum(model, loaded, config)?;
    Ok(MeasuredOn { model_sha256: digest::sha256(model)?, ..on })
}

fn without_sum(model: &Path, loaded: &LoadedModel, config: &ModelConfig) -> io::Result<MeasuredOn> {
    let mut providers = config.providers.iter().copied();
    let provider = providers.find(|provider| provider.name() == loaded.provider);
    let mut settings = vec![format!("graph_optimization={}", config.graph_optimization.name())];
    let options = provider.and_then(|provider| config.provider_options.get(&provider));
    settings.extend(options.into_iter().flatten().map(|(key, value)| format!("{key}={value}")));
    let on_gpu = provider.is_some_and(crate::config::model::Provider::is_gpu);
    Ok(MeasuredOn {
        model_bytes: fs::metadata(model)?.len(),
        model_sha256: String::new(),
        provider: loaded.provider.clone(),
        settings: settings.join(", "),
        intra_op_threads: loaded.threads,
        runtime: loaded.runtime.clone(),
        processor: hardware::processor(),
        gpus: if on_gpu { hardware::gpus() } else { String::new() },
    })
}

/// The points of the file beside a model, if there is one and it fits. Why it does not is logged.
pub(super) fn fitting(
    key: &ModelKey,
    model: &Path,
    loaded: &LoadedModel,
    config: &ModelConfig,
) -> Option<Vec<MeasuredPoint>> {
    let path = path_of(model);
    let file = path.display();
    let costs = match read(&path) {
        Ok(costs) => costs?,
        Err(problem) => {
            tracing::warn!(model = %key.name, version = key.version.number(), %file, problem, "the file with its costs is not used");
            return None;
        }
    };
    match differences(&costs.measured_on, model, loaded, config) {
        Ok(differences) if differences.is_empty() => Some(costs.points),
        Ok(differences) => {
            let differs = differences.join("; ");
            tracing::warn!(model = %key.name, version = key.version.number(), %file, differs, "the file with its costs is not used");
            None
        }
        Err(error) => {
            tracing::warn!(model = %key.name, version = key.version.number(), %file, %error, "the file with its costs is not used");
            None
        }
    }
}

/// Whether the points say enough of runs that may have `most_rows` rows; logs it either way. From runs
/// of one row alone nothing follows for larger ones, and nobody would find out that they pay.
pub(super) fn cover(key: &ModelKey, points: &[MeasuredPoint], most_rows: usize) -> bool {
    let covered = most_rows == 1 || points.iter().any(|point| point.rows.get() > 1);
    if covered {
        tracing::info!(model = %key.name, version = key.version.number(), points = points.len(), "costs are those of the file beside it");
    } else {
        tracing::warn!(model = %key.name, version = key.version.number(), "the file with its costs knows only runs of one row");
    }
    covered
}

/// What was otherwise when costs were measured. The sum is made only if all else is the same.
fn differences(
    then: &MeasuredOn,
    model: &Path,
    loaded: &LoadedModel,
    config: &ModelConfig,
) -> io::Result<Vec<String>> {
    let now = without_sum(model, loaded, config)?;
    let now = MeasuredOn { model_sha256: then.model_sha256.clone(), ..now };
    let differences = then.differences(&now);
    if !differences.is_empty() {
        return Ok(differences);
    }
    let now = MeasuredOn { model_sha256: digest::sha256(model)?, ..now };
    Ok(then.differences(&now))
}

#[cfg(test)]
mod tests;
