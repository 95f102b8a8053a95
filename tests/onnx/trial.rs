//! A model file that ends the process that loads it: a child ends, and the server serves on.

use std::path::Path;

use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use onnxd::pb::{RepositoryIndexRequest, RepositoryModelLoadRequest};
use tonic::transport::Endpoint;

use crate::harness::{generated, repository};
use crate::process::{Process, refused};

fn add(models: &Path, version: u64, file: &Path) {
    let folder = models.join("add_i64").join(version.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(file, folder.join("model.onnx")).unwrap();
}

fn crashing() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/crashing/1/model.onnx")
}

#[tokio::test]
async fn a_new_version_that_ends_the_process_is_refused_and_the_old_one_serves() {
    let models = repository(&[(generated().join("add_i64").as_path(), "")]);
    let flags = ["--model-control", "explicit", "--load-models", "*"];
    let process = Process::start(models.path(), &flags);
    let endpoint = Endpoint::from_shared(format!("http://{}", process.admin)).unwrap();
    let mut operator = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let load = RepositoryModelLoadRequest {
        model_name: "add_i64".into(),
        ..RepositoryModelLoadRequest::default()
    };

    add(models.path(), 2, &crashing());
    let status = operator.repository_model_load(load.clone()).await.unwrap_err();
    assert!(status.message().contains("signal 8"), "{}", status.message());
    let index = RepositoryIndexRequest::default();
    let index = operator.repository_index(index).await.unwrap().into_inner().models;
    let states: Vec<_> = index.iter().map(|m| (m.version.as_str(), m.state.as_str())).collect();
    assert_eq!(states, [("1", "READY"), ("2", "UNAVAILABLE")]);
    assert!(index[1].reason.contains("signal 8"), "{}", index[1].reason);

    // One that loads takes the place of both.
    add(models.path(), 3, &generated().join("add_i64/1/model.onnx"));
    operator.repository_model_load(load).await.unwrap();
    let index = RepositoryIndexRequest { ready: true, ..RepositoryIndexRequest::default() };
    let index = operator.repository_index(index).await.unwrap().into_inner().models;
    assert!(index.iter().any(|m| m.version == "3"), "{index:?}");
    process.stop();
}

#[test]
fn at_start_it_is_tried_where_settings_say_so() {
    let models = tempfile::tempdir().unwrap();
    add(models.path(), 1, &crashing());
    let (code, text) = refused(models.path(), &["--try-models", "always", "--strict"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("signal 8"), "{text}");
    // Otherwise it is the server itself that ends.
    let (code, text) = refused(models.path(), &["--strict"]);
    assert_eq!(code, None, "{text}");
}
