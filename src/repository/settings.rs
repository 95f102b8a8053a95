//! Settings and sources of the models that were found: which file says what, which versions are
//! served, where their files lie.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::layout::{CONFIG_PBTXT, FoundModel};
use crate::config::{ModelConfig, triton};
use crate::model::{ModelKey, ModelVersion};
use crate::worker::{LoadError, ModelSource};

/// Largest file with settings, in bytes.
const MAX_BYTES: usize = triton::MAX_BYTES;

/// Reads a model's settings over `defaults`, from `model.toml` or `config.pbtxt`. Gives a line on
/// what the file says in vain, if it does.
///
/// # Errors
/// All mistakes in its file, or why it cannot be read.
pub fn read_config(
    model: &FoundModel,
    defaults: &ModelConfig,
) -> Result<(ModelConfig, Option<String>), LoadError> {
    let Some(path) = &model.config else { return Ok((defaults.clone(), None)) };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let text =
        read(path).map_err(|problem| LoadError::new(format!("cannot read {file}: {problem}")))?;
    let parsed = if file == CONFIG_PBTXT {
        triton::parse(&text, model.name.as_str(), defaults).map(|imported| {
            let warning = imported.warning();
            (imported.config, warning)
        })
    } else {
        ModelConfig::parse(&text, defaults).map(|config| (config, None))
    };
    parsed.map_err(|errors| LoadError::new(format!("{file}: {errors}")))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    match file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text) {
        Ok(bytes) if bytes <= MAX_BYTES => Ok(text),
        Ok(_) => Err(format!("it is longer than {MAX_BYTES} bytes")),
        Err(error) => Err(error.to_string()),
    }
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
        let found = &model.versions[&version];
        let path = if model.is_single_file {
            found.clone()
        } else {
            found.with_file_name(&config.model_file)
        };
        (ModelSource { key, path, sha256: None }, config.clone())
    };
    chosen.into_iter().map(source).collect()
}
