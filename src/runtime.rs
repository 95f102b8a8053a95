//! The ONNX Runtime library as a file: which one, where it is, how it gets here.
//!
//! Finds it, fetches it, keeps it from phoning home, and says how many threads it should use, what
//! the machine under it is called and what this process takes of it. Knows nothing of models and loads nothing: the `onnx` room does
//! that. `cli` calls it.

pub mod digest;
pub mod hardware;
pub mod library;
pub mod pins;
pub mod process;
pub mod processors;
pub mod setup;
pub mod telemetry;
