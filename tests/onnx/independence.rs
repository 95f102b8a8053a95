//! Rows share a run only where first runs have shown that they do not influence each other, unless
//! somebody has said so.

use onnxd::pb::ModelInferRequest;

use crate::harness::{Noise, RealServer, floats, output, request};

/// Requests would meet if they could.
const WAITS: &str = "max_queue_delay_us = 50000\n";

/// Most rows in a run and in a request.
fn sizes(server: &RealServer, model: &str) -> (usize, usize) {
    let served = server.served(model);
    (served.batcher.policy().max_rows, served.max_rows())
}

/// Nodes with equal values, and an edge in both directions.
fn graph(value: f32) -> ModelInferRequest {
    let edges: Vec<u8> = [0_i64, 1, 1, 0].iter().flat_map(|node| node.to_le_bytes()).collect();
    let inputs = vec![
        ("x", "FP32", &[2, 4][..], floats(&[value; 8])),
        ("edges", "INT64", &[2, 2][..], edges),
    ];
    request("graph_step", inputs)
}

#[tokio::test]
async fn what_first_runs_could_not_try_is_not_batched() {
    let mut server = RealServer::of("graph_step", WAITS).await;
    assert_eq!(sizes(&server, "graph_step"), (1, usize::MAX));
    // Joined, the second graph's edges would lead to the first graph's nodes.
    let ends = server.together((1..=8_u8).map(|value| graph(value.into())).collect()).await;
    for (end, value) in ends.iter().zip(1..=8_u8) {
        assert_eq!(output(end.as_ref().unwrap(), 0), [f32::from(value) * 2.0; 8]);
    }
    assert_eq!(server.statistics("graph_step").await.execution_count, 8);
    server.finish().await;
}

#[tokio::test]
async fn without_first_runs_nothing_is_known() {
    for model in ["mixes_rows", "identity_f32"] {
        let server = RealServer::of(model, &format!("{WAITS}warmup_ms = 0")).await;
        assert_eq!(sizes(&server, model), (1, usize::MAX), "{model}");
        server.finish().await;
    }
}

#[tokio::test]
async fn a_small_influence_on_small_values_is_an_influence() {
    let server = RealServer::of("mixes_small", WAITS).await;
    assert_eq!(sizes(&server, "mixes_small"), (1, usize::MAX));
    let mut noise = Noise::new(1);
    let mut ask =
        |_| request("mixes_small", vec![("x", "FP32", &[1, 4], floats(&noise.floats(4)))]);
    for end in server.together((0..8).map(&mut ask).collect()).await {
        assert_eq!(output(&end.unwrap(), 0), [0.0; 4]);
    }
    server.finish().await;
}

#[tokio::test]
async fn what_is_said_holds() {
    // Rows that could not be tried, and rows that could.
    for (model, tried) in [("int_divide", "batching = \"fixed\""), ("identity_f32", "")] {
        let config = format!("max_batch_size = 16\nwarmup_ms = 5000\n{tried}");
        let server = RealServer::of(model, &config).await;
        let (together, most) = sizes(&server, model);
        assert!(together > 1, "{model}");
        assert_eq!(most, 4096, "{model}");
        server.finish().await;
    }
    let unsaid = RealServer::of("int_divide", "").await;
    assert_eq!(sizes(&unsaid, "int_divide"), (1, usize::MAX));
    unsaid.finish().await;
}

#[tokio::test]
async fn made_up_requests_stay_small() {
    // The largest size that is tried for a dynamic dimension would take 505 terabytes here.
    let server = RealServer::of("dynamic_six", "").await;
    let seven: Vec<f32> = (0..7_u8).map(f32::from).collect();
    let ask = request("dynamic_six", vec![("x", "FP32", &[1, 1, 7, 1, 1, 1], floats(&seven))]);
    assert_eq!(output(&server.infer(ask).await, 0), seven);
    server.finish().await;
    let huge = "[inputs.x]\nexample_shape = [1, 1, 1, 1000000, 1000000, 1000000]";
    let server = RealServer::of("dynamic_six", huge).await;
    assert_eq!(sizes(&server, "dynamic_six").0, 1);
    server.finish().await;
}
