//! Callers that leave give their place and their memory back at once, wherever their request is.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;

use crate::harness::{TestServer, queued, request};

#[tokio::test]
async fn leaving_the_queue_frees_the_place_and_nothing_runs() {
    let server = TestServer::start(&[("max_queue_jobs", "50")]).await;
    let gate = server.loader.control("gate");
    let client = server.client().await;
    let mut first = client.clone();
    let running = tokio::spawn(async move { first.model_infer(request("gate", &[1.0])).await });
    gate.runs(1).await;
    let mut leaving = JoinSet::new();
    let mut staying = JoinSet::new();
    for caller in 0..50 {
        let mut client = client.clone();
        let call = async move { client.model_infer(request("gate", &[1.0])).await };
        if caller % 2 == 0 {
            leaving.spawn(call)
        } else {
            staying.spawn(call)
        };
    }
    queued(&server, "gate", 50).await;
    leaving.abort_all();
    queued(&server, "gate", 25).await;
    // The places can be used at once.
    for _ in 0..25 {
        let mut client = client.clone();
        staying.spawn(async move { client.model_infer(request("gate", &[1.0])).await });
    }
    queued(&server, "gate", 50).await;
    gate.open();
    while let Some(caller) = staying.join_next().await {
        assert!(caller.unwrap().is_ok());
    }
    assert!(running.await.unwrap().is_ok());
    assert_eq!(gate.runs_so_far().iter().sum::<usize>(), 51);
    server.finish().await;
}

#[tokio::test]
async fn the_last_rider_to_leave_stops_the_run() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", &[1.0])).await });
    gate.runs(1).await;
    call.abort();
    gate.stopped().await;
    // The worker is free again.
    gate.open();
    let mut client = server.client().await;
    assert!(client.model_infer(request("gate", &[2.0])).await.is_ok());
    server.finish().await;
}

#[tokio::test]
async fn a_lost_connection_is_a_caller_that_left() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let mut call = Box::pin(client.model_infer(request("gate", &[1.0])));
    // Polled by hand, so that dropping it drops the connection with it.
    let started = gate.runs(1);
    tokio::pin!(started);
    tokio::select! {
        _ = &mut call => panic!("answered too early"),
        _ = &mut started => {}
    }
    drop(call);
    drop(client);
    gate.stopped().await;
    gate.open();
    server.finish().await;
}

#[tokio::test]
async fn one_rider_leaving_does_not_stop_the_others_run() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let client = server.client().await;
    let mut first = client.clone();
    let holding = tokio::spawn(async move { first.model_infer(request("gate", &[0.0])).await });
    gate.runs(1).await;
    let call = |value: f32| {
        let mut client = client.clone();
        tokio::spawn(async move { client.model_infer(request("gate", &[value])).await })
    };
    let (leaver, stayer) = (call(1.0), call(2.0));
    queued(&server, "gate", 2).await;
    gate.allow(1);
    assert_eq!(gate.runs(2).await, [1, 2]);
    leaver.abort();
    assert!(gate.stopped().now_or_never().is_none());
    gate.allow(1);
    let answered = tokio::time::timeout(Duration::from_secs(10), stayer).await;
    assert!(answered.unwrap().unwrap().is_ok());
    assert!(holding.await.unwrap().is_ok());
    server.finish().await;
}
