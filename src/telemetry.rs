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
/// `target=level`, separated by commas.
///
/// # Errors
/// What is wrong with `filter`; that a writer is installed already is no error.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = parsed(filter)?;
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

fn parsed(filter: &str) -> Result<Targets, String> {
    // ONNX Runtime prints what it also returns as an error, which is logged with the model's name.
    let mut targets = "ort=off".to_owned();
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        targets.push(',');
        targets.push_str(part);
    }
    targets.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::parsed;

    #[test]
    fn a_filter_is_a_level_and_levels_of_targets() {
        for text in ["info,h2=warn", " info , h2=warn", "h2=warn, info,", ",h2=warn,,info"] {
            let targets = parsed(text).unwrap();
            assert!(targets.would_enable("onnxd::app", &Level::INFO), "{text}");
            assert!(!targets.would_enable("onnxd::app", &Level::DEBUG), "{text}");
            assert!(targets.would_enable("h2::proto", &Level::WARN), "{text}");
            assert!(!targets.would_enable("h2::proto", &Level::INFO), "{text}");
            assert!(!targets.would_enable("ort", &Level::ERROR), "{text}");
        }
        assert!(parsed("ort=info").unwrap().would_enable("ort", &Level::INFO));
        assert!(parsed("h2=loud").is_err());
    }
}
