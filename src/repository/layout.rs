//! What lies in a model repository: names, versions, files.
//!
//! `<name>/<version>/model.onnx`, with an optional `<name>/model.toml` or, as Triton has it,
//! `<name>/config.pbtxt`, which may name another file than `model.onnx`. A single `.onnx` file is a
//! repository of one model, called after the file, version 1. Only lists folders; opens no model.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::model::MODEL_FILE;
use crate::model::{ModelName, ModelVersion};

/// A model as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    /// Name of its folder or file.
    pub name: ModelName,
    /// Its versions and their `.onnx` files.
    pub versions: BTreeMap<ModelVersion, PathBuf>,
    /// Its `model.toml` or `config.pbtxt`, if it has one.
    pub config: Option<PathBuf>,
    /// Whether it is one file, and what lies beside that is not its own.
    pub is_single_file: bool,
}

/// What a repository holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Models, by name.
    pub models: Vec<FoundModel>,
    /// Folders and files that look like models and are not, with the reason.
    pub warnings: Vec<String>,
}

/// Why a path cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What was to be read.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no model, or its name cannot be a model's.
    #[error("cannot serve {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// Settings in the server's own form.
pub(super) const MODEL_TOML: &str = "model.toml";
/// Settings in Triton's form.
pub(super) const CONFIG_PBTXT: &str = "config.pbtxt";

/// Lists what `path` holds.
///
/// # Errors
/// [`LayoutError`] if the path itself cannot be read or, a single file, cannot be served. What is
/// wrong inside a repository becomes a warning.
pub fn list(path: &Path) -> Result<Listing, LayoutError> {
    let is_dir = match fs::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(source) => return Err(LayoutError::Io { path: path.display().to_string(), source }),
    };
    if !is_dir {
        return single_file(path);
    }
    let mut listing = Listing::default();
    for entry in entries(path)? {
        let Some(text) = entry.file_name().and_then(|name| name.to_str()) else {
            listing.warnings.push(format!("{} is not UTF-8 text; ignored", entry.display()));
            continue;
        };
        // Hidden folders are how Kubernetes and editors keep their own things.
        if text.starts_with('.') || !entry.is_dir() {
            continue;
        }
        match ModelName::new(text) {
            Ok(name) => listing.read_model(name, &entry)?,
            Err(error) => listing.warnings.push(format!("{error}; folder ignored")),
        }
    }
    Ok(listing)
}

fn single_file(path: &Path) -> Result<Listing, LayoutError> {
    let refuse = |reason: String| {
        let path = path.display().to_string();
        Err(LayoutError::File { path, reason })
    };
    if path.extension().is_none_or(|extension| extension != "onnx") {
        return refuse("expected a folder or a file that ends in .onnx".to_owned());
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    match ModelName::new(&stem) {
        Err(error) => refuse(error.to_string()),
        Ok(name) => {
            let versions = BTreeMap::from([(ModelVersion::FIRST, path.to_owned())]);
            let models = vec![FoundModel { name, versions, config: None, is_single_file: true }];
            Ok(Listing { models, warnings: Vec::new() })
        }
    }
}

impl Listing {
    fn read_model(&mut self, name: ModelName, folder: &Path) -> Result<(), LayoutError> {
        let mut versions = BTreeMap::new();
        for entry in entries(folder)? {
            let version = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !entry.is_dir() || version.starts_with('.') {
                continue;
            }
            let Ok(version) = ModelVersion::parse(version) else {
                // Other folders are the owner's; one that begins with a digit is a slip.
                if !version.starts_with(|first: char| first.is_ascii_digit()) {
                    continue;
                }
                let text = crate::model::quoted(version);
                self.warnings.push(format!("{name}: folder {text:?} is no version; ignored"));
                continue;
            };
            versions.insert(version, entry.join(MODEL_FILE));
        }
        if versions.is_empty() {
            self.warnings.push(format!("{name}: no version folder; ignored"));
            return Ok(());
        }
        let mut files = [MODEL_TOML, CONFIG_PBTXT].map(|file| folder.join(file)).into_iter();
        let config = files.find(|path| path.exists());
        if files.next().is_some_and(|other| other.exists()) {
            self.warnings.push(format!("{name}: config.pbtxt is not read beside model.toml"));
        }
        self.models.push(FoundModel { name, versions, config, is_single_file: false });
        Ok(())
    }
}

/// Entries of a folder in the order of their names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, LayoutError> {
    let failed = |source| LayoutError::Io { path: folder.display().to_string(), source };
    let listed: Result<Vec<PathBuf>, io::Error> =
        fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|each| each.path())).collect();
    let mut paths = listed.map_err(failed)?;
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn lists_models_versions_and_oddities() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "b/2/model.onnx",
            "b/10/model.onnx",
            "b/notes/x",
            "b/02/model.onnx",
            "a/1/model.onnx",
            "a/model.toml",
            "a/config.pbtxt",
            "b/config.pbtxt",
            ".git/1/model.onnx",
            "bad name/1/model.onnx",
            "empty/readme",
        ] {
            touch(&root.path().join(file));
        }
        let listing = list(root.path()).unwrap();
        let names: Vec<&str> = listing.models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let configs: Vec<_> = listing.models.iter().map(|model| model.config.clone()).collect();
        let expected = ["a/model.toml", "b/config.pbtxt"].map(|file| Some(root.path().join(file)));
        assert_eq!(configs, expected);
        let versions: Vec<u64> =
            listing.models[1].versions.keys().map(|version| version.number()).collect();
        assert_eq!(versions, [2, 10]);
        assert_eq!(listing.warnings.len(), 4, "{:?}", listing.warnings);
    }

    #[test]
    fn a_single_file_is_version_one_under_its_stem() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("resnet-50.onnx");
        touch(&file);
        let listing = list(&file).unwrap();
        assert_eq!(listing.models[0].name.as_str(), "resnet-50");
        assert_eq!(listing.models[0].versions[&ModelVersion::FIRST], file);
        let text = root.path().join("notes.txt");
        touch(&text);
        assert!(list(&text).unwrap_err().to_string().contains(".onnx"));
        assert!(list(&root.path().join("absent")).is_err());
    }
}
