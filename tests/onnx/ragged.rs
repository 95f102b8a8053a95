//! Requests of different length in one run, padded as `model.toml` says, through the whole server.

use onnxd::model::TensorSpec;
use onnxd::model::ragged::Ragged;
use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use onnxd::tensor::rows::{Joined, Pad};
use onnxd::tensor::{DataType, Fill, Shape, Tensor};

use crate::harness::{Noise, RealServer, floats, generated, output, repository, request};
use crate::values::{IDENTITIES, edge_bytes};

/// Requests are held until there are eight rows, so that all of them meet.
const TOGETHER: &str = "batching = \"fixed\"\nmax_batch_size = 8\nmax_queue_delay_us = 60000000\n";
const ALONE: &str = "batching = \"off\"\n";

/// How the text encoder is padded.
const TEXT: &str = "[inputs.input_ids]\npad = { axis = 1, value = 0 }\n\
                    [inputs.attention_mask]\npad = { axis = 1, value = 0 }\nexample_value = 1\n\
                    [outputs.token_scores]\ncut = { axis = 1 }\n";

/// What a value of the encoder may differ by, because longer sums are summed in another order. Its
/// values are around 1; what was seen is below 1e-6.
const TOLERANCE: f32 = 1e-5;

/// A request of texts of so many made-up words.
fn texts(rows: usize, length: usize, noise: &mut Noise) -> ModelInferRequest {
    let count = rows * length;
    let ids = (0..count).flat_map(|_| i64::from(noise.below(128)).to_le_bytes()).collect();
    let mask = (0..count).flat_map(|_| 1_i64.to_le_bytes()).collect();
    let shape = [rows, length].map(|size| i64::try_from(size).unwrap());
    let inputs = vec![
        ("input_ids", "INT64", &shape[..], ids),
        ("attention_mask", "INT64", &shape[..], mask),
    ];
    request("text_encoder", inputs)
}

/// Largest difference of two answers, which have the same shapes.
fn difference(one: &ModelInferResponse, other: &ModelInferResponse) -> f32 {
    assert_eq!(one.outputs, other.outputs);
    let pairs = (0..2).flat_map(|index| output(one, index).into_iter().zip(output(other, index)));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Answers of the same requests, each run alone and all run together, and the runs of the latter.
async fn both_ways(messages: &[ModelInferRequest], config: &str) -> [Vec<ModelInferResponse>; 2] {
    let mut ways = Vec::new();
    for config in [ALONE, config] {
        let mut server = RealServer::of("text_encoder", &format!("{config}{TEXT}")).await;
        let ends = server.together(messages.to_vec()).await;
        ways.push(ends.into_iter().map(Result::unwrap).collect::<Vec<_>>());
        let counts = server.statistics("text_encoder").await;
        let requests = u64::try_from(messages.len()).unwrap();
        if config == ALONE {
            assert_eq!(counts.execution_count, requests);
        } else {
            assert!(counts.execution_count < requests, "{}", counts.execution_count);
        }
        server.finish().await;
    }
    ways.try_into().unwrap()
}

#[tokio::test]
async fn texts_of_many_lengths_share_one_run_and_get_the_answers_that_they_get_alone() {
    let mut noise = Noise::new(1);
    let lengths = [1, 128, 5, 17, 64, 2, 33, 100];
    let messages: Vec<_> = lengths.iter().map(|length| texts(1, *length, &mut noise)).collect();
    let [alone, together] = both_ways(&messages, TOGETHER).await;
    for ((one, other), length) in alone.iter().zip(&together).zip(lengths) {
        let found = difference(one, other);
        assert!(found <= TOLERANCE, "{length} tokens differ by {found}");
        assert_eq!(other.outputs[0].shape, [1, 32]);
        assert_eq!(other.outputs[1].shape, [1, i64::try_from(length).unwrap(), 5]);
    }
    // A row that went to the wrong caller would be found.
    for (one, next) in alone.iter().zip(&together[1..]) {
        let pairs = output(one, 0).into_iter().zip(output(next, 0));
        let found = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found > 1000.0 * TOLERANCE, "{found}");
    }
}

#[tokio::test]
async fn requests_of_several_rows_are_cut_back_to_their_own_length() {
    let mut noise = Noise::new(2);
    let sizes = [(2, 9), (3, 30), (1, 4), (2, 70)];
    let messages: Vec<_> =
        sizes.iter().map(|(rows, length)| texts(*rows, *length, &mut noise)).collect();
    let [alone, together] = both_ways(&messages, TOGETHER).await;
    for (one, other) in alone.iter().zip(&together) {
        let found = difference(one, other);
        assert!(found <= TOLERANCE, "{found}");
    }
}

