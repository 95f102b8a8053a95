//! Logs, metrics and traces: what the server says about itself.
//!
//! Text on a terminal, one JSON object a line otherwise ([`json`]). Metrics are handed to the rooms as values;
//! there is no global. Tensor contents and credentials never reach any of them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

mod json;
pub mod limit;
pub mod metrics;
pub mod traces;

/// Installs the process's log writer on standard error. `filter` is a level or a list of
/// `target=level`, as `tracing-subscriber` reads it.
///
/// # Errors
/// What is wrong with `filter`; that a writer is installed already is no error.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    // ONNX Runtime prints what it also returns as an error, which is logged with the model's name.
    let filter = EnvFilter::try_new(format!("ort=off,{filter}")).map_err(|e| e.to_string())?;
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second installation in one process happens only in tests; the first one stays.
    if json {
        drop(builder.with_ansi(false).event_format(json::JsonLines).try_init());
    } else {
        drop(builder.with_ansi(terminal).with_target(false).try_init());
    }
    Ok(())
}
