//! The ONNX Runtime library as a file: which one, where it is, how it gets here.
//!
//! Finds it, fetches it, keeps it from phoning home, and says how many threads it should use and what
//! the machine under it is called. Knows nothing of models and loads nothing: the `onnx` room does
//! that. `cli` calls it.

pub mod digest;
pub mod hardware;
pub mod library;
pub mod pins;
pub mod processors;
pub mod setup;
pub mod telemetry;
