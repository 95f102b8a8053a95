//! Errors and panics in a run: the guilty request gets them, nobody else.

use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{TestServer, request, values};
use crate::scripted::POISON;

#[tokio::test]
async fn a_poisoned_request_fails_alone() {
    // The delay lets all eight meet in one batch.
    let settings = [("max_queue_delay_us", "200000"), ("max_batch_size", "8")];
    let server = TestServer::start(&settings).await;
    let mut callers = JoinSet::new();
    for caller in 0_u8..8 {
        let mut client = server.client().await;
        let value = if caller == 3 { POISON } else { f32::from(caller) };
        callers.spawn(async move {
            let answer = client.model_infer(request("poison", &[value])).await;
            (value, answer)
        });
    }
    while let Some(caller) = callers.join_next().await {
        let (value, answer) = caller.unwrap();
        if value.to_bits() == POISON.to_bits() {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(!status.message().contains("poison"), "{}", status.message());
        } else {
            assert_eq!(values(answer.unwrap().get_ref()), [value]);
        }
    }
    // All eight, then halves of what holds the poison: 4 and 4, 2 and 2, 1 and 1.
    let mut runs = server.loader.control("poison").runs_so_far();
    runs.sort_unstable();
    assert_eq!(runs, [1, 1, 2, 2, 4, 4, 8]);
    server.finish().await;
}

#[tokio::test]
async fn a_panic_ends_neither_the_connection_nor_the_worker() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        let status = client.model_infer(request("panics", &[POISON])).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("told to"), "{}", status.message());
        let answer = client.model_infer(request("panics", &[1.0])).await.unwrap();
        assert_eq!(values(answer.get_ref()), [1.0]);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_caller_whose_requests_keep_failing_rides_alone() {
    let settings = [("max_queue_delay_us", "300000"), ("max_batch_size", "2")];
    let server = TestServer::start(&settings).await;
    let (mut guilty, mut neighbour) = (server.client().await, server.client().await);
    for _ in 0..3 {
        let (bad, good) = tokio::join!(
            guilty.model_infer(request("poison", &[POISON])),
            neighbour.model_infer(request("poison", &[1.0])),
        );
        assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(values(good.unwrap().get_ref()), [1.0]);
    }
    // They met, and met again apart.
    let control = server.loader.control("poison");
    assert_eq!(control.runs_so_far(), [2, 1, 1].repeat(3));
    let (bad, good) = tokio::join!(
        guilty.model_infer(request("poison", &[POISON])),
        neighbour.model_infer(request("poison", &[2.0])),
    );
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(values(good.unwrap().get_ref()), [2.0]);
    assert_eq!(control.runs_so_far()[9..], [1, 1]);
    // The others still share runs.
    let mut other = server.client().await;
    let (one, two) = tokio::join!(
        other.model_infer(request("poison", &[3.0])),
        neighbour.model_infer(request("poison", &[4.0])),
    );
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(control.runs_so_far()[11..], [2]);
    server.finish().await;
}
