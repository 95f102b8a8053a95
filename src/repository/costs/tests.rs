//! Files that fit, that do not, and that are none.

use std::sync::Arc;

use super::*;
use crate::config::{Config, Origin};
use crate::cost::CostModel;
use crate::model::{ModelName, ModelSpec, ModelVersion};

/// A model's file, and what it would be loaded as.
struct Model {
    folder: tempfile::TempDir,
    loaded: LoadedModel,
    config: ModelConfig,
}

impl Model {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), "some model").unwrap();
        let loaded = LoadedModel {
            spec: ModelSpec { inputs: Vec::new(), outputs: Vec::new() },
            provider: "cpu".to_owned(),
            runtime: "script 1".to_owned(),
            threads: 2,
            executors: Vec::new(),
            make: Arc::new(|_| Err("never".to_owned())),
        };
        Self { folder, loaded, config: Config::resolve(|_| None).unwrap().model }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.onnx")
    }

    /// Writes costs that were measured on this model.
    fn measure(&self) -> Vec<MeasuredPoint> {
        let points = vec![point(1, 100), point(2, 150)];
        let measured_on = measured_on(&self.path(), &self.loaded, &self.config).unwrap();
        save(&path_of(&self.path()), &CostFile { measured_on, points: points.clone() }).unwrap();
        points
    }

    fn fitting(&self) -> Option<Vec<MeasuredPoint>> {
        fitting(&key(), &self.path(), &self.loaded, &self.config)
    }

    fn differences(&self) -> String {
        let costs = read(&path_of(&self.path())).unwrap().unwrap();
        let all = differences(&costs.measured_on, &self.path(), &self.loaded, &self.config);
        all.unwrap().join("; ")
    }
}

fn key() -> ModelKey {
    ModelKey { name: ModelName::new("a").unwrap(), version: ModelVersion::FIRST }
}

fn point(rows: usize, micros: u64) -> MeasuredPoint {
    MeasuredPoint::new(1, rows, std::time::Duration::from_micros(micros)).unwrap()
}

#[test]
fn costs_lie_beside_the_model_under_its_name() {
    let of = |path: &str| path_of(Path::new(path)).display().to_string();
    assert_eq!(of("models/a/1/model.onnx"), "models/a/1/costs.toml");
    assert_eq!(of("models/a/1/net.v2.onnx"), "models/a/1/net.v2.costs.toml");
    for model in ["model.onnx", "net.v2.onnx"] {
        let costs = path_of(Path::new(model));
        assert!(is_costs(&costs) && is_costs(&costs.with_extension("toml.partial")), "{model}");
    }
    for other in ["model.onnx", "model.toml", "mycosts.toml", "costs.toml.bak", "partial"] {
        assert!(!is_costs(Path::new(other)), "{other}");
    }
}

#[test]
fn what_was_measured_here_fits_here() {
    let model = Model::new();
    assert_eq!(model.fitting(), None, "there is none");
    let points = model.measure();
    assert_eq!(model.fitting(), Some(points));
    let left: Vec<_> = fs::read_dir(model.folder.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "nothing half written is left: {left:?}");
}

#[test]
fn what_is_not_the_same_is_named() {
    let mut model = Model::new();
    model.measure();
    fs::write(model.path(), "some mode1").unwrap();
    assert!(model.differences().starts_with("model_sha256 was "), "{}", model.differences());
    assert_eq!(model.fitting(), None);
    fs::write(model.path(), "another model").unwrap();
    assert_eq!(model.differences(), "model_bytes was \"10\", is \"13\"");
    fs::write(model.path(), "some model").unwrap();
    assert_eq!(model.differences(), "");

    model.loaded.threads = 4;
    model.loaded.runtime = "script 2".to_owned();
    let expected =
        "intra_op_threads was \"2\", is \"4\"; runtime was \"script 1\", is \"script 2\"";
    assert_eq!(model.differences(), expected);
    assert_eq!(model.fitting(), None);
}

#[test]
fn settings_that_change_runs_are_compared() {
    let mut model = Model::new();
    model.measure();
    let resolved = |key, text: &'static str| {
        let raw = move |asked: &str| (asked == key).then(|| (text.to_owned(), Origin::Flag));
        Config::resolve(raw).unwrap().model
    };
    model.config = resolved("max_queue_jobs", "7");
    assert_eq!(model.differences(), "", "how requests wait changes no run");
    model.config = resolved("graph_optimization", "off");
    let said = model.differences();
    let expected = "settings was \"graph_optimization=all\", is \"graph_optimization=off\"";
    assert_eq!(said, expected);
    let options = "[provider_options.cpu]\narena = \"off\"";
    model.config = ModelConfig::parse(options, &resolved("instances", "1")).unwrap();
    assert!(model.differences().ends_with("is \"graph_optimization=all, arena=off\""));
}

#[test]
fn a_file_that_is_none_is_told_of_and_not_taken() {
    let model = Model::new();
    let path = path_of(&model.path());
    fs::write(&path, "schema = 1\nfoo =\n").unwrap();
    assert!(read(&path).unwrap_err().starts_with("line 2, `foo`: "), "{:?}", read(&path));
    assert_eq!(model.fitting(), None);
    fs::write(&path, [0xFF, 0xFE]).unwrap();
    assert!(read(&path).is_err());
    fs::write(&path, "#".repeat(MAX_BYTES + 1)).unwrap();
    assert_eq!(read(&path).unwrap_err(), format!("it is longer than {MAX_BYTES} bytes"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(read(&path).unwrap_err(), "it is no file");
    assert_eq!(model.fitting(), None);
    let absent = model.folder.path().join("absent/model.onnx");
    let points = vec![point(1, 100)];
    let measured_on = measured_on(&model.path(), &model.loaded, &model.config).unwrap();
    let failed = save(&path_of(&absent), &CostFile { measured_on, points }).unwrap_err();
    assert!(failed.contains("absent/costs.toml"), "{failed}");
}

#[test]
fn runs_of_one_row_say_nothing_of_larger_ones() {
    let one = [point(1, 100)];
    assert!(cover(&key(), &one, 1) && !cover(&key(), &one, 64));
    assert!(cover(&key(), &[point(1, 100), point(2, 150)], 64));
    let mut costs = CostModel::new(64, std::time::Duration::ZERO);
    one[0].tell(&mut costs);
    assert_eq!(costs.best_rows(1, 64), 1, "why it matters");
}
