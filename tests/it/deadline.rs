//! Deadlines at every stage: at arrival, in the queue, while running; from the header, from the
//! request, from the stream.

use std::time::Duration;

use onnxd::pb::InferParameter;
use onnxd::pb::infer_parameter::ParameterChoice;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::harness::{TestServer, queued, request};

fn with_header(text: &str) -> Request<onnxd::pb::ModelInferRequest> {
    let mut message = Request::new(request("gate", &[1.0]));
    message.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
    message
}

#[tokio::test]
async fn past_at_arrival_is_refused_without_queueing() {
    let server = TestServer::start(&[]).await;
    let mut client = server.patient_client().await;
    let status = client.model_infer(with_header("0m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "deadline passed (arrival)");
    assert!(server.loader.control("gate").runs_so_far().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn a_header_that_is_no_timeout_is_refused() {
    let server = TestServer::start(&[]).await;
    let mut client = server.patient_client().await;
    for text in ["10x", "123456789m", "m"] {
        let status = client.model_infer(with_header(text)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{text}");
        assert!(status.message().contains(text), "{}", status.message());
    }
    server.finish().await;
}

#[tokio::test]
async fn in_the_queue_it_ends_on_time_and_never_runs() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.patient_client().await;
    let mut first = client.clone();
    let running = tokio::spawn(async move { first.model_infer(request("gate", &[1.0])).await });
    gate.runs(1).await;
    let sent_at = Instant::now();
    let status = client.model_infer(with_header("50m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "deadline passed (queue)");
    assert!(sent_at.elapsed() >= Duration::from_millis(50));
    queued(&server, "gate", 0).await;
    gate.open();
    assert!(running.await.unwrap().is_ok());
    assert_eq!(gate.runs_so_far(), [1]);
    server.finish().await;
}

#[tokio::test]
async fn while_running_it_ends_the_run_that_nobody_waits_for() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.patient_client().await;
    let status = client.model_infer(with_header("50m")).await.unwrap_err();
    assert_eq!(status.message(), "deadline passed (execution)");
    gate.stopped().await;
    gate.open();
    assert!(client.model_infer(request("gate", &[1.0])).await.is_ok());
    server.finish().await;
}

#[tokio::test]
async fn a_request_may_shorten_its_time_in_microseconds() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let mut message = request("gate", &[1.0]);
    let choice = Some(ParameterChoice::Int64Param(40_000));
    message.parameters.insert("timeout".into(), InferParameter { parameter_choice: choice });
    let status = client.model_infer(message).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    gate.open();
    server.finish().await;
}

#[tokio::test]
async fn without_a_header_the_default_holds() {
    let server = TestServer::start(&[("default_timeout_ms", "40")]).await;
    let mut client = server.client().await;
    let status = client.model_infer(request("gate", &[1.0])).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.loader.control("gate").open();
    server.finish().await;
}
