//! Who runs when, and in which pieces: large requests in parts, callers that share, a full queue.

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Client, TestServer, queued, request, values};

#[tokio::test]
async fn a_request_with_more_rows_than_a_run_takes_comes_back_whole() {
    let settings = [("max_batch_size", "8"), ("batching", "fixed"), ("instances", "2")];
    let server = TestServer::start(&settings).await;
    let gate = server.loader.control("gate");
    gate.open();
    let rows: Vec<f32> = (0_u8..100).map(f32::from).collect();
    let answer = server.client().await.model_infer(request("gate", &rows)).await.unwrap();
    assert_eq!(values(answer.get_ref()), rows, "in the order of the rows");
    assert_eq!(answer.get_ref().outputs[0].shape, [100, 1]);
    let runs = gate.runs_so_far();
    assert!(runs.iter().all(|rows| *rows <= 8), "{runs:?}");
    assert_eq!(runs.iter().sum::<usize>(), 100);
    let requests = server.statistics("gate").await;
    assert_eq!((requests.inference_count, requests.execution_count), (100, 13));
    let counts = requests.inference_stats.unwrap();
    assert_eq!((counts.success.unwrap().count, counts.queue.unwrap().count), (1, 1));
    server.finish().await;
}

#[tokio::test]
async fn a_part_that_fails_fails_the_request_and_no_other() {
    let server = TestServer::start(&[("max_batch_size", "2"), ("batching", "fixed")]).await;
    let mut client = server.client().await;
    let mut rows = vec![1.0; 9];
    rows[5] = crate::scripted::POISON;
    let status = client.model_infer(request("poison", &rows)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let answer = client.model_infer(request("poison", &[1.0; 9])).await.unwrap();
    assert_eq!(values(answer.get_ref()), [1.0; 9]);
    server.finish().await;
}

#[tokio::test]
async fn a_caller_of_many_parts_that_leaves_leaves_nothing_behind() {
    let server = TestServer::start(&[("max_batch_size", "2"), ("batching", "fixed")]).await;
    let gate = server.loader.control("gate");
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", &[1.0; 20])).await });
    gate.runs(1).await;
    call.abort();
    gate.stopped().await;
    queued(&server, "gate", 0).await;
    gate.open();
    let answer = server.client().await.model_infer(request("gate", &[2.0])).await.unwrap();
    assert_eq!(values(answer.get_ref()), [2.0]);
    server.finish().await;
}

/// Sends `value`, and tells it when it is answered.
fn ask(client: &Client, value: f32, answered: &mpsc::Sender<f32>, callers: &mut JoinSet<()>) {
    let (mut client, answered) = (client.clone(), answered.clone());
    callers.spawn(async move {
        client.model_infer(request("gate", &[value])).await.unwrap();
        answered.send(value).await.unwrap();
    });
}

#[tokio::test]
async fn callers_share_whoever_came_first() {
    let server = TestServer::start(&[("max_batch_size", "1")]).await;
    let gate = server.loader.control("gate");
    let (answered, mut answers) = mpsc::channel(32);
    let mut callers = JoinSet::new();
    let (greedy, modest) = (server.client().await, server.client().await);
    ask(&greedy, 0.0, &answered, &mut callers);
    gate.runs(1).await;
    for value in 1_u8..=10 {
        ask(&greedy, f32::from(value), &answered, &mut callers);
    }
    queued(&server, "gate", 10).await;
    for value in [100.0, 101.0] {
        ask(&modest, value, &answered, &mut callers);
    }
    queued(&server, "gate", 12).await;
    let mut order = Vec::new();
    for _ in 0..13 {
        gate.allow(1);
        order.push(answers.recv().await.unwrap());
    }
    let last = order.iter().rposition(|value| *value >= 100.0).unwrap();
    assert!(last <= 5, "by turns with ten that came before: {order:?}");
    server.finish().await;
}

#[tokio::test]
async fn a_caller_that_fills_the_queue_makes_room_for_another() {
    let server = TestServer::start(&[("max_batch_size", "1"), ("max_queue_jobs", "4")]).await;
    let gate = server.loader.control("gate");
    let mut greedy = JoinSet::new();
    let client = server.client().await;
    for waiting in 0..=4 {
        let mut client = client.clone();
        greedy.spawn(async move { client.model_infer(request("gate", &[1.0])).await });
        match waiting {
            0 => drop(gate.runs(1).await),
            waiting => queued(&server, "gate", waiting).await,
        }
    }
    let mut modest = server.client().await;
    let modest = tokio::spawn(async move { modest.model_infer(request("gate", &[2.0])).await });
    let displaced = greedy.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(displaced.code(), Code::ResourceExhausted);
    assert!(displaced.metadata().get("grpc-retry-pushback-ms").is_some());
    gate.open();
    assert_eq!(values(modest.await.unwrap().unwrap().get_ref()), [2.0]);
    while let Some(answer) = greedy.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    server.finish().await;
}
