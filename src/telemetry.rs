//! Logs, metrics and traces: what the server says about itself.
//!
//! Text on a terminal, one JSON object a line otherwise ([`json`]). Metrics are handed to the rooms as values;
//! there is no global. Tensor contents and credentials never reach any of them.

use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

mod json;
pub mod limit;
pub mod metrics;
pub mod traces;

/// Installs the process's log writer on standard error. `filter` is a level or a list of
/// `target=level`, as `tracing-subscriber` reads it in [`Targets`].
///
/// # Errors
/// What is wrong with `filter`; that a writer is installed already is no error.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    // ONNX Runtime prints what it also returns as an error, which is logged with the model's name.
    let filter: Targets =
        format!("ort=off,{filter}").parse().map_err(|error| format!("{error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let writer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(filter);
    // A second installation in one process happens only in tests; the first one stays.
    if json {
        let writer = writer.with_ansi(false).event_format(json::JsonLines);
        drop(subscriber.with(writer).try_init());
    } else {
        let writer = writer.with_ansi(terminal).with_target(false);
        drop(subscriber.with(writer).try_init());
    }
    Ok(())
}
