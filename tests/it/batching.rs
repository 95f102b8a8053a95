//! Requests of many callers meet in one run, and each gets its own rows.

use onnxd::pb::infer_parameter::ParameterChoice;
use onnxd::pb::{InferParameter, ModelStatisticsRequest};
use tokio::task::JoinSet;

use crate::harness::{Client, TestServer, queued, request, values};

#[tokio::test]
async fn what_waits_together_runs_together_and_comes_back_apart() {
    let server = TestServer::start(&[("max_batch_size", "8")]).await;
    let gate = server.loader.control("gate");
    let mut callers = JoinSet::new();
    let ask = async |rows: Vec<f32>, callers: &mut JoinSet<()>| {
        let mut client = server.client().await;
        callers.spawn(async move {
            let answer = client.model_infer(request("gate", &rows)).await.unwrap().into_inner();
            assert_eq!(values(&answer), rows);
        });
    };
    // The first run holds the only worker; the others gather behind it.
    ask(vec![0.5], &mut callers).await;
    assert_eq!(gate.runs(1).await, [1]);
    for caller in 0_u8..6 {
        ask(vec![f32::from(caller), f32::from(caller) + 0.25], &mut callers).await;
    }
    queued(&server, "gate", 6).await;
    gate.open();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(gate.runs_so_far(), [1, 8, 4]);
    let message = ModelStatisticsRequest { name: "gate".into(), version: String::new() };
    let statistics = server.client().await.model_statistics(message).await.unwrap().into_inner();
    let model = &statistics.model_stats[0];
    assert_eq!((model.inference_count, model.execution_count), (13, 3));
    assert_eq!(model.inference_stats.as_ref().unwrap().success.unwrap().count, 7);
    let sizes: Vec<_> = model
        .batch_stats
        .iter()
        .map(|batch| (batch.batch_size, batch.compute_infer.unwrap().count))
        .collect();
    assert_eq!(sizes, [(1, 1), (4, 1), (8, 1)]);
    server.finish().await;
}

#[tokio::test]
async fn shapes_never_share_a_run() {
    let server = TestServer::start(&[]).await;
    let gate = server.loader.control("gate");
    let mut callers = JoinSet::new();
    let mut first = server.client().await;
    callers.spawn(async move { first.model_infer(request("gate", &[0.0])).await.unwrap() });
    gate.runs(1).await;
    for caller in 0_u8..4 {
        let mut client = server.client().await;
        let mut message = request("gate", &[f32::from(caller), 1.0]);
        // Two shapes by turns: two rows of one value, one row of two.
        message.inputs[0].shape = if caller % 2 == 0 { vec![2, 1] } else { vec![1, 2] };
        callers.spawn(async move {
            let answer = client.model_infer(message.clone()).await.unwrap();
            assert_eq!(answer.get_ref().outputs[0].shape, message.inputs[0].shape);
            assert_eq!(values(answer.get_ref()), [f32::from(caller), 1.0]);
            answer
        });
    }
    queued(&server, "gate", 4).await;
    gate.open();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let mut runs = gate.runs_so_far();
    runs.sort_unstable();
    assert_eq!(runs, [1, 2, 4]);
    server.finish().await;
}

#[tokio::test]
async fn batching_off_runs_each_request_alone() {
    let server = TestServer::start(&[("batching", "off")]).await;
    let gate = server.loader.control("gate");
    let mut callers = JoinSet::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        callers
            .spawn(async move { client.model_infer(request("gate", &[1.0, 2.0])).await.unwrap() });
    }
    gate.runs(1).await;
    queued(&server, "gate", 2).await;
    gate.open();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(gate.runs_so_far(), [2, 2, 2]);
    server.finish().await;
}

#[tokio::test]
async fn the_urgent_are_answered_first() {
    let server = TestServer::start(&[("max_batch_size", "1")]).await;
    let gate = server.loader.control("gate");
    let (answered, mut answers) = tokio::sync::mpsc::channel(8);
    let mut waiting = 0;
    // The first holds the only worker; each of the others waits before the next one comes.
    for (value, priority) in [(0.0, 0), (1.0, 0), (2.0, 200), (3.0, 1), (4.0, 100), (5.0, 2)] {
        let (mut client, answered) = (server.client().await, answered.clone());
        let mut request = request("gate", &[value]);
        let choice = ParameterChoice::Uint64Param(priority);
        let parameter = InferParameter { parameter_choice: Some(choice) };
        request.parameters.insert("priority".into(), parameter);
        tokio::spawn(async move {
            let answer = client.model_infer(request).await.unwrap().into_inner();
            answered.send(values(&answer)[0]).await.unwrap();
        });
        if value == 0.0 {
            gate.runs(1).await;
        } else {
            waiting += 1;
            queued(&server, "gate", waiting).await;
        }
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        gate.allow(1);
        order.push(answers.recv().await.unwrap());
    }
    assert_eq!(order, [0.0, 3.0, 5.0, 1.0, 4.0, 2.0]);
    server.finish().await;
}

#[tokio::test]
async fn a_request_is_counted_as_answered_or_as_failed_and_never_as_both() {
    let server = TestServer::start(&[("max_batch_size", "8")]).await;
    let gate = server.loader.control("gate");
    let ask = |value: f32, mut client: Client| {
        tokio::spawn(async move { client.model_infer(request("gate", &[value])).await })
    };
    let first = ask(0.0, server.client().await);
    gate.runs(1).await;
    let stays = ask(1.0, server.client().await);
    let leaves = ask(2.0, server.client().await);
    queued(&server, "gate", 2).await;
    gate.allow(1);
    first.await.unwrap().unwrap();
    // Both ride; one caller leaves while the run is under way.
    assert_eq!(gate.runs(2).await, [1, 2]);
    leaves.abort();
    let statistics = &server.repository.resolve("gate", None).unwrap().statistics;
    while statistics.snapshot().fail.count == 0 {
        tokio::task::yield_now().await;
    }
    gate.allow(1);
    stays.await.unwrap().unwrap();
    let sums = statistics.snapshot();
    assert_eq!((sums.success.count, sums.fail.count, sums.queue.count), (2, 1, 3));
    server.finish().await;
}
