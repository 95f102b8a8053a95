//! `onnxd check`: settings, the files that they name, and repository; without a port and without the
//! runtime.

use std::fmt::Display;

use clap::ArgMatches;

use super::{Layers, Outcome, WRONG_SETTINGS};
use crate::access::Access;
use crate::config::Config;
use crate::connection::tls::Identity;
use crate::repository::layout::FoundModel;
use crate::repository::settings::{read_config, select};
use crate::repository::{costs, integrity, layout};
use crate::telemetry::metrics::{AccessMetrics, TlsMetrics};

/// What was found, line by line.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    faults: usize,
}

impl Report {
    fn fault(&mut self, what: impl Display) {
        self.faults += 1;
        self.lines.push(format!("fault    {what}"));
    }

    fn warning(&mut self, what: impl Display) {
        self.lines.push(format!("warning  {what}"));
    }

    /// The files that the server's settings name.
    fn server(&mut self, config: &Config) {
        if let Some(settings) = &config.access
            && let Err(error) = Access::load(settings, AccessMetrics::default())
        {
            self.fault(error);
        }
        if let Some(settings) = config.tls.clone()
            && let Err(error) = Identity::load(settings, &TlsMetrics::default())
        {
            self.fault(error);
        }
    }

    fn model(&mut self, model: &FoundModel, server: &Config) {
        let config = match read_config(model, &server.model) {
            Ok((config, warning)) => {
                if let Some(warning) = warning {
                    self.warning(format_args!("{}: {warning}", model.name));
                }
                config
            }
            Err(error) => return self.fault(format_args!("{}: {error}", model.name)),
        };
        for (source, _) in select(model, &config) {
            let key = &source.key;
            if !source.path.is_file() {
                self.fault(format_args!("{key}: no file {}", source.path.display()));
                continue;
            }
            self.lines.push(format!("model    {key} ({:?})", config.batching));
            if let Err(problem) = integrity::verify(&source, &config, server.manifests) {
                self.fault(format_args!("{key}: {problem}"));
            }
            let costs = costs::path_of(&source.path);
            if let Err(problem) = costs::read(&costs) {
                self.warning(format_args!("{key}: {} is not used: {problem}", costs.display()));
            }
        }
    }
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let config = match Layers::read(matches).and_then(|layers| layers.resolve()) {
        Ok(config) => config,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    let mut report = Report::default();
    report.server(&config);
    let path = super::models_path(matches);
    let listing = match layout::list(&path) {
        Ok(listing) => listing,
        Err(error) => return Outcome::new(1, error.to_string()),
    };
    for warning in &listing.warnings {
        report.warning(warning);
    }
    for model in &listing.models {
        report.model(model, &config);
    }
    if listing.models.is_empty() {
        report.fault(format_args!("no model in {}", path.display()));
    }
    let Report { mut lines, faults } = report;
    lines.push(format!("{} models, {faults} faults", listing.models.len()));
    Outcome::new(u8::from(faults > 0), lines.join("\n"))
}
