//! Full is said at once, with both numbers and when to come again, and what was accepted is kept.

use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{TestServer, queued, request};

#[tokio::test]
async fn a_full_queue_refuses_and_forgets_nobody() {
    let server = TestServer::start(&[("max_queue_jobs", "8")]).await;
    let gate = server.loader.control("gate");
    let mut callers = JoinSet::new();
    let mut client = server.client().await;
    let mut first = client.clone();
    callers.spawn(async move { first.model_infer(request("gate", &[1.0])).await });
    gate.runs(1).await;
    for _ in 0..8 {
        let mut client = client.clone();
        callers.spawn(async move { client.model_infer(request("gate", &[1.0])).await });
    }
    queued(&server, "gate", 8).await;
    for _ in 0..11 {
        let status = client.model_infer(request("gate", &[1.0])).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "queue is full: 8 of 8 requests taken");
        assert!(status.metadata().get("grpc-retry-pushback-ms").is_some());
        assert!(status.get_error_details().retry_info().is_some());
    }
    gate.open();
    while let Some(caller) = callers.join_next().await {
        assert!(caller.unwrap().is_ok());
    }
    server.finish().await;
}

#[tokio::test]
async fn memory_for_requests_is_bounded_in_bytes() {
    // Two requests of 400 bytes fit, three do not.
    let server =
        TestServer::start(&[("request_memory_bytes", "1000"), ("max_batch_size", "128")]).await;
    let gate = server.loader.control("gate");
    let mut callers = JoinSet::new();
    let mut client = server.client().await;
    for started in 1..=2 {
        let mut client = client.clone();
        callers.spawn(async move { client.model_infer(request("gate", &[1.0; 100])).await });
        if started == 1 {
            gate.runs(1).await;
        }
    }
    queued(&server, "gate", 1).await;
    let status = client.model_infer(request("gate", &[1.0; 100])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "memory for requests is full: 800 of 1000 bytes taken");
    let hopeless = client.model_infer(request("echo", &[1.0; 128])).await.unwrap_err();
    assert_eq!(hopeless.code(), Code::ResourceExhausted);
    gate.open();
    while let Some(caller) = callers.join_next().await {
        assert!(caller.unwrap().is_ok());
    }
    assert!(client.model_infer(request("echo", &[1.0; 128])).await.is_ok());
    server.finish().await;
}
