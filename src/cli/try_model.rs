//! `onnxd try-model`: what a server starts to see whether a model ends the process that loads it.
//!
//! Takes the server's own flags. Loads one version on the processor, makes its first runs, prints
//! one line of JSON and ends; ends too when the server does. Listens on nothing.

use std::path::Path;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command, value_parser};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{CANNOT_START, Layers, Outcome, WRONG_SETTINGS};
use crate::config::Config;
use crate::config::model::Provider;
use crate::job::ByteBudget;
use crate::job::courier::Courier;
use crate::onnx::{OnnxLoader, environment};
use crate::repository::settings::{read_config, select};
use crate::repository::trial::verdict;
use crate::repository::{Repository, layout};
use crate::runtime::library::{self, SearchPlaces};
use crate::runtime::processors::Processors;
use crate::runtime::telemetry::settle;
use crate::telemetry::metrics::Metrics;
use crate::worker::LoadError;

pub(super) const NAME: &str = "try-model";

pub(super) fn command() -> Command {
    let own = |name: &'static str| Arg::new(name).required(true);
    super::with_settings(Command::new(NAME).hide(true).about("Load one version and end"))
        .arg(super::models_argument().required(true))
        .arg(own("parent").value_parser(value_parser!(i32)))
        .arg(own("name"))
        .arg(own("version").value_parser(value_parser!(u64)))
}

pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let parent = matches.get_one::<i32>("parent").copied();
    // Asked for first, then looked: the server may have ended in between.
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    if bound.is_err() || getppid().map(Pid::as_raw_pid) != parent {
        return Outcome::new(CANNOT_START, "is started by a server, which is gone");
    }
    let config = match Layers::read(matches).and_then(|layers| layers.resolve()) {
        Ok(config) => config,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    // Before the first thread and before the library is loaded.
    if let Err(error) = settle(config.telemetry) {
        return Outcome::new(CANNOT_START, error.to_string());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::new(CANNOT_START, error.to_string()),
    };
    let _entered = runtime.enter();
    let wanted = |key: &str| matches.get_one::<String>(key).map_or("", String::as_str);
    let version = matches.get_one::<u64>("version").copied().unwrap_or_default();
    let outcome = load(config, &super::models_path(matches), (wanted("name"), version));
    Outcome::ok(verdict(&outcome))
}

fn load(config: Config, models: &Path, (name, version): (&str, u64)) -> Result<(), LoadError> {
    let failed = |error: &dyn std::fmt::Display| LoadError::new(error.to_string());
    let listing = layout::list(models).map_err(|error| failed(&error))?;
    let model = listing.models.iter().find(|model| model.name.as_str() == name);
    let model = model.ok_or_else(|| failed(&"it is not in the repository any more"))?;
    let (own, _) = read_config(model, &config.model)?;
    let mut versions = select(model, &own).into_iter();
    let found = versions.find(|(source, _)| source.key.version.number() == version);
    let (source, mut own) = found.ok_or_else(|| failed(&"it is not selected any more"))?;
    // What the model's file does to the process shows here; a GPU has one owner at a time.
    (own.providers, own.device_ids, own.instances) = (vec![Provider::Cpu], vec![0], 1);
    let places = SearchPlaces::from_process(config.runtime_library);
    let library = library::find(&places).map_err(|error| failed(&error))?;
    let loaded = environment::load(&library.path, config.telemetry);
    let loaded = loaded.map_err(|error| failed(&error))?;
    let loader = Arc::new(OnnxLoader::new(loaded, Processors::of_process()));
    let budget = ByteBudget::new(config.request_memory_bytes);
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), "", &budget);
    let repository = Repository::new(loader, config.model, budget, metrics, Courier::start());
    repository.set_manifests(config.manifests);
    repository.rehearse(&source, own)
}
