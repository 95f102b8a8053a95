//! The load generator against a real socket: what it counts is what happened.

use std::time::Duration;

use onnxd::bench::Measured;
use onnxd::bench::input::{self, Given};
use onnxd::bench::load::{Load, Pace, run};
use prost::Message;
use tonic::Code;

use crate::harness::{TestServer, request};
use crate::scripted::POISON;

fn load(pace: Pace, model: &str, value: f32) -> Load {
    Load {
        pace,
        duration: Duration::from_millis(100),
        connections: 2,
        timeout: None,
        cancels: true,
        messages: vec![request(model, &[value]).encode_to_vec().into()],
    }
}

async fn measure(server: &TestServer, load: &Load) -> Measured {
    run(&server.grpc.to_string(), load, |_| {}).await.unwrap()
}

/// How requests ended, without how many.
fn codes(measured: &Measured) -> Vec<i32> {
    measured.codes.keys().copied().collect()
}

#[tokio::test]
async fn every_pace_counts_its_answers() {
    let server = TestServer::start(&[]).await;
    for pace in [Pace::Closed(8), Pace::Open(500.0), Pace::Streams { count: 2, window: 4 }] {
        let measured = measure(&server, &load(pace, "echo", 1.0)).await;
        assert_eq!(codes(&measured), [0], "{pace:?}");
        assert!(measured.answers() > 5, "{pace:?}: {}", measured.answers());
        assert_eq!(measured.latency.len(), measured.answers(), "{pace:?}");
        assert!((measured.in_time() - 1.0).abs() < 1e-9);
        // Only requests that have a time to leave at can leave late.
        let timed = if matches!(pace, Pace::Open(_)) { measured.answers() } else { 0 };
        assert_eq!(measured.lag.len(), timed, "{pace:?}");
    }
    let runs: usize = server.loader.control("echo").runs_so_far().iter().sum();
    let served = server.repository.resolve("echo", None).unwrap();
    assert_eq!(u64::try_from(runs).unwrap(), served.statistics.snapshot().inferences);
    server.finish().await;
}

#[tokio::test]
async fn what_fails_is_no_answer_also_inside_a_stream() {
    let server = TestServer::start(&[]).await;
    let stream = Pace::Streams { count: 1, window: 1 };
    for (pace, code) in [(Pace::Closed(1), Code::InvalidArgument), (stream, Code::Unknown)] {
        let measured = measure(&server, &load(pace, "poison", POISON)).await;
        assert_eq!(codes(&measured), [i32::from(code)], "{pace:?}");
        assert_eq!((measured.answers(), measured.latency.len()), (0, 0));
    }
    let measured = measure(&server, &load(Pace::Closed(1), "nobody", 1.0)).await;
    assert_eq!(codes(&measured), [i32::from(Code::NotFound)]);
    server.finish().await;
}

#[tokio::test]
async fn a_deadline_is_kept_by_the_caller_or_told_to_the_server() {
    let server = TestServer::start(&[]).await;
    for cancels in [true, false] {
        let load = Load {
            timeout: Some(Duration::from_millis(20)),
            cancels,
            ..load(Pace::Closed(4), "gate", 1.0)
        };
        let measured = measure(&server, &load).await;
        let late = i32::from(Code::DeadlineExceeded);
        assert_eq!(codes(&measured), [late], "cancels: {cancels}");
        assert!(measured.in_time().abs() < 1e-9);
    }
    server.loader.control("gate").open();
    server.finish().await;
}

#[tokio::test]
async fn nobody_there_is_an_error_and_a_request_needs_metadata_only() {
    let server = TestServer::start(&[]).await;
    let address = server.grpc.to_string();
    let metadata = input::metadata(&address, "echo").await.unwrap();
    let given = Given { shapes: vec![("x".to_owned(), vec![3, 2])], ..Given::default() };
    let message = input::request(&metadata, (1, 1), &given).unwrap();
    let decoded = onnxd::pb::ModelInferRequest::decode(message).unwrap();
    assert_eq!(decoded.inputs[0].shape, [3, 2]);
    assert_eq!(decoded.raw_input_contents[0].len(), 24);
    server.finish().await;
    let problem = run(&address, &load(Pace::Closed(1), "echo", 1.0), |_| {}).await.unwrap_err();
    assert!(problem.contains(&address), "{problem}");
}
