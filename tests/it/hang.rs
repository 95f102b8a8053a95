//! Runs that do not end: the model leaves service and comes back, the others serve on.

use onnxd::pb::ModelReadyRequest;
use onnxd::repository::Repository;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{TestServer, queued, request, values};
use crate::scripted::{POISON, ScriptedLoader};

async fn get(server: &TestServer, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.admin).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn serves(repository: &Repository, model: &str) -> bool {
    !repository.ready_versions(model).is_empty()
}

/// Runs longer than this hang; none of the tests' other runs last at all.
const HANG: (&str, &str) = ("hang_timeout_ms", "100");

#[tokio::test]
async fn a_model_that_hangs_leaves_service_until_its_run_ends() {
    let loader = ScriptedLoader::default();
    let server = TestServer::start_with(&[HANG], &["stuck", "echo"], loader).await;
    server.loaded().await;
    let control = server.loader.control("stuck");
    let mut client = server.patient_client().await;
    let mut late = request("stuck", &[1.0]);
    let timeout = onnxd::pb::infer_parameter::ParameterChoice::Int64Param(50_000);
    let parameter = onnxd::pb::InferParameter { parameter_choice: Some(timeout) };
    late.parameters.insert("timeout".into(), parameter);
    let rider = tokio::spawn(async move { client.model_infer(late).await });
    control.runs(1).await;
    let mut client = server.client().await;
    let waiting = tokio::spawn(async move { client.model_infer(request("stuck", &[2.0])).await });
    queued(&server, "stuck", 1).await;

    server.until(|repository| !serves(repository, "stuck")).await;
    assert_eq!(rider.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let mut client = server.client().await;
    let refused = client.model_infer(request("stuck", &[3.0])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("hang"), "{}", refused.message());
    let asked = ModelReadyRequest { name: "stuck".into(), version: String::new() };
    assert!(!client.model_ready(asked.clone()).await.unwrap().get_ref().ready);
    let mut health = HealthClient::new(server.channel().await);
    let checked = HealthCheckRequest { service: "stuck".into() };
    let checked = health.check(checked).await.unwrap();
    assert_eq!(checked.get_ref().status(), ServingStatus::NotServing);
    let metrics = get(&server, "/metrics").await;
    assert!(metrics.contains("onnxd_hung_workers{model=\"stuck\",version=\"1\"} 1"), "{metrics}");
    let echo = client.model_infer(request("echo", &[4.0])).await.unwrap();
    assert_eq!(values(echo.get_ref()), [4.0]);
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(server.repository.is_ready());

    control.open();
    server.until(|repository| serves(repository, "stuck")).await;
    assert!(client.model_ready(asked).await.unwrap().get_ref().ready);
    let answer = client.model_infer(request("stuck", &[5.0])).await.unwrap();
    assert_eq!(values(answer.get_ref()), [5.0]);
    let metrics = get(&server, "/metrics").await;
    assert!(metrics.contains("onnxd_hung_workers{model=\"stuck\",version=\"1\"} 0"), "{metrics}");
    server.finish().await;
}

#[tokio::test]
async fn a_process_whose_runs_all_hang_is_not_alive() {
    let settings = [HANG, ("instances", "2"), ("max_batch_size", "1")];
    let server = TestServer::start_with(&settings, &["stuck"], ScriptedLoader::default()).await;
    server.loaded().await;
    let control = server.loader.control("stuck");
    let call = |value: f32| {
        let channel = server.client();
        async move { channel.await.model_infer(request("stuck", &[value])).await }
    };
    let (mut first, mut second) = (Box::pin(call(1.0)), Box::pin(call(2.0)));
    tokio::select! {
        _ = &mut first => panic!("the run cannot end"),
        _ = control.runs(1) => {}
    }
    // One of two instances hangs: the other serves.
    let served = server.repository.resolve("stuck", None).unwrap();
    let limit = std::time::Duration::from_millis(100);
    while served.batcher.hung(tokio::time::Instant::now(), limit) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(serves(&server.repository, "stuck"));
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 200"));
    tokio::select! {
        _ = &mut second => panic!("the run cannot end"),
        () = server.until(|repository| !serves(repository, "stuck")) => {}
    }
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 503"));
    assert!(!server.repository.is_ready());

    control.open();
    // The callers have waited on: a run that ends late is still an answer.
    assert_eq!(values(first.await.unwrap().get_ref()), [1.0]);
    assert_eq!(values(second.await.unwrap().get_ref()), [2.0]);
    server.until(|repository| serves(repository, "stuck")).await;
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 200"));
    server.finish().await;
}

#[tokio::test]
async fn a_model_that_keeps_panicking_leaves_service_and_the_others_serve() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    for panics in 1..=5 {
        assert!(serves(&server.repository, "panics"), "{panics}");
        let status = client.model_infer(request("panics", &[POISON])).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
    server.until(|repository| !serves(repository, "panics")).await;
    let refused = client.model_infer(request("panics", &[1.0])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("panicked"), "{}", refused.message());
    let index = server.repository.index();
    let entry = index.iter().find(|entry| entry.key.name.as_str() == "panics").unwrap();
    let (state, reason) = entry.state.describe();
    assert!(state == "UNAVAILABLE" && reason.contains("panicked"), "{state} {reason}");
    let echo = client.model_infer(request("echo", &[4.0])).await.unwrap();
    assert_eq!(values(echo.get_ref()), [4.0]);
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 200"));
    server.finish().await;
}

#[tokio::test]
async fn a_lost_device_ends_service_and_liveness() {
    let loader = ScriptedLoader::default();
    let server = TestServer::start_with(&[], &["device", "echo"], loader).await;
    server.loaded().await;
    let mut client = server.client().await;
    let status = client.model_infer(request("device", &[POISON])).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    server.until(|repository| !serves(repository, "device")).await;
    let refused = client.model_infer(request("device", &[1.0])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("device"), "{}", refused.message());
    assert!(client.model_infer(request("echo", &[4.0])).await.is_ok());
    assert!(get(&server, "/livez").await.starts_with("HTTP/1.1 503"));
    // It was tried once: no half of a batch can do better.
    assert_eq!(server.loader.control("device").runs_so_far(), [1]);
    server.finish().await;
}
