//! `onnxd profile` on real models, and servers that take what it kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use onnxd::cost::file::CostFile;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{PATIENCE, RealServer, floats, generated, repository, request};
use crate::process::{Process, profile};

/// What the operator's port says of the only model.
async fn costs(admin: SocketAddr) -> Value {
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let head = "GET /costs HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    told["models"][0].clone()
}

/// A repository with one small model.
fn small() -> tempfile::TempDir {
    repository(&[(generated().join("mlp_tiny").as_path(), "max_batch_size = 8")])
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Profiles the small model and keeps its costs. Gives what was printed.
fn keep(models: &Path, arguments: &[&str]) -> String {
    let common = ["mlp_tiny", "--models", path(models), "--budget-ms", "2000", "--save"];
    let (code, said, complaint) = profile(&[&common[..], arguments].concat());
    assert_eq!(code, Some(0), "{complaint}");
    said
}

fn costs_file(models: &Path) -> PathBuf {
    models.join("mlp_tiny/1/costs.toml")
}

fn read(file: &Path) -> CostFile {
    CostFile::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[tokio::test]
async fn a_server_takes_what_was_measured() {
    let models = small();
    let file = costs_file(models.path());
    let plot = models.path().join("plot.svg");
    let said = keep(models.path(), &["--plot", path(&plot)]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("mlp_tiny/1: cpu, "), "{said}");
    let title = ["rows", "length", "time", "time", "per", "row", "rows/s", "runs"];
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), title);
    let rows = |line: &&str| line.split_whitespace().next().unwrap().parse::<usize>().ok();
    let sizes: Vec<usize> =
        lines.iter().filter(|line| !line.contains("between")).filter_map(rows).collect();
    assert_eq!(sizes, [1, 2, 3, 4, 6, 8]);
    assert_eq!(said.matches("<- best").count(), 1, "{said}");
    assert!(said.contains(&format!("saved: {}", file.display())), "{said}");
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("length 1"), "{svg}");

    let kept = read(&file);
    assert_eq!(kept.measured_on.provider, "cpu");
    assert!(kept.measured_on.runtime.starts_with("ONNX Runtime "), "{:?}", kept.measured_on);
    let server = Process::start(models.path(), &[]);
    let told = costs(server.admin).await;
    let log = server.stop();
    assert_eq!(told["begun_with"], "file", "{log}");
    let points: Vec<(u64, f64)> = told["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (point["rows"].as_u64().unwrap(), point["micros"].as_f64().unwrap()))
        .collect();
    let expected: Vec<(u64, f64)> =
        kept.points.iter().map(|point| (point.rows.get().into(), point.micros)).collect();
    assert_eq!(points, expected, "the file's own, and no others");
    assert!(log.contains("costs are those of the file") && log.contains("costs=\"file\""), "{log}");
}

#[tokio::test]
async fn a_server_that_is_not_the_same_measures() {
    let models = small();
    keep(models.path(), &["--intra-op-threads", "1"]);
    let server = Process::start(models.path(), &["--intra-op-threads", "2"]);
    let told = costs(server.admin).await;
    let log = server.stop();
    assert_eq!(told["begun_with"], "first_runs", "{log}");
    assert!(log.contains(r#"intra_op_threads was \"1\", is \"2\""#), "{log}");

    let file = costs_file(models.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let wrong = text.replacen("rows = 2", "rows = \"two\"", 1);
    std::fs::write(&file, &wrong).unwrap();
    let server = Process::start(models.path(), &["--intra-op-threads", "1"]);
    let told = costs(server.admin).await;
    let log = server.stop();
    assert_eq!(told["begun_with"], "first_runs", "{log}");
    let line = wrong.lines().position(|line| line == "rows = \"two\"").unwrap() + 1;
    assert!(log.contains(&format!("line {line}, `points.rows`")), "{log}");
}

#[test]
fn one_file_keeps_its_costs_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny.onnx");
    std::fs::copy(generated().join("mlp_tiny/1/model.onnx"), &model).unwrap();
    let (code, said, complaint) =
        profile(&[path(&model), "--budget-ms", "50", "--max-batch-size", "2", "--save"]);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.starts_with("tiny/1: "), "{said}");
    assert!(!read(&folder.path().join("tiny.costs.toml")).points.is_empty());
}

#[test]
fn lengths_are_those_that_are_asked_for() {
    let models = repository(&[(generated().join("dynamic_inner").as_path(), "max_batch_size = 2")]);
    let at = ["dynamic_inner", "--models", path(models.path()), "--budget-ms", "2000"];
    let (code, said, complaint) = profile(&[&at[..], &["--lengths", "5,70"]].concat());
    assert_eq!(code, Some(0), "{complaint}");
    let lengths: Vec<&str> = said
        .lines()
        .skip(2)
        .filter(|line| line.starts_with("     "))
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert!(lengths.contains(&"5") && lengths.contains(&"70"), "{said}");
}

#[test]
fn what_cannot_be_measured_or_kept_says_why() {
    let models = small();
    let at = ["mlp_tiny", "--models", path(models.path()), "--budget-ms", "20"];
    let (code, _, complaint) = profile(&[&at[..], &["--warmup-ms", "0"]].concat());
    assert_eq!(code, Some(1));
    assert!(complaint.contains("mlp_tiny/1: cannot be measured: warmup_ms is 0"), "{complaint}");
    let (code, _, complaint) = profile(&[&at[..], &["--lengths", "8"]].concat());
    assert_eq!(code, Some(1));
    assert!(complaint.contains("no inner dimension is open"), "{complaint}");
    let absent = models.path().join("absent/plot.svg");
    let (code, said, complaint) = profile(&[&at[..], &["--plot", path(&absent)]].concat());
    assert_eq!(code, Some(1));
    assert!(complaint.contains("absent/plot.svg"), "{complaint}");
    assert!(said.contains("time per row"), "what was measured is told: {said}");
}

#[tokio::test]
async fn costs_change_as_runs_happen() {
    let server = RealServer::of("mlp_tiny", "").await;
    let before = costs(server.admin).await;
    assert_eq!(
        (&before["name"], &before["begun_with"]),
        (&"mlp_tiny".into(), &"first_runs".into())
    );
    let width = server.served("mlp_tiny").spec.inputs[0].dims[1].wire();
    let values = vec![0.5; usize::try_from(width).unwrap()];
    let ask = || request("mlp_tiny", vec![("x", "FP32", &[1, width], floats(&values))]);
    let runs = |told: &Value| {
        let points = told["points"].as_array().unwrap();
        points.iter().map(|point| point["runs"].as_u64().unwrap()).sum::<u64>()
    };
    for _ in 0..5 {
        server.infer(ask()).await;
    }
    // The last run is counted just after its answer went out.
    let counted = async {
        loop {
            let now = costs(server.admin).await;
            if runs(&now) == runs(&before) + 5 {
                return now;
            }
        }
    };
    let after = tokio::time::timeout(PATIENCE, counted).await.unwrap();
    assert_ne!(before["points"][0]["micros"], after["points"][0]["micros"], "{before} {after}");
    server.finish().await;
}
