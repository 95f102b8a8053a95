//! `onnxd profile`: what runs of a model cost, without a server.
//!
//! Loads one model as `serve` would and measures a grid of rows and lengths
//! ([`crate::repository::profile`]): a table, a plot, and with `--save` a file beside the model that
//! a server takes instead of measuring at start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{CANNOT_START, Console, Layers, Outcome, WRONG_SETTINGS};
use crate::config::{Config, ModelConfig};
use crate::cost::file::CostFile;
use crate::onnx::{OnnxLoader, check_providers, environment};
use crate::repository::profile::{Plan, Profile, profile};
use crate::repository::settings::{read_config, select};
use crate::repository::{costs, layout};
use crate::runtime::library::{self, SearchPlaces};
use crate::runtime::processors::Processors;
use crate::runtime::telemetry::settle;
use crate::telemetry;
use crate::worker::{LoadedModel, ModelLoader, ModelSource};

mod plot;
mod table;

pub(super) fn command() -> Command {
    let path = || value_parser!(PathBuf);
    let command = Command::new("profile")
        .about("Measure what runs of a model cost, by rows and length; needs no server")
        .arg(
            Arg::new("model")
                .required(true)
                .value_name("MODEL")
                .help("Name of a model in the repository, or one .onnx file"),
        )
        .arg(
            Arg::new("models")
                .long("models")
                .value_name("PATH")
                .default_value("models")
                .value_parser(path())
                .help("The model repository"),
        )
        .arg(
            Arg::new("lengths")
                .long("lengths")
                .value_name("N,N")
                .value_delimiter(',')
                .value_parser(value_parser!(u32).range(1..))
                .help(
                    "Lengths: elements of a row's open dimensions [default: the example's, a \
                     quarter, half and twice of it]",
                ),
        )
        .arg(
            Arg::new("budget-ms")
                .long("budget-ms")
                .value_name("MS")
                .default_value("5000")
                .value_parser(value_parser!(u64))
                .help("Time for measuring"),
        )
        .arg(
            Arg::new("plot")
                .long("plot")
                .value_name("FILE.svg")
                .value_parser(path())
                .help("Write a plot: time per row by rows, one line per length"),
        )
        .arg(Arg::new("save").long("save").action(ArgAction::SetTrue).help(
            "Keep the times beside the model; a server takes them instead of measuring at start",
        ));
    super::with_settings(command)
}

