//! `onnxd doctor`: what this machine and these settings give.

use std::path::Path;

use clap::ArgMatches;

use super::{CANNOT_START, Layers, Outcome, WRONG_SETTINGS};
use crate::config::settings::{MODEL, SERVER};
use crate::config::{Origin, memory};
use crate::onnx::environment;
use crate::runtime::library::{self, SearchPlaces};
use crate::runtime::processors::Processors;
use crate::runtime::telemetry::settle;

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let layers = match Layers::read(matches) {
        Ok(layers) => layers,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    let config = match layers.resolve() {
        Ok(config) => config,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    // Before the first thread and before the library is loaded.
    if let Err(error) = settle(config.telemetry) {
        return Outcome::new(CANNOT_START, error.to_string());
    }
    let (mut report, mut faults) = (Vec::new(), 0);
    let mut line = |name: &str, text: &str| {
        report.push(format!("{name:<14} {text}"));
    };
    line("onnxd", env!("CARGO_PKG_VERSION"));
    let places = SearchPlaces::from_process(config.runtime_library.clone());
    match library::find(&places) {
        Err(error) => {
            faults += 1;
            line("ONNX Runtime", &format!("MISSING: {error}"));
        }
        Ok(found) => {
            let path = found.path.display();
            match environment::load(&found.path, config.telemetry) {
                Ok(_) => {
                    line("ONNX Runtime", &environment::version(&found.path));
                    line("library", &format!("{path} (from {})", found.origin));
                    line("build", &environment::build_info());
                }
                Err(error) => {
                    faults += 1;
                    line("ONNX Runtime", &format!("UNUSABLE: {error}"));
                }
            }
        }
    }
    let telemetry = if config.telemetry { "on, as asked for" } else { "off" };
    line("telemetry", telemetry);
    line("processors", &Processors::of_process().available().to_string());
    let memory =
        memory::limit_bytes().map_or_else(|| "unknown".to_owned(), |b| format!("{} MiB", b >> 20));
    line("memory limit", &memory);
    line("for requests", &format!("{} MiB", config.request_memory_bytes >> 20));
    let gpus = (0..16).filter(|id| Path::new(&format!("/dev/nvidia{id}")).exists()).count();
    line("NVIDIA GPUs", &gpus.to_string());
    report.push("\nsettings".to_owned());
    for setting in SERVER.iter().chain(MODEL) {
        let raw = layers.raw(setting.key);
        let (text, origin) = raw.unwrap_or_else(|| (setting.default.to_owned(), Origin::Default));
        let text = if text.is_empty() { "-".to_owned() } else { text };
        report.push(format!("  {:<22} {text:<18} {origin}", setting.key));
    }
    let report = report.join("\n");
    if faults == 0 { Outcome::ok(report) } else { Outcome::new(1, report) }
}
