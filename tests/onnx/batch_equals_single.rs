//! Rows that ran together get the answers that they get alone: all shipped models, through the
//! whole server, and a small network in every batch size.

use std::path::Path;

use onnxd::pb::{ModelInferRequest, ModelInferResponse};

use crate::harness::{Noise, RealServer, floats, generated, output, repository, request, shipped};

/// Requests are held until there are eight, so that all of them meet.
const TOGETHER: &str = "batching = \"fixed\"\nmax_batch_size = 8\nmax_queue_delay_us = 60000000\n";
const ALONE: &str = "batching = \"off\"\n";

/// Answers of the same eight requests, each run alone and all run together.
async fn both_ways(
    model: &str,
    ask: impl Fn(usize) -> ModelInferRequest,
) -> [Vec<ModelInferResponse>; 2] {
    let mut ways = Vec::new();
    for config in [ALONE, TOGETHER] {
        let source = shipped().join(model);
        let models = repository(&[(source.as_path(), config)]);
        let mut server = RealServer::start(models.path(), &[]).await;
        let ends = server.together((0..8).map(&ask).collect()).await;
        ways.push(ends.into_iter().map(Result::unwrap).collect());
        let runs = server.statistics(model).await.execution_count;
        assert_eq!(runs, if config == ALONE { 8 } else { 1 }, "{model}");
        server.finish().await;
    }
    ways.try_into().unwrap()
}

/// Files of this repository that seldom change, longer than a kilobyte, of many kinds.
const FILES: [&str; 8] = [
    "LICENSE",
    "models/silero-vad/sample.wav",
    "models/magika/1/model.onnx",
    "models/magika/content_types.tsv",
    "models/silero-vad/LICENSE",
    "tests/data/make_models.py",
    "src/tensor/rows.rs",
    "Cargo.lock",
];

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// What a score of magika may differ by; `models/README.md` says why it does and by how much.
const MAGIKA_TOLERANCE: f32 = 5e-4;

#[tokio::test]
async fn magika_within_its_tolerance() {
    let [alone, together] = both_ways("magika", |caller| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read(root.join(FILES[caller])).unwrap();
        let head = text[..1024].iter().chain(&text[text.len() - 1024..]);
        let bytes = head.flat_map(|byte| i32::from(*byte).to_le_bytes()).collect();
        request("magika", vec![("bytes", "INT32", &[1, 2048], bytes)])
    })
    .await;
    for (one, other) in alone.iter().zip(&together) {
        assert_eq!(other.outputs[0].shape, [1, 214]);
        let found = largest_difference(&output(one, 0), &output(other, 0));
        assert!(found <= MAGIKA_TOLERANCE, "{found}");
    }
    // A row that went to the wrong caller would be found.
    for (one, next) in alone.iter().zip(&together[1..]) {
        let found = largest_difference(&output(one, 0), &output(next, 0));
        assert!(found > 2.0 * MAGIKA_TOLERANCE, "{found}");
    }
}

/// Equal bit for bit, and a row that went to the wrong caller would be found in every output.
fn exactly(alone: &[ModelInferResponse], together: &[ModelInferResponse]) {
    for (one, other) in alone.iter().zip(together) {
        assert_eq!(one.outputs, other.outputs);
        assert_eq!(one.raw_output_contents, other.raw_output_contents);
    }
    for (one, next) in alone.iter().zip(&together[1..]) {
        for (raw, other) in one.raw_output_contents.iter().zip(&next.raw_output_contents) {
            assert_ne!(raw, other);
        }
    }
}

#[tokio::test]
async fn silero_exactly_with_its_state_on_its_own_axis() {
    let [alone, together] = both_ways("silero-vad", |caller| {
        let mut noise = Noise::new(caller as u64 + 1);
        let inputs = vec![
            ("input", "FP32", &[1, 576][..], floats(&noise.floats(576))),
            ("state", "FP32", &[2, 1, 128][..], floats(&noise.floats(256))),
            ("sr", "INT64", &[][..], 16_000_i64.to_le_bytes().to_vec()),
        ];
        request("silero-vad", inputs)
    })
    .await;
    assert_eq!(together[0].outputs[0].shape, [1, 1]);
    assert_eq!(together[0].outputs[1].shape, [2, 1, 128]);
    exactly(&alone, &together);
}

#[tokio::test]
async fn angle_classifier_exactly() {
    let [alone, together] = both_ways("ppocr-angle", |caller| {
        let picture = Noise::new(caller as u64 + 1).floats(3 * 48 * 192);
        request("ppocr-angle", vec![("x", "FP32", &[1, 3, 48, 192], floats(&picture))])
    })
    .await;
    assert_eq!(together[0].outputs[0].shape, [1, 2]);
    exactly(&alone, &together);
}

#[tokio::test]
async fn a_small_network_exactly_in_every_batch_size() {
    let source = generated().join("mlp_tiny");
    let models = repository(&[(source.as_path(), "batching = \"fixed\"\nmax_batch_size = 16")]);
    let server = RealServer::start(models.path(), &[]).await;
    // Multiples of 1/16, of which every order of summing gives the same bits.
    let mut noise = Noise::new(39);
    let mut row = || (0..64).map(|_| f32::from(noise.below(33)) / 16.0 - 1.0).collect();
    let rows: Vec<Vec<f32>> = (0..200).map(|_| row()).collect();
    let ask = |rows: &[Vec<f32>]| {
        let shape = [i64::try_from(rows.len()).unwrap(), 64];
        request("mlp_tiny", vec![("x", "FP32", &shape, floats(&rows.concat()))])
    };
    let singles = server.together(rows.chunks(1).map(ask).collect()).await;
    let singles: Vec<_> = singles.iter().map(|end| output(end.as_ref().unwrap(), 0)).collect();
    let again = server.together(rows.chunks(1).map(ask).collect()).await;
    for (end, single) in again.iter().zip(&singles) {
        assert_eq!(output(end.as_ref().unwrap(), 0), *single, "not the same twice");
    }
    for size in 2..=16 {
        for (batch, expected) in rows.chunks(size).zip(singles.chunks(size)) {
            let got = output(&server.infer(ask(batch)).await, 0);
            assert_eq!(got, expected.concat(), "{size} rows");
            if batch.len() > 1 {
                let mut shifted = expected.to_vec();
                shifted.rotate_left(1);
                assert_ne!(got, shifted.concat(), "rows are too alike to tell");
            }
        }
    }
    server.finish().await;
}
