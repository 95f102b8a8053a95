//! What runs cost: told on the operator's port, taken from a file beside the model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onnxd::config::{Config, ModelConfig};
use onnxd::cost::file::{CostFile, MeasuredOn, MeasuredPoint};
use onnxd::model::{ModelKey, ModelName, ModelVersion};
use onnxd::repository::costs;
use onnxd::worker::{ModelLoader, ModelSource};
use serde_json::Value;

use crate::control::load;
use crate::harness::{TestServer, request};
use crate::ports::get;
use crate::scripted::{ScriptedLoader, lay_out};

/// Longest wait for anything; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the operator's port says of a model.
async fn told(server: &TestServer, model: &str) -> Value {
    let (status, body) = get(server.admin, "/costs").await;
    assert_eq!(status, 200);
    let told: Value = serde_json::from_str(&body).unwrap();
    let models = told["models"].as_array().unwrap();
    models.iter().find(|each| each["name"] == model).cloned().unwrap_or(Value::Null)
}

/// Runs that the points of a model were learned from.
fn runs(told: &Value) -> u64 {
    told["points"].as_array().unwrap().iter().map(|point| point["runs"].as_u64().unwrap()).sum()
}

/// Asks until a model's costs are as wanted. A run is counted just after its answers went out.
async fn until(server: &TestServer, model: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let told = told(server, model).await;
            if is_so(&told) {
                return told;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap()
}

#[tokio::test]
async fn costs_are_told_and_change_with_every_run() {
    let server = TestServer::start(&[("batching", "auto"), ("instances", "2")]).await;
    let before = told(&server, "echo").await;
    let expected = serde_json::json!({
        "name": "echo", "version": 1, "batching": "auto", "instances": 2,
        "begun_with": "nothing", "rows_per_run": 1, "points": [], "row_costs": [],
    });
    assert_eq!(before, expected);
    let mut client = server.client().await;
    for run in 1..=3 {
        client.model_infer(request("echo", &[1.0])).await.unwrap();
        until(&server, "echo", |told| runs(told) == run).await;
    }
    let after = told(&server, "echo").await;
    let (point, row) = (&after["points"][0], &after["row_costs"][0]);
    assert_eq!(
        (&point["length"], &point["rows"], &point["runs"]),
        (&1.into(), &1.into(), &3.into())
    );
    assert!(point["micros"].as_f64().unwrap() > 0.0, "{after}");
    assert_eq!((&row["length"], &row["rows"]), (&1.into(), &1.into()));
    assert!(row["micros"].as_f64().unwrap() > 0.0, "{after}");
    assert_eq!(runs(&told(&server, "gate").await), 0, "each model has its own");
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_served_has_no_costs() {
    let server = TestServer::start_with(&[], &["broken", "echo"], ScriptedLoader::default()).await;
    server.loaded().await;
    assert_eq!(told(&server, "broken").await, Value::Null);
    assert_ne!(told(&server, "echo").await, Value::Null);
    server.finish().await;
}

/// A server that loads by name and tries rows at start.
async fn patient() -> TestServer {
    let settings = [
        ("model_control", "explicit"),
        ("batching", "auto"),
        ("warmup_ms", "5000"),
        ("max_batch_size", "8"),
    ];
    TestServer::start_with(&settings, &["echo"], ScriptedLoader::default()).await
}

fn model_file(server: &TestServer) -> PathBuf {
    server.models.path().join("echo/1/model.onnx")
}

/// What the costs of a scripted model must have been measured on to fit.
fn here(server: &TestServer) -> MeasuredOn {
    let key = ModelKey { name: ModelName::new("echo").unwrap(), version: ModelVersion::FIRST };
    let config: ModelConfig = Config::resolve(|_| None).unwrap().model;
    let source = ModelSource { key, path: model_file(server), sha256: None };
    let loaded = server.loader.load(&source, &config).unwrap();
    costs::measured_on(&source.path, &loaded, &config).unwrap()
}

fn point(rows: usize, micros: u64) -> MeasuredPoint {
    MeasuredPoint::new(1, rows, Duration::from_micros(micros)).unwrap()
}

#[tokio::test]
async fn costs_beside_a_model_are_taken_instead_of_measuring() {
    let server = patient().await;
    let points = vec![point(1, 1000), point(4, 1200), point(8, 4000)];
    let file = CostFile { measured_on: here(&server), points };
    costs::save(&costs::path_of(&model_file(&server)), &file).unwrap();
    load(&mut server.operator().await, "echo").await.unwrap();
    let echo = server.loader.control("echo");
    assert_eq!(echo.runs_so_far(), [1, 1, 1, 2], "one to warm up, three to try the rows");
    let told = told(&server, "echo").await;
    assert_eq!((&told["begun_with"], &told["rows_per_run"]), (&"file".into(), &4.into()));
    let micros: Vec<f64> = told["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["micros"].as_f64().unwrap())
        .collect();
    assert_eq!(micros, [1000.0, 1200.0, 4000.0]);
    // What is around a run counts, too.
    let row = &told["row_costs"][0];
    assert_eq!((&row["rows"], &row["micros"]), (&4.into(), &307.5.into()));
    server.finish().await;
}

#[tokio::test]
async fn costs_that_do_not_fit_keep_no_model_from_serving() {
    for wrong in ["elsewhere", "one row", "malformed"] {
        let server = patient().await;
        let path = costs::path_of(&model_file(&server));
        let measured_on = match wrong {
            "elsewhere" => MeasuredOn { intra_op_threads: 7, ..here(&server) },
            _ => here(&server),
        };
        let points = match wrong {
            "one row" => vec![point(1, 1000)],
            _ => vec![point(1, 1000), point(8, 4000)],
        };
        costs::save(&path, &CostFile { measured_on, points }).unwrap();
        if wrong == "malformed" {
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("rows = 8", "rows = -8")).unwrap();
        }
        load(&mut server.operator().await, "echo").await.unwrap();
        let measured = server.loader.control("echo").runs_so_far();
        assert!(measured.contains(&8), "{wrong}: {measured:?}");
        let told = told(&server, "echo").await;
        assert_eq!(told["begun_with"], "first_runs", "{wrong}");
        server.client().await.model_infer(request("echo", &[1.0])).await.unwrap();
        server.finish().await;
    }
}

#[tokio::test]
async fn without_first_runs_costs_are_taken_all_the_same() {
    let settings = [("model_control", "explicit"), ("batching", "fixed"), ("max_batch_size", "8")];
    let server = TestServer::start_with(&settings, &["echo"], ScriptedLoader::default()).await;
    let file = CostFile { measured_on: here(&server), points: vec![point(1, 10), point(2, 15)] };
    costs::save(&costs::path_of(&model_file(&server)), &file).unwrap();
    load(&mut server.operator().await, "echo").await.unwrap();
    assert_eq!(server.loader.control("echo").runs_so_far(), [0; 0]);
    assert_eq!(told(&server, "echo").await["begun_with"], "file");
    server.finish().await;
}

#[tokio::test]
async fn costs_that_appear_load_nothing_anew() {
    let settings = [("model_control", "poll"), ("poll_ms", "5")];
    let server = TestServer::start_with(&settings, &["echo"], ScriptedLoader::default()).await;
    server.loaded().await;
    let before = server.repository.resolve("echo", None).unwrap();
    let file = CostFile { measured_on: here(&server), points: vec![point(1, 10), point(2, 15)] };
    costs::save(&costs::path_of(&model_file(&server)), &file).unwrap();
    // Another model that appears later is loaded by a look that has seen the costs as well.
    lay_out(server.models.path(), &["gate"]);
    server.until(|repository| !repository.ready_versions("gate").is_empty()).await;
    let after = server.repository.resolve("echo", None).unwrap();
    assert!(Arc::ptr_eq(&before, &after), "the same model serves on");
    drop((before, after));
    server.finish().await;
}
