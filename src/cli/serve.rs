//! `onnxd serve`: the server.

use std::ffi::OsString;
use std::sync::Arc;

use clap::ArgMatches;

use super::{CANNOT_START, Console, KILLED, Layers, NOT_DRAINED, Outcome, WRONG_SETTINGS};
use crate::app::signal::StopSignals;
use crate::app::{App, DrainReport, Listeners, StartError};
use crate::config::Config;
use crate::onnx::{OnnxLoader, check_providers, environment};
use crate::processor;
use crate::repository::trial::Trial;
use crate::runtime::library::{self, SearchPlaces};
use crate::runtime::processors::Processors;
use crate::runtime::telemetry::settle;
use crate::telemetry;

pub(super) fn run(matches: &ArgMatches, console: Console) -> Outcome {
    let config = match Layers::read(matches).and_then(|layers| layers.resolve()) {
        Ok(config) => config,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    // Before the first thread and before the library is loaded.
    if let Err(error) = settle(config.telemetry) {
        return Outcome::new(CANNOT_START, error.to_string());
    }
    if let Err(reason) = telemetry::init(config.log_format, &config.log) {
        return Outcome::new(WRONG_SETTINGS, format!("log: {reason}"));
    }
    let processors = Processors::of_process();
    let runtime = match async_runtime(processors.available()) {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::new(CANNOT_START, error.to_string()),
    };
    let models = super::models_path(matches);
    runtime.block_on(serve(config, models, processors, console))
}

/// Serves connections on so many threads.
///
/// A pool of threads runs a task that was woken last first, so that a connection writes each answer
/// by itself; one thread alone takes turns, and a connection writes all that came together at once.
/// On one processor that saves a tenth of the time of a small request, and a half in overload.
fn async_runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut runtime = if threads == 1 {
        processor::is_the_only_one();
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    runtime.worker_threads(threads).thread_name("async").on_thread_park(processor::parking);
    runtime.on_thread_unpark(processor::woken);
    runtime.enable_all().build()
}

async fn serve(
    config: Config,
    models: std::path::PathBuf,
    processors: Processors,
    console: Console,
) -> Outcome {
    let cannot = |error: &dyn std::fmt::Display| Outcome::new(CANNOT_START, error.to_string());
    let mut signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot(&error),
    };
    if let Err(error) = check_providers(&config.model) {
        return cannot(&error);
    }
    let listeners = match Listeners::bind(&config).await {
        Ok(listeners) => listeners,
        Err(error) => return cannot(&error),
    };
    let places = SearchPlaces::from_process(config.runtime_library.clone());
    let found = match library::find(&places) {
        Ok(found) => found,
        Err(error) => return cannot(&error),
    };
    let loaded = match environment::load(&found.path, config.telemetry) {
        Ok(loaded) => loaded,
        Err(error) => return cannot(&error),
    };
    warn_of_open_ports(&config);
    let version = environment::version(&found.path);
    let runtime = format!("{version} ({})", found.path.display());
    let loader = Arc::new(OnnxLoader::new(loaded, processors).with_runtime(version));
    let trial = trial(&config);
    let app = App::build(config, models, loader, listeners, &runtime);
    match trial {
        Ok(trial) => app.repository().try_with(trial),
        Err(error) => return cannot(&error),
    }

    let (first, stopped) = tokio::sync::oneshot::channel();
    let second = async move {
        signals.next().await;
        first.send(()).ok();
        signals.next().await;
    };
    let shutdown = async { drop(stopped.await) };
    tokio::select! {
        ended = app.run(shutdown, console) => outcome(ended),
        () = second => Outcome::new(KILLED, "stopped at once by a second signal"),
    }
}

/// How this server starts itself to try a model: with its own flags and environment.
fn trial(config: &Config) -> std::io::Result<Trial> {
    let own = std::env::args_os().skip(2);
    let mut arguments = vec![OsString::from(super::try_model::NAME)];
    arguments.extend(own);
    arguments.push(std::process::id().to_string().into());
    let program = std::env::current_exe()?;
    Ok(Trial { mode: config.try_models, program, arguments, limit: config.try_timeout })
}

fn outcome(ended: Result<DrainReport, StartError>) -> Outcome {
    match ended {
        Err(error) => Outcome::new(CANNOT_START, error.to_string()),
        Ok(DrainReport { abandoned: 0, .. }) => Outcome::ok(""),
        Ok(DrainReport { abandoned, .. }) => Outcome::new(
            NOT_DRAINED,
            format!("the grace period ended with {abandoned} calls unfinished"),
        ),
    }
}

/// Says where clear text can be read by others than this machine.
fn warn_of_open_ports(config: &Config) {
    let is_clear = config.tls.is_none();
    for (port, address, is_clear) in [
        ("grpc", config.grpc_addr, is_clear),
        ("http", config.http_addr, is_clear),
        ("admin", config.admin_addr, true),
    ] {
        if is_clear && !address.ip().is_loopback() {
            tracing::warn!(port, %address, "clear text on an address that others can reach");
        }
    }
}
