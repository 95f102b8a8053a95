//! The files of a model version, before anything native reads them: none lies elsewhere, and where a
//! list of sums is there, each is the listed one.
//!
//! Files that a model names ([`external`]) must lie beside it or below, whatever links lead there.
//! `SHA256SUMS` in that folder, as `sha256sum` writes it, names the sum of every file that counts: the
//! model, what it names, its settings and its labels. (`costs.toml` does not: it says how long runs
//! take.) With `manifests = "required"` a model without that list is not served.
//!
//! A model whose weights are all in its own file is read once for its sum and handed over from the same
//! memory. Weights in other files are opened by the runtime after they were checked: mount models
//! read-only where somebody could change them in between.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Repository;
use super::layout::{CONFIG_PBTXT, MODEL_TOML};
use crate::config::{Manifests, ModelConfig};
use crate::runtime::digest::sha256;
use crate::worker::{LoadError, ModelSource, same_sum};

pub mod external;
pub mod manifest;

use manifest::Manifest;

/// Name of the list.
pub const SHA256SUMS: &str = "SHA256SUMS";

impl Repository {
    /// Says whether models need a list of sums. Only the first call counts.
    pub fn set_manifests(&self, manifests: Manifests) {
        self.manifests.set(manifests).ok();
    }

    /// Checks the files of a version. Reads all of them; blocks.
    ///
    /// # Errors
    /// The file that is not as it must be, relative to the model's folder.
    pub(super) fn verified(
        &self,
        source: &ModelSource,
        config: &ModelConfig,
    ) -> Result<ModelSource, LoadError> {
        let manifests = self.manifests.get().copied().unwrap_or_default();
        verify(source, config, manifests).map_err(LoadError::new)
    }
}

/// Checks the files of a version; the answer says which sum the model's file must have.
///
/// # Errors
/// The file that is not as it must be, relative to the model's folder.
pub fn verify(
    source: &ModelSource,
    config: &ModelConfig,
    manifests: Manifests,
) -> Result<ModelSource, String> {
    let beside = source.path.parent().unwrap_or_else(|| Path::new(""));
    let folder = folder(source);
    // A link to the model's file may lead anywhere: it is the operator's, not the model's.
    let weights = external::files(&source.path).map_err(|error| error.to_string())?;
    let weights = external::inside(&weights, beside)?;
    let list = match (std::fs::read_to_string(folder.join(SHA256SUMS)), manifests) {
        (Ok(text), _) => Manifest::parse(&text),
        (Err(error), Manifests::Optional) if error.kind() == ErrorKind::NotFound => {
            return Ok(source.clone());
        }
        (Err(error), Manifests::Required) if error.kind() == ErrorKind::NotFound => {
            Err("is not there, and manifests = required".to_owned())
        }
        (Err(error), _) => Err(error.to_string()),
    };
    let list = list.map_err(|problem| format!("{SHA256SUMS}: {problem}"))?;
    let mut others = weights.clone();
    let settings = [MODEL_TOML, CONFIG_PBTXT].map(|name| folder.join(name));
    others.extend(settings.into_iter().filter(|path| path.exists()));
    others.extend(config.label_files.values().map(|file| folder.join(file)));
    for path in &others {
        check(&list, folder, path)?;
    }
    if weights.is_empty() {
        let wanted = list.sum_of(&relative(folder, &source.path))?;
        return Ok(ModelSource { sha256: Some(wanted.into()), ..source.clone() });
    }
    check(&list, folder, &source.path)?;
    Ok(source.clone())
}

/// `<name>/<version>/model.onnx`: the model's own folder is two up; a single file is all there is.
fn folder(source: &ModelSource) -> &Path {
    let beside = source.path.parent().unwrap_or_else(|| Path::new(""));
    let version = source.key.version.to_string();
    let is_version = beside.file_name().is_some_and(|name| *name == *version);
    if is_version { beside.parent().unwrap_or(beside) } else { beside }
}

fn check(list: &Manifest, folder: &Path, path: &Path) -> Result<(), String> {
    let name = relative(folder, path);
    let wanted = list.sum_of(&name)?;
    let found = sha256(path).map_err(|error| format!("{name}: {error}"))?;
    same_sum(&name, wanted, &found)
}

fn relative(folder: &Path, path: &Path) -> String {
    let inner = path.strip_prefix(folder).map_or_else(|_| PathBuf::from(path), Path::to_path_buf);
    inner.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