#[tokio::test]
async fn many_callers_with_texts_of_any_length_meet() {
    let mut noise = Noise::new(3);
    let mut ask = |_| {
        let length = usize::from(8 + noise.below(121));
        texts(1, length, &mut noise)
    };
    let messages: Vec<_> = (0..200).map(&mut ask).collect();
    let config = "batching = \"fixed\"\nmax_batch_size = 16\nmax_queue_delay_us = 2000\n";
    let [alone, together] = both_ways(&messages, config).await;
    for (one, other) in alone.iter().zip(&together) {
        let found = difference(one, other);
        assert!(found <= TOLERANCE, "{found}");
    }
}

#[tokio::test]
async fn every_datatype_is_padded_and_comes_back_bit_for_bit() {
    let sources = IDENTITIES.map(|(model, _)| generated().join(model));
    let four = "batching = \"fixed\"\nmax_batch_size = 4\nmax_queue_delay_us = 60000000\n\
                [outputs.y]\ncut = { axis = 1 }\n[inputs.x]\npad = { axis = 1, value = 1 }\n";
    let listed: Vec<_> = sources.iter().map(|path| (path.as_path(), four)).collect();
    let mut server = RealServer::start(repository(&listed).path(), &[]).await;
    for (model, dtype) in IDENTITIES {
        assert!(server.served(model).spec.is_ragged(), "{model}");
        let size = dtype.size_bytes().unwrap();
        let edges = edge_bytes(dtype);
        let shapes: [[i64; 2]; 3] = [[1, 6], [2, 1], [1, 3]];
        let ask = |shape: &[i64; 2]| {
            let count = usize::try_from(shape[0] * shape[1]).unwrap();
            let bytes = edges[edges.len() - count * size..].to_vec();
            request(model, vec![("x", dtype.wire_name(), shape, bytes)])
        };
        let messages: Vec<_> = shapes.iter().map(ask).collect();
        let ends = server.together(messages.clone()).await;
        for (end, sent) in ends.into_iter().zip(messages) {
            let answer = end.unwrap();
            assert_eq!(answer.outputs[0].shape, sent.inputs[0].shape, "{model}");
            assert_eq!(answer.raw_output_contents, sent.raw_input_contents, "{model}");
        }
        assert_eq!(server.statistics(model).await.execution_count, 1, "{model}");
    }
    server.finish().await;
}

#[tokio::test]
async fn strings_are_filled_up_with_empty_ones() {
    let rules = "[inputs.a]\npad = { axis = 1 }\n[inputs.b]\npad = { axis = 1, value = \"\" }\n\
                 [outputs.y]\ncut = { axis = 1 }\n";
    let config = TOGETHER.replace('8', "2") + rules;
    let mut server = RealServer::of("concat_strings", &config).await;
    let raw = |words: &[&str]| -> Vec<u8> {
        let one = |word: &&str| {
            [&u32::try_from(word.len()).unwrap().to_le_bytes()[..], word.as_bytes()].concat()
        };
        words.iter().flat_map(one).collect()
    };
    let ask = |words: &[&str]| {
        let shape = [1, i64::try_from(words.len()).unwrap()];
        let inputs =
            vec![("a", "BYTES", &shape[..], raw(words)), ("b", "BYTES", &shape[..], raw(words))];
        request("concat_strings", inputs)
    };
    let ends = server.together(vec![ask(&["x", "", "yz"]), ask(&["ü"])]).await;
    let answers: Vec<_> = ends.into_iter().map(|end| end.unwrap()).collect();
    assert_eq!(answers[0].raw_output_contents[0], raw(&["xx", "", "yzyz"]));
    assert_eq!(answers[1].raw_output_contents[0], raw(&["üü"]));
    assert_eq!(answers[1].outputs[0].shape, [1, 1]);
    assert_eq!(server.statistics("concat_strings").await.execution_count, 1);
    server.finish().await;
}

#[tokio::test]
async fn first_runs_show_which_models_bear_padding() {
    // With made-up flags in the mask, and with a mask that is said.
    for config in [TEXT.to_owned(), TEXT.replace("example_value = 1\n", "")] {
        let server = RealServer::of("text_encoder", &config).await;
        let spec = &server.served("text_encoder").spec;
        let axes = spec.inputs.iter().map(TensorSpec::length_axis).collect::<Vec<_>>();
        assert_eq!(axes, [Some(1), Some(1)]);
        assert_eq!(spec.outputs[1].ragged, Some(Ragged::Cut { axis: 1 }));
        server.finish().await;
    }
    // A mean over all tokens, whatever they are.
    let rules = "[inputs.x]\npad = { axis = 1 }\n";
    let server = RealServer::of("dynamic_inner", rules).await;
    let spec = &server.served("dynamic_inner").spec;
    assert_eq!((spec.is_ragged(), spec.has_rows()), (false, true));
    server.finish().await;
    // Somebody has said so; without first runs nobody else knows.
    for (config, ragged) in [("batching = \"fixed\"\n", true), ("warmup_ms = 0\n", false)] {
        let server = RealServer::of("dynamic_inner", &format!("{config}{rules}")).await;
        assert_eq!(server.served("dynamic_inner").spec.is_ragged(), ragged, "{config}");
        server.finish().await;
    }
}