pub(super) fn run(matches: &ArgMatches, console: Console) -> Outcome {
    match measure(matches, console) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

fn measure(matches: &ArgMatches, console: Console) -> Result<Outcome, Outcome> {
    let config = Layers::read(matches).and_then(|layers| layers.resolve());
    let config = config.map_err(|errors| Outcome::new(WRONG_SETTINGS, errors.to_string()))?;
    // Before the first thread and before the library is loaded.
    settle(config.telemetry).map_err(|error| Outcome::new(CANNOT_START, error.to_string()))?;
    telemetry::init(config.log_format, &config.log)
        .map_err(|reason| Outcome::new(WRONG_SETTINGS, format!("log: {reason}")))?;
    let (source, model_config) = find(matches, &config.model)?;
    let failed =
        |error: &dyn std::fmt::Display| Outcome::new(1, format!("{}: {error}", source.key));
    let mut loaded =
        loader(&config)?.load(&source, &model_config).map_err(|error| failed(&error))?;
    let measured_on =
        costs::measured_on(&source.path, &loaded, &model_config).map_err(|error| failed(&error))?;
    let found = watched(&source, &mut loaded, &model_config, &plan(matches))
        .map_err(|error| failed(&error))?;
    let mut said = vec![table::text(&source.key, &measured_on, &found)];
    let file = CostFile { points: found.points(), measured_on };
    for written in [plotted(matches, &source, &found), saved(matches, &source, &file)] {
        match written {
            Ok(line) => said.extend(line),
            Err(problem) => {
                // What was measured is not lost with the file.
                console(&said.join("\n"));
                return Err(Outcome::new(1, problem));
            }
        }
    }
    Ok(Outcome::ok(said.join("\n")))
}

fn plan(matches: &ArgMatches) -> Plan {
    let lengths = matches.get_many::<u32>("lengths").into_iter().flatten();
    let budget = matches.get_one::<u64>("budget-ms").copied().unwrap_or_default();
    Plan {
        lengths: lengths.filter_map(|length| usize::try_from(*length).ok()).collect(),
        budget: Duration::from_millis(budget),
    }
}

/// The newest version of the model that would be served, and its settings.
fn find(
    matches: &ArgMatches,
    defaults: &ModelConfig,
) -> Result<(ModelSource, ModelConfig), Outcome> {
    let wanted = matches.get_one::<String>("model").cloned().unwrap_or_default();
    let is_file = Path::new(&wanted).extension().is_some_and(|end| end == "onnx");
    let is_given = matches.value_source("models") == Some(ValueSource::CommandLine);
    if is_file && is_given {
        return Err(Outcome::new(WRONG_SETTINGS, "--models: MODEL is a file already"));
    }
    let path = if is_file { PathBuf::from(&wanted) } else { super::models_path(matches) };
    let listing = layout::list(&path).map_err(|error| Outcome::new(1, error.to_string()))?;
    let found = listing.models.iter().find(|model| is_file || model.name.as_str() == wanted);
    let Some(model) = found else {
        let names: Vec<&str> = listing.models.iter().map(|model| model.name.as_str()).collect();
        let (path, names) = (path.display(), names.join(", "));
        let text = format!("no model {wanted:?} in {path}; it has: {names}");
        return Err(Outcome::new(1, text));
    };
    let (config, warning) = read_config(model, defaults)
        .map_err(|error| Outcome::new(1, format!("{wanted}: {error}")))?;
    if let Some(warning) = warning {
        tracing::warn!(model = %model.name, "{warning}");
    }
    let newest = select(model, &config).pop();
    newest.ok_or_else(|| {
        Outcome::new(1, format!("{wanted}: its version policy selects none of its versions"))
    })
}

fn loader(config: &Config) -> Result<OnnxLoader, Outcome> {
    let cannot = |error: &dyn std::fmt::Display| Outcome::new(CANNOT_START, error.to_string());
    check_providers(&config.model).map_err(|error| cannot(&error))?;
    let places = SearchPlaces::from_process(config.runtime_library.clone());
    let found = library::find(&places).map_err(|error| cannot(&error))?;
    let loaded =
        environment::load(&found.path, config.telemetry).map_err(|error| cannot(&error))?;
    let loader = OnnxLoader::new(loaded, Processors::of_process());
    Ok(loader.with_runtime(environment::version(&found.path)))
}

/// Measures while a bar shows how much of the time has passed.
fn watched(
    source: &ModelSource,
    loaded: &mut LoadedModel,
    config: &ModelConfig,
    plan: &Plan,
) -> Result<Profile, crate::worker::LoadError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(millis(plan.budget));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} % {msg}") {
        bar.set_style(style);
    }
    let begun_at = Instant::now();
    let found = profile(&source.key, loaded, config, plan, &mut |cell| {
        bar.set_position(millis(begun_at.elapsed()));
        bar.set_message(format!("rows {}, length {}", cell.rows, cell.length));
    });
    bar.finish_and_clear();
    found
}

/// Writes the plot, if one is asked for.
fn plotted(
    matches: &ArgMatches,
    source: &ModelSource,
    found: &Profile,
) -> Result<Option<String>, String> {
    let Some(path) = matches.get_one::<PathBuf>("plot") else { return Ok(None) };
    let svg = plot::svg(&format!("{}: time per row", source.key), found);
    let written = svg
        .map_err(|error| error.to_string())
        .and_then(|svg| std::fs::write(path, svg).map_err(|error| error.to_string()));
    written.map_err(|problem| format!("cannot write {}: {problem}", path.display()))?;
    Ok(Some(format!("plot: {}", path.display())))
}

/// Keeps the times beside the model, if that is asked for.
fn saved(
    matches: &ArgMatches,
    source: &ModelSource,
    file: &CostFile,
) -> Result<Option<String>, String> {
    if !matches.get_flag("save") {
        return Ok(None);
    }
    let path = costs::path_of(&source.path);
    costs::save(&path, file)?;
    Ok(Some(format!("saved: {}", path.display())))
}
