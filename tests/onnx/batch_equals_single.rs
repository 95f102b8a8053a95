//! Rows that ran together get the answers that they get alone, for every shipped model.

use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use tokio::task::JoinSet;

use crate::harness::{RealServer, floats, noise, output, repository, request, shipped};

/// Requests are held this long, so that all of them meet; far longer than it takes to send them.
const TOGETHER: &str = "batching = \"fixed\"\nmax_batch_size = 8\nmax_queue_delay_us = 2000000\n";
const ALONE: &str = "batching = \"off\"\n";

/// Answers of the same eight requests, each run alone and all run together.
async fn both_ways(
    model: &str,
    ask: impl Fn(u64) -> ModelInferRequest,
) -> (Vec<ModelInferResponse>, Vec<ModelInferResponse>) {
    let mut ways = Vec::new();
    for config in [ALONE, TOGETHER] {
        let source = shipped().join(model);
        let models = repository(&[(source.as_path(), config)]);
        let mut server = RealServer::start(models.path(), &[]).await;
        let mut callers = JoinSet::new();
        for caller in 0..8 {
            let (mut client, message) = (server.client.clone(), ask(caller));
            callers.spawn(async move {
                (caller, client.model_infer(message).await.unwrap().into_inner())
            });
        }
        let mut answers = callers.join_all().await;
        answers.sort_by_key(|(caller, _)| *caller);
        let runs = server.statistics(model).await.execution_count;
        assert_eq!(runs, if config == ALONE { 8 } else { 1 }, "{model}");
        ways.push(answers.into_iter().map(|(_, answer)| answer).collect());
        server.finish().await;
    }
    let together = ways.pop().unwrap();
    (ways.pop().unwrap(), together)
}

/// Files of this repository, each longer than a kilobyte and of another kind than its neighbours.
const FILES: [&str; 8] = [
    "README.md",
    "Cargo.toml",
    "src/lib.rs",
    "proto/inference.proto",
    "LICENSE",
    "models/silero-vad/sample.wav",
    "tests/data/make_models.py",
    "Makefile",
];

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[tokio::test]
async fn magika_within_its_tolerance_and_a_swapped_row_is_found() {
    let (alone, together) = both_ways("magika", |caller| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = FILES[usize::try_from(caller).unwrap()];
        let text = std::fs::read(root.join(file)).unwrap();
        let head = text[..1024].iter().chain(&text[text.len() - 1024..]);
        let bytes = head.flat_map(|byte| i32::from(*byte).to_le_bytes()).collect();
        request("magika", vec![("bytes", "INT32", &[1, 2048], bytes)])
    })
    .await;
    for (one, other) in alone.iter().zip(&together) {
        assert_eq!(other.outputs[0].shape, [1, 214]);
        // One row sums in another order than several.
        assert!(largest_difference(&output(one, 0), &output(other, 0)) < 1e-3);
    }
    let swapped = largest_difference(&output(&alone[0], 0), &output(&together[1], 0));
    assert!(swapped > 1e-3, "{swapped}");
}

#[tokio::test]
async fn silero_exactly_with_its_state_on_its_own_axis() {
    let (alone, together) = both_ways("silero-vad", |caller| {
        let wave: Vec<f32> = noise(576, caller + 1).iter().map(|unit| unit - 0.5).collect();
        let state: Vec<f32> = noise(256, caller + 100).iter().map(|unit| unit - 0.5).collect();
        request(
            "silero-vad",
            vec![
                ("input", "FP32", &[1, 576], floats(&wave)),
                ("state", "FP32", &[2, 1, 128], floats(&state)),
                ("sr", "INT64", &[], 16_000_i64.to_le_bytes().to_vec()),
            ],
        )
    })
    .await;
    for (one, other) in alone.iter().zip(&together) {
        assert_eq!(other.outputs[1].shape, [2, 1, 128]);
        assert_eq!(one.raw_output_contents, other.raw_output_contents);
    }
    assert_ne!(alone[0].raw_output_contents[1], together[1].raw_output_contents[1]);
}

#[tokio::test]
async fn angle_classifier_exactly() {
    let (alone, together) = both_ways("ppocr-angle", |caller| {
        let picture = noise(3 * 48 * 192, caller + 1);
        request("ppocr-angle", vec![("x", "FP32", &[1, 3, 48, 192], floats(&picture))])
    })
    .await;
    for (one, other) in alone.iter().zip(&together) {
        assert!(largest_difference(&output(one, 0), &output(other, 0)) < 1e-6);
    }
}
