//! Loads the ONNX Runtime library, once per process.

use std::path::Path;

use ort::environment::Environment;

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The file is missing, is no ONNX Runtime, or is too old.
    #[error("cannot use {path} as ONNX Runtime: {reason}; `onnxd setup` fetches a tested one")]
    Library {
        /// File that was tried.
        path: String,
        /// The binding's reason.
        reason: String,
    },
    /// The library is loaded but did not start.
    #[error("ONNX Runtime did not start: {0}")]
    Start(String),
}

/// Loads the library at `path`. Must be called before anything else of this room.
///
/// # Errors
/// [`EnvironmentError`].
pub fn load(path: &Path, telemetry: bool) -> Result<Environment, EnvironmentError> {
    let library =
        |reason: String| EnvironmentError::Library { path: path.display().to_string(), reason };
    let builder = ort::init_from(path).map_err(|error| library(error.to_string()))?;
    builder
        .with_name("onnxd")
        .with_telemetry(telemetry)
        .build()
        .map_err(|error| EnvironmentError::Start(error.to_string()))
}

/// Name and version of a library, as its file name gives it. (The binding does not pass on the
/// version that the library itself tells.)
pub fn version(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned());
    let version = name.as_deref().and_then(|name| name.split_once(".so.")).map(|(_, end)| end);
    version.map_or_else(|| "ONNX Runtime".to_owned(), |version| format!("ONNX Runtime {version}"))
}

/// Build of the loaded library, as it names itself.
pub fn build_info() -> String {
    ort::info().to_owned()
}
