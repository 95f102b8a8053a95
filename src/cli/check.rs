//! `onnxd check`: settings, the files that they name, and repository; without a port and without the
//! runtime.

use clap::ArgMatches;

use super::{Layers, Outcome, WRONG_SETTINGS};
use crate::access::Access;
use crate::connection::tls::Identity;
use crate::repository::settings::{read_config, select};
use crate::repository::{costs, layout};
use crate::telemetry::metrics::{AccessMetrics, TlsMetrics};

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let config = match Layers::read(matches).and_then(|layers| layers.resolve()) {
        Ok(config) => config,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    let (mut report, mut faults) = (Vec::new(), 0);
    if let Some(settings) = &config.access
        && let Err(error) = Access::load(settings, AccessMetrics::default())
    {
        faults += 1;
        report.push(format!("fault    {error}"));
    }
    if let Some(settings) = config.tls.clone()
        && let Err(error) = Identity::load(settings, &TlsMetrics::default())
    {
        faults += 1;
        report.push(format!("fault    {error}"));
    }
    let path = super::models_path(matches);
    let listing = match layout::list(&path) {
        Ok(listing) => listing,
        Err(error) => return Outcome::new(1, error.to_string()),
    };
    for warning in &listing.warnings {
        report.push(format!("warning  {warning}"));
    }
    for model in &listing.models {
        let config = match read_config(model, &config.model) {
            Ok((config, warning)) => {
                let line = |warning| format!("warning  {}: {warning}", model.name);
                report.extend(warning.map(line));
                config
            }
            Err(error) => {
                faults += 1;
                report.push(format!("fault    {}: {error}", model.name));
                continue;
            }
        };
        for (source, _) in select(model, &config) {
            if source.path.is_file() {
                report.push(format!("model    {} ({:?})", source.key, config.batching));
                let costs = costs::path_of(&source.path);
                if let Err(problem) = costs::read(&costs) {
                    let (key, file) = (&source.key, costs.display());
                    report.push(format!("warning  {key}: {file} is not used: {problem}"));
                }
            } else {
                faults += 1;
                let path = source.path.display();
                report.push(format!("fault    {}: no file {path}", source.key));
            }
        }
    }
    if listing.models.is_empty() {
        faults += 1;
        report.push(format!("fault    no model in {}", path.display()));
    }
    report.push(format!("{} models, {faults} faults", listing.models.len()));
    let report = report.join("\n");
    if faults == 0 { Outcome::ok(report) } else { Outcome::new(1, report) }
}
