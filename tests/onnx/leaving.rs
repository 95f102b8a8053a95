//! Runs that nobody waits for any more are stopped between two nodes, and the worker serves on.

use std::time::Duration;

use onnxd::pb::infer_parameter::ParameterChoice;
use onnxd::pb::{InferParameter, ModelInferRequest};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::harness::{End, RealServer, floats, output, request};

/// Turns of a run that ends by itself after the test has given up: a thousand take milliseconds.
const ENDLESS: i64 = 10_000_000_000;

fn ask(turns: i64) -> ModelInferRequest {
    let turns = turns.to_le_bytes().to_vec();
    let inputs =
        vec![("x", "FP32", &[1, 1][..], floats(&[1.0])), ("iterations", "INT64", &[], turns)];
    request("loop_busy", inputs)
}

/// The same with a limit that the server alone watches, in microseconds.
fn limited(mut message: ModelInferRequest, micros: i64) -> ModelInferRequest {
    let choice = Some(ParameterChoice::Int64Param(micros));
    let parameter = InferParameter { parameter_choice: choice };
    message.parameters.insert("timeout".to_owned(), parameter);
    message
}

fn call(server: &RealServer, message: ModelInferRequest) -> JoinHandle<End> {
    let mut client = server.client.clone();
    tokio::spawn(async move { client.model_infer(message).await.map(tonic::Response::into_inner) })
}

/// The only worker takes and answers another request.
async fn serves_on(server: &RealServer) {
    let begun_at = Instant::now();
    assert_eq!(output(&server.infer(ask(3)).await, 0), [4.0]);
    let took = begun_at.elapsed();
    assert!(took < Duration::from_secs(5), "the worker was free only after {took:?}");
}

#[tokio::test]
async fn a_caller_that_leaves_stops_its_run() {
    let server = RealServer::of("loop_busy", "").await;
    let leaving = call(&server, ask(ENDLESS));
    server.running("loop_busy", 1).await;
    leaving.abort();
    server.running("loop_busy", 0).await;
    serves_on(&server).await;
    server.finish().await;
}

#[tokio::test]
async fn a_deadline_stops_the_run_that_it_passes_in() {
    let server = RealServer::of("loop_busy", "").await;
    for _ in 0..3 {
        let begun_at = Instant::now();
        let status = server.refusal(limited(ask(ENDLESS), 100_000)).await;
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.message(), "deadline passed (execution)");
        assert!(begun_at.elapsed() >= Duration::from_millis(100));
        serves_on(&server).await;
    }
    let mut hurried = Request::new(ask(ENDLESS));
    hurried.set_timeout(Duration::from_millis(100));
    let end = server.client.clone().model_infer(hurried).await;
    assert!(end.is_err(), "{end:?}");
    serves_on(&server).await;
    server.finish().await;
}

#[tokio::test]
async fn a_run_goes_on_for_those_who_stay() {
    let config = "batching = \"fixed\"\nmax_batch_size = 2\nmax_queue_delay_us = 60000000";
    let mut server = RealServer::of("loop_busy", config).await;
    // Long enough to leave in the middle.
    let turns = 400_000;
    let (leaving, staying) = (call(&server, ask(turns)), call(&server, ask(turns)));
    server.running("loop_busy", 1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let answer = staying.await.unwrap().unwrap();
    assert_eq!(output(&answer, 0), [400_001.0]);
    assert_eq!(server.statistics("loop_busy").await.execution_count, 1);

    // When the second leaves too, it ends.
    let both = [call(&server, ask(ENDLESS)), call(&server, ask(ENDLESS))];
    server.running("loop_busy", 1).await;
    both.iter().for_each(JoinHandle::abort);
    server.running("loop_busy", 0).await;
    server.finish().await;
}