#[tokio::test]
async fn where_padding_changes_answers_only_equal_lengths_meet() {
    let config = "max_batch_size = 4\nmax_queue_delay_us = 50000\n[inputs.x]\npad = { axis = 1 }\n";
    let server = RealServer::of("dynamic_inner", config).await;
    let ask = |length: u8| {
        let values = vec![f32::from(length); usize::from(length) * 8];
        let shape = [1, i64::from(length), 8];
        request("dynamic_inner", vec![("x", "FP32", &shape, floats(&values))])
    };
    let lengths = [1, 2, 3, 4, 1, 2, 3, 4];
    let ends = server.together(lengths.into_iter().map(ask).collect()).await;
    for (end, length) in ends.into_iter().zip(lengths) {
        // Padded, the mean would be smaller.
        assert_eq!(output(&end.unwrap(), 0), [f32::from(length); 8]);
    }
    server.finish().await;
}

#[tokio::test]
async fn mistakes_in_the_rules_name_their_keys() {
    for (config, expected) in [
        (
            "[inputs.input_ids]\npad = { axis = 1, value = 1.5 }\nexample_value = true\n\
             [inputs.attention_mask]\npad = { axis = 0 }\n[outputs.pooled]\ncut = { axis = 1 }",
            "model.toml: \
             inputs.attention_mask.pad: axis 0 of `attention_mask` holds the rows, so it has no \
             length\n\
             inputs.input_ids.pad: expected a value of INT64, got \"1.5\"\n\
             outputs.pooled.cut: axis 1 of `pooled` is fixed to 32, so all are equally long\n\
             inputs.input_ids.example_value: expected a value of INT64, got \"true\"",
        ),
        (
            "[inputs.input_ids]\npad = { axis = 1 }\n[outputs.token_scores]\ncut = { axis = 1 }",
            "model.toml: inputs.attention_mask: axis 1 is `seq` as is the padded axis 1 of \
             `input_ids`, but there is no pad for it, so requests of different length could not \
             share a run",
        ),
        (
            "[inputs.input_ids]\nexample_value = true\n[inputs.words]\nexample_value = 1",
            "model.toml: inputs.input_ids.example_value: expected a value of INT64, got \"true\"\n\
             inputs.words.example_value: the model has no such input",
        ),
        (
            "[inputs.input_ids]\npad = { axis = 1, with = 0 }",
            "model.toml: inputs.input_ids.pad: expected { axis = N, value = VALUE }; without a \
             value it is 0, false or \"\"",
        ),
    ] {
        let server = RealServer::of("text_encoder", config).await;
        assert_eq!(server.failure("text_encoder"), expected);
        server.finish().await;
    }
}

#[tokio::test]
async fn inputs_of_one_request_agree_in_length() {
    let server = RealServer::of("text_encoder", TEXT).await;
    let mut noise = Noise::new(4);
    let mut wrong = texts(1, 5, &mut noise);
    let other = texts(1, 6, &mut noise);
    wrong.inputs[1] = other.inputs[1].clone();
    wrong.raw_input_contents[1] = other.raw_input_contents[1].clone();
    let status = server.refusal(wrong).await;
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "input `attention_mask`: dimension 1 (`seq`) is 6, but input `input_ids` has 5 there"
    );
    // An open dimension may be empty; then there is nothing to pad and nothing to share.
    let empty = server.infer(texts(1, 0, &mut noise)).await;
    assert_eq!(empty.outputs[1].shape, [1, 0, 5]);
    server.finish().await;
}

#[test]
fn memory_of_a_device_is_filled_the_same_way() {
    let mut loaded = crate::binding::load("identity_i64");
    let tensor = |values: &[i64]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = Shape::new(vec![1, i64::try_from(values.len()).unwrap()]).unwrap();
        Tensor::dense(DataType::Int64, shape, bytes.into()).unwrap()
    };
    let (short, long) = (tensor(&[1]), tensor(&[2, 3, 4]));
    let fill = Fill::parse(DataType::Int64, "-9").unwrap();
    let executor = loaded.executors[0].as_mut();
    // A buffer that held other values before is overwritten.
    for parts in [vec![&long, &long], vec![&short, &long], vec![&long, &short]] {
        let joined = Joined::padded(parts.clone(), 0, Pad { axis: 1, fill }).unwrap();
        drop(executor.stopper());
        let outputs = executor.run(&[joined]).unwrap().outputs;
        let row = |part: &Tensor| match part.shape().elements() {
            1 => vec![1, -9, -9],
            _ => vec![2, 3, 4],
        };
        let expected: Vec<i64> = parts.iter().flat_map(|part| row(part)).collect();
        assert_eq!(outputs[0].shape().dims(), [2, 3]);
        assert_eq!(outputs[0].dense_bytes(), tensor(&expected).dense_bytes());
    }
}
