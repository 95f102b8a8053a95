//! The ceiling: a model in ONNX Runtime from Rust, one thread, no server. Prints one line of JSON:
//! microseconds of a run by rows, each the median of several passes. With a range of lengths, which
//! the open dimensions then have: the mean over all of them of a run of one row. Elements of an input
//! have one value where `INPUT=V` says so.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use onnxd::config::Config;
use onnxd::model::{ModelKey, ModelName, ModelVersion, axes};
use onnxd::onnx::{OnnxLoader, environment};
use onnxd::runtime::library::{SearchPlaces, find};
use onnxd::runtime::processors::Processors;
use onnxd::worker::warmup::{self, Examples};
use onnxd::worker::{ModelLoader, ModelSource};
use serde_json::json;
use tokio::time::Instant;

use crate::row::median;

/// Largest batch.
const MOST_ROWS: usize = 64;
/// Time for runs of one row, which latencies are compared with.
const SINGLE_TIME: Duration = Duration::from_millis(300);
/// Passes over all lengths that count; one before them warms up.
const MIXED_PASSES: usize = 3;
/// Passes over all sizes; each counts with the fastest of a few runs.
const PASSES: usize = 7;
/// A pass is measured so often: a server that starts is content with less.
const MEASURED: usize = 2;
/// Time of a measurement: enough for a few runs of the slowest model.
const BUDGET: Duration = Duration::from_millis(120);

/// What to measure.
struct Wanted {
    model: PathBuf,
    library: PathBuf,
    /// Shortest and longest.
    lengths: Vec<i64>,
    /// Of all elements, by input.
    values: BTreeMap<String, String>,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let [model, library, more @ ..] = arguments else {
            return Err("ceiling takes a model file, a library, lengths and values".to_owned());
        };
        let mut wanted = Self {
            model: model.into(),
            library: library.into(),
            lengths: Vec::new(),
            values: BTreeMap::new(),
        };
        for argument in more {
            if let Some((name, value)) = argument.split_once('=') {
                wanted.values.insert(name.to_owned(), value.to_owned());
            } else {
                wanted.lengths.push(argument.parse().map_err(|_| "a length is a number")?);
            }
        }
        Ok(wanted)
    }
}

/// Measures the model file that is named first, with the library that is named second.
pub(crate) fn measure(arguments: &[String]) -> Result<(), String> {
    let Wanted { model, library, lengths, values } = Wanted::parse(arguments)?;
    let found = find(&SearchPlaces { explicit: Some(library), ..SearchPlaces::default() });
    let path = found.map_err(|error| error.to_string())?.path;
    let environment = environment::load(&path, false).map_err(|error| error.to_string())?;
    let loader = OnnxLoader::new(environment, Processors::new(NonZeroUsize::MIN));
    let config = Config::resolve(|_| None).map_err(|error| error.to_string())?.model;
    let name = ModelName::new("ceiling").map_err(|error| error.to_string())?;
    let source = ModelSource {
        key: ModelKey { name, version: ModelVersion::FIRST },
        path: model,
        sha256: None,
    };
    let mut loaded = loader.load(&source, &config).map_err(|error| error.to_string())?;
    let (spec, _) =
        axes::assign(loaded.spec, &BTreeMap::new()).map_err(|error| error.to_string())?;
    let executor = loaded.executors[0].as_mut();
    let wrong = warmup::wrong_values(&spec, &values);
    if let Some(problem) = wrong.first() {
        return Err(problem.clone());
    }
    let shapes = BTreeMap::new();
    let settled = Examples::settled(&shapes, &values);
    if let [shortest, longest] = lengths[..] {
        let mut mean = || {
            let took = (shortest..=longest).map(|inner| {
                let examples = Examples { inner, ..settled };
                let curve = warmup::measure(executor, &spec, examples, 1, Duration::ZERO);
                curve.first().map_or(f64::NAN, |(_, took)| took.as_secs_f64() * 1e6)
            });
            let took: Vec<f64> = took.collect();
            took.iter().sum::<f64>() / took.iter().map(|_| 1.0).sum::<f64>()
        };
        mean();
        let means = (0..MIXED_PASSES).map(|_| mean()).collect();
        println!("{}", json!({ "mean": median(means) }));
        return Ok(());
    }
    let examples = warmup::run_once(executor, &spec, settled).map_err(|error| error.to_string())?;
    let mut passes: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut pass = |most_rows| {
        let curve = || warmup::measure(executor, &spec, examples, most_rows, BUDGET);
        for (rows, took) in fastest(curve) {
            passes.entry(rows).or_default().push(took.as_secs_f64() * 1e6);
        }
    };
    let begun_at = Instant::now();
    while begun_at.elapsed() < SINGLE_TIME {
        pass(1);
    }
    for _ in 0..PASSES {
        pass(MOST_ROWS);
    }
    let typical: BTreeMap<String, f64> =
        passes.into_iter().map(|(rows, micros)| (rows.to_string(), median(micros))).collect();
    println!("{}", json!(typical));
    Ok(())
}

/// By rows, the shortest of several measurements.
fn fastest(mut measure: impl FnMut() -> Vec<(usize, Duration)>) -> BTreeMap<usize, Duration> {
    let mut fastest = BTreeMap::new();
    for (rows, took) in (0..MEASURED).flat_map(|_| measure()) {
        let known = fastest.entry(rows).or_insert(took);
        *known = took.min(*known);
    }
    fastest
}
