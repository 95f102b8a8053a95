//! `onnxd profile`: what it refuses before it needs a runtime, and how it takes a model.

use onnxd::cli::{Outcome, command, run};

use crate::scripted::lay_out;

fn profile(arguments: &[&str]) -> Outcome {
    let line = ["onnxd", "profile", "--log", "off"].iter().chain(arguments);
    run(&command().try_get_matches_from(line).unwrap(), |_| {})
}

#[test]
fn a_model_that_is_not_there_is_told_with_those_that_are() {
    let models = tempfile::tempdir().unwrap();
    lay_out(models.path(), &["echo", "gate"]);
    let path = models.path().to_str().unwrap();
    let outcome = profile(&["absent", "--models", path]);
    assert_eq!(outcome.code, 1);
    let expected = format!("no model \"absent\" in {path}; it has: echo, gate");
    assert_eq!(outcome.text, expected);
    let absent = models.path().join("absent.onnx");
    assert_eq!(profile(&[absent.to_str().unwrap()]).code, 1);
    assert_eq!(profile(&["echo", "--models", "absent"]).code, 1);
    std::fs::write(models.path().join("echo/model.toml"), "instances = 0").unwrap();
    let outcome = profile(&["echo", "--models", path]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.text.contains("instances"), "{outcome:?}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let outcome = profile(&["some.onnx", "--models", "models"]);
    assert_eq!((outcome.code, outcome.text.as_str()), (2, "--models: MODEL is a file already"));
    for wrong in [["--lengths", "0"], ["--lengths", "8,x"], ["--budget-ms", "-1"]] {
        let line = ["onnxd", "profile", "echo"].iter().chain(&wrong);
        assert!(command().try_get_matches_from(line).is_err(), "{wrong:?}");
    }
}

#[test]
fn without_a_runtime_it_cannot_start() {
    let models = tempfile::tempdir().unwrap();
    lay_out(models.path(), &["echo"]);
    let path = models.path().to_str().unwrap();
    let outcome = profile(&["echo", "--models", path, "--runtime-library", "absent.so"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(outcome.text.contains("absent.so"), "{outcome:?}");
}

#[test]
fn a_wrong_cost_file_is_found_by_a_check() {
    let models = tempfile::tempdir().unwrap();
    lay_out(models.path(), &["echo"]);
    std::fs::write(models.path().join("echo/1/costs.toml"), "schema = 7\n").unwrap();
    let line = ["onnxd", "check", models.path().to_str().unwrap()];
    let outcome = run(&command().try_get_matches_from(line).unwrap(), |_| {});
    assert_eq!(outcome.code, 0, "it serves all the same: {outcome:?}");
    assert!(outcome.text.contains("costs.toml is not used: line 1, `schema`"), "{outcome:?}");
}
