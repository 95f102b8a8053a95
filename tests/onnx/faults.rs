//! Requests that make a real run fail, run for ever, or give other rows than they took.

use std::time::Duration;

use onnxd::pb::ModelInferRequest;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use crate::harness::{RealServer, floats, generated, output, repository, request};

/// Eight requests meet in one run.
const TOGETHER: &str = "batching = \"fixed\"\nmax_batch_size = 8\nmax_queue_delay_us = 2000000\n";

/// Sends all messages at once; gives their ends in order.
async fn together(
    server: &RealServer,
    messages: Vec<ModelInferRequest>,
) -> Vec<Result<onnxd::pb::ModelInferResponse, Status>> {
    let mut callers = JoinSet::new();
    for (caller, message) in messages.into_iter().enumerate() {
        let mut client = server.client.clone();
        callers.spawn(async move {
            (caller, client.model_infer(message).await.map(tonic::Response::into_inner))
        });
    }
    let mut ends = callers.join_all().await;
    ends.sort_by_key(|(caller, _)| *caller);
    ends.into_iter().map(|(_, end)| end).collect()
}

#[tokio::test]
async fn an_index_out_of_range_fails_its_own_request_only() {
    let source = generated().join("gather_100");
    let models = repository(&[(source.as_path(), TOGETHER)]);
    let server = RealServer::start(models.path(), &[]).await;
    let spec = server.repository.resolve("gather_100", None).unwrap().spec.clone();
    let name = spec.inputs[0].name.to_string();
    let ask = |index: i64| {
        request("gather_100", vec![(&name, "INT64", &[1, 1], index.to_le_bytes().to_vec())])
    };
    let ends = together(&server, (0..8).map(|i| ask(if i == 5 { 100 } else { i })).collect()).await;
    for (caller, end) in ends.iter().enumerate() {
        match end {
            Ok(answer) => assert_eq!(answer.outputs[0].shape[0], 1, "{caller}"),
            Err(status) => {
                assert_eq!((caller, status.code()), (5, Code::InvalidArgument), "{status}");
                assert!(!status.message().contains("Gather"), "{}", status.message());
            }
        }
    }
    assert!(ends[5].is_err());
    assert_ne!(
        ends[0].as_ref().unwrap().raw_output_contents,
        ends[1].as_ref().unwrap().raw_output_contents
    );
    server.finish().await;
}

#[tokio::test]
async fn rows_that_depend_on_values_are_never_cut_wrongly() {
    let source = generated().join("value_rows");
    let models = repository(&[(source.as_path(), TOGETHER)]);
    let server = RealServer::start(models.path(), &[]).await;
    // A row whose first value is -1 or less is dropped by the model.
    let ask = |value: f32| {
        request("value_rows", vec![("x", "FP32", &[1, 4], floats(&[value, 1.0, 2.0, 3.0]))])
    };
    let values: Vec<f32> = vec![1.0, 2.0, -5.0, 4.0, 5.0, -6.0, 7.0, 8.0];
    let ends = together(&server, values.iter().map(|value| ask(*value)).collect()).await;
    for (value, end) in values.iter().zip(ends) {
        let answer = end.unwrap();
        let expected = if *value > -1.0 { vec![*value, 1.0, 2.0, 3.0] } else { vec![] };
        assert_eq!(output(&answer, 0), expected);
    }
    assert_eq!(server.repository.resolve("value_rows", None).unwrap().batcher.policy().max_rows, 1);
    server.finish().await;
}

#[tokio::test]
async fn a_size_beyond_memory_fails_its_own_request_only() {
    let source = generated().join("expand");
    let models = repository(&[(source.as_path(), "")]);
    let server = RealServer::start(models.path(), &[]).await;
    let ask = |size: i64| {
        request("expand", vec![("size", "INT64", &[1, 1], size.to_le_bytes().to_vec())])
    };
    let ends = together(&server, vec![ask(1 << 50), ask(3)]).await;
    assert!(ends[0].is_err());
    assert!(ends[1].is_ok(), "{:?}", ends[1]);
    server.finish().await;
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_stopped() {
    let source = generated().join("loop_busy");
    let models = repository(&[(source.as_path(), "warmup_ms = 0")]);
    let mut server = RealServer::start(models.path(), &[]).await;
    let ask = |turns: i64| {
        let turns = turns.to_le_bytes().to_vec();
        request(
            "loop_busy",
            vec![("x", "FP32", &[1, 1], floats(&[1.0])), ("iterations", "INT64", &[], turns)],
        )
    };
    // Ten thousand million turns would take hours.
    let mut endless = Request::new(ask(10_000_000_000));
    endless.set_timeout(Duration::from_millis(200));
    assert!(server.client.model_infer(endless).await.is_err());
    // The only worker is free again.
    let answer = server.client.model_infer(ask(3)).await;
    assert!(answer.is_ok(), "{answer:?}");
    server.finish().await;
}
