//! The ceiling: a model in ONNX Runtime from Rust, one thread, no server. Prints one line of JSON:
//! microseconds of a run by rows.

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

/// Measures the model file that is named first, with the library that is named second.
pub(crate) fn measure(arguments: &[String]) -> Result<(), String> {
    let [model, library] = arguments else {
        return Err("ceiling takes a model file and a library".to_owned());
    };
    let found = find(&SearchPlaces { explicit: Some(library.into()), ..SearchPlaces::default() });
    let path = found.map_err(|error| error.to_string())?.path;
    let environment = environment::load(&path, false).map_err(|error| error.to_string())?;
    let loader = OnnxLoader::new(environment, Processors::new(NonZeroUsize::MIN));
    let config = Config::resolve(|_| None).map_err(|error| error.to_string())?.model;
    let name = ModelName::new("ceiling").map_err(|error| error.to_string())?;
    let source = ModelSource {
        key: ModelKey { name, version: ModelVersion::FIRST },
        path: PathBuf::from(model),
    };
    let mut loaded = loader.load(&source, &config).map_err(|error| error.to_string())?;
    let (spec, _) =
        axes::assign(loaded.spec, &BTreeMap::new()).map_err(|error| error.to_string())?;
    let executor = loaded.executors[0].as_mut();
    let (shapes, values) = (BTreeMap::new(), BTreeMap::new());
    let settled = Examples::settled(&shapes, &values);
    let examples = warmup::run_once(executor, &spec, settled).map_err(|error| error.to_string())?;
    let mut best: BTreeMap<String, f64> = BTreeMap::new();
    // The fastest of several passes: what the machine can do when nothing disturbs it.
    for _ in 0..20 {
        let budget = Duration::from_millis(200);
        for (rows, took) in warmup::measure(executor, &spec, examples, 64, budget) {
            let micros = took.as_secs_f64() * 1e6;
            let known = best.entry(rows.to_string()).or_insert(micros);
            *known = known.min(micros);
        }
    }
    println!("{}", serde_json::json!(best));
    Ok(())
}
