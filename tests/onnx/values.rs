//! Every datatype, bit for bit, alone and beside others; scalars, empty tensors, several outputs,
//! versions.

use onnxd::pb::ModelInferRequest;
use onnxd::pb::model_infer_request::InferRequestedOutputTensor;
use onnxd::tensor::DataType;
use tonic::Code;

use crate::harness::{RealServer, floats, generated, output, repository, request};

/// Model and datatype of every identity but the one of strings.
pub(crate) const IDENTITIES: [(&str, DataType); 13] = [
    ("identity_bool", DataType::Bool),
    ("identity_u8", DataType::UInt8),
    ("identity_u16", DataType::UInt16),
    ("identity_u32", DataType::UInt32),
    ("identity_u64", DataType::UInt64),
    ("identity_i8", DataType::Int8),
    ("identity_i16", DataType::Int16),
    ("identity_i32", DataType::Int32),
    ("identity_i64", DataType::Int64),
    ("identity_f16", DataType::Fp16),
    ("identity_bf16", DataType::Bf16),
    ("identity_f32", DataType::Fp32),
    ("identity_f64", DataType::Fp64),
];

/// Six elements that are easily changed on the way: NaN with a payload, quiet and signalling,
/// minus infinity, minus zero, the smallest subnormal and the largest number; of whole numbers
/// both ends.
pub(crate) fn edge_bytes(dtype: DataType) -> Vec<u8> {
    let words: [u64; 6] = match dtype {
        DataType::Fp16 => [0x7e01, 0x7d01, 0xfc00, 0x8000, 0x0001, 0x7bff],
        DataType::Bf16 => [0x7fc1, 0x7fa1, 0xff80, 0x8000, 0x0001, 0x7f7f],
        DataType::Fp32 => {
            [0x7fc0_1234, 0x7fa0_0001, 0xff80_0000, 0x8000_0000, 0x0000_0001, 0x7f7f_ffff]
        }
        DataType::Fp64 => [
            0x7ff8_0000_1234_5678,
            0x7ff4_0000_0000_0001,
            0xfff0_0000_0000_0000,
            0x8000_0000_0000_0000,
            0x0000_0000_0000_0001,
            0x7fef_ffff_ffff_ffff,
        ],
        DataType::Bool => [0, 1, 1, 0, 1, 0],
        _ => {
            let bits = 8 * dtype.size_bytes().unwrap();
            [u64::MAX, 1 << (bits - 1), (1 << (bits - 1)) - 1, 0, 1, 0x5555_5555_5555_5555]
        }
    };
    let size = dtype.size_bytes().unwrap();
    words.iter().flat_map(|word| word.to_le_bytes()[..size].to_vec()).collect()
}

/// A request of these elements as rows of three.
fn rows_of_three(model: &str, dtype: DataType, bytes: &[u8]) -> ModelInferRequest {
    let rows = i64::try_from(bytes.len() / dtype.size_bytes().unwrap() / 3).unwrap();
    request(model, vec![("x", dtype.wire_name(), &[rows, 3], bytes.to_vec())])
}

/// All identities; four rows are a batch, and nothing runs before there are four.
async fn identities_of_four() -> RealServer {
    let sources = IDENTITIES.map(|(model, _)| generated().join(model));
    let config = "batching = \"fixed\"\nmax_batch_size = 4\nmax_queue_delay_us = 10000000";
    let listed: Vec<_> = sources.iter().map(|path| (path.as_path(), config)).collect();
    RealServer::start(repository(&listed).path(), &[]).await
}

#[tokio::test]
async fn every_bit_of_every_type_passes_alone_and_beside_another_caller() {
    let mut server = identities_of_four().await;
    for (model, dtype) in IDENTITIES {
        let edges = edge_bytes(dtype);
        let plain = vec![1; edges.len()];
        let alone = server.infer(rows_of_three(model, dtype, &[&edges[..], &plain].concat())).await;
        assert_eq!(alone.outputs[0].datatype, dtype.wire_name());
        assert_eq!(alone.outputs[0].shape, [4, 3]);
        assert_eq!(alone.raw_output_contents[0], [&edges[..], &plain].concat(), "{model} alone");

        let both = [&edges, &plain];
        let messages = both.map(|bytes| rows_of_three(model, dtype, bytes)).to_vec();
        for (end, sent) in server.together(messages).await.iter().zip(both) {
            let answer = end.as_ref().unwrap();
            assert_eq!(answer.outputs[0].shape, [2, 3]);
            assert_eq!(answer.raw_output_contents[0], *sent, "{model} beside another");
        }
        assert_eq!(server.statistics(model).await.execution_count, 2, "{model}");
    }
    server.finish().await;
}

#[tokio::test]
async fn contents_may_lie_at_any_address() {
    let server = RealServer::start(&generated(), &[]).await;
    for (model, dtype) in IDENTITIES {
        for pad in 0..8 {
            // The name stands in front of the contents and moves them.
            let bytes = edge_bytes(dtype);
            let mut message = rows_of_three(model, dtype, &bytes);
            message.id = "i".repeat(pad);
            let answer = server.infer(message).await;
            assert_eq!(answer.raw_output_contents[0], bytes, "{model} moved by {pad}");
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn a_bool_is_zero_or_one() {
    let server = RealServer::of("identity_bool", "").await;
    let status = server.refusal(rows_of_three("identity_bool", DataType::Bool, &[0, 1, 2])).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "input `x`: BOOL element 2 is 2, expected 0 or 1");
    server.finish().await;
}

#[tokio::test]
async fn sixteen_mebibytes_there_and_back() {
    let server = RealServer::of("identity_f32", "").await;
    let bytes: Vec<u8> = (0..=250).cycle().take(16 << 20).collect();
    let message = request("identity_f32", vec![("x", "FP32", &[4, 1 << 20], bytes.clone())]);
    let answer = server.infer(message).await;
    assert!(answer.raw_output_contents[0] == bytes);
    server.finish().await;
}

#[tokio::test]
async fn scalars_keep_their_shape() {
    let server = RealServer::of("scalar_f32", "").await;
    let answer =
        server.infer(request("scalar_f32", vec![("x", "FP32", &[], floats(&[2.5]))])).await;
    assert_eq!((answer.outputs[0].shape.len(), output(&answer, 0)), (0, vec![2.5]));
    let one =
        server.refusal(request("scalar_f32", vec![("x", "FP32", &[1], floats(&[2.5]))])).await;
    assert_eq!(one.code(), Code::InvalidArgument);
    assert_eq!(one.message(), "input `x`: expected shape [], got [1]");
    server.finish().await;
}

#[tokio::test]
async fn rows_may_be_empty_but_must_be_there() {
    let mut server = identities_of_four().await;
    for (model, dtype) in IDENTITIES {
        let ask = |shape| request(model, vec![("x", dtype.wire_name(), shape, vec![])]);
        // Waits for nobody: nothing can share its run.
        let answer = server.infer(ask(&[3, 0])).await;
        assert_eq!(answer.outputs[0].shape, [3, 0], "{model}");
        assert!(answer.raw_output_contents[0].is_empty());
        for shape in [&[0, 3], &[0, 0]] {
            let status = server.refusal(ask(shape)).await;
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(status.message(), "input `x` has 0 rows, expected at least 1");
        }
        let edges = edge_bytes(dtype);
        let riders = [
            ask(&[1, 0]),
            rows_of_three(model, dtype, &edges),
            ask(&[2, 0]),
            rows_of_three(model, dtype, &edges),
        ];
        let ends = server.together(riders.to_vec()).await;
        for (end, shape) in ends.iter().zip([[1, 0], [2, 3], [2, 0], [2, 3]]) {
            let answer = end.as_ref().unwrap();
            assert_eq!(answer.outputs[0].shape, shape, "{model}");
            let expected = if shape[1] == 0 { &[][..] } else { &edges };
            assert_eq!(answer.raw_output_contents[0], expected, "{model}");
        }
        // One for the first, two for the empty riders, one for the others.
        assert_eq!(server.statistics(model).await.execution_count, 4, "{model}");
    }
    server.finish().await;
}

/// The same request, for these outputs.
fn wanting(mut message: ModelInferRequest, names: &[&str]) -> ModelInferRequest {
    for name in names {
        let output = InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() };
        message.outputs.push(output);
    }
    message
}

#[tokio::test]
async fn outputs_of_several_types_come_as_they_are_requested() {
    let config = "batching = \"fixed\"\nmax_batch_size = 7\nmax_queue_delay_us = 10000000";
    let mut server = RealServer::of("multi_output", config).await;
    let values = [1.0, -1.0, 0.0, 2.5];
    let doubled = floats(&values.map(|value| value * 2.0));
    let (positive, count) = (vec![1, 0, 0, 1], 2_i64.to_le_bytes().to_vec());
    let ask = |names: &[&str]| {
        let inputs = vec![("x", "FP32", &[1, 4][..], floats(&values))];
        wanting(request("multi_output", inputs), names)
    };
    // The riders of one run want different things.
    let wishes: [&[&str]; 7] = [
        &[],
        &["doubled", "positive", "count"],
        &["count", "doubled"],
        &["positive"],
        &["count"],
        &["positive", "count", "doubled"],
        &["doubled"],
    ];
    let ends = server.together(wishes.iter().map(|names| ask(names)).collect()).await;
    for (end, names) in ends.iter().zip(wishes) {
        let answer = end.as_ref().unwrap();
        let all = ["doubled", "positive", "count"];
        let expected = if names.is_empty() { &all[..] } else { names };
        let got: Vec<&str> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(got, expected);
        for (output, raw) in answer.outputs.iter().zip(&answer.raw_output_contents) {
            let (datatype, shape, bytes) = match output.name.as_str() {
                "doubled" => ("FP32", [1, 4], &doubled),
                "positive" => ("BOOL", [1, 4], &positive),
                _ => ("INT64", [1, 1], &count),
            };
            assert_eq!((output.datatype.as_str(), &output.shape[..]), (datatype, &shape[..]));
            assert_eq!(raw, bytes, "{}", output.name);
        }
    }
    assert_eq!(server.statistics("multi_output").await.execution_count, 1);
    for (names, reason) in [
        (["y", "count"], "unknown output `y`; the model has `doubled`, `positive`, `count`"),
        (["count", "count"], "output `count` is requested twice"),
    ] {
        let status = server.refusal(ask(&names)).await;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, reason));
    }
    server.finish().await;
}

#[tokio::test]
async fn the_newest_version_answers_unless_another_is_named() {
    let ask = |version: &str| {
        let mut message = request("two_versions", vec![("x", "FP32", &[1, 1], floats(&[3.0]))]);
        message.model_version = version.into();
        message
    };
    let answer = async |server: &RealServer, version: &str| {
        let answer = server.infer(ask(version)).await;
        (answer.model_version.clone(), output(&answer, 0)[0])
    };
    // The version is the factor.
    let (first, second) = (("1".to_owned(), 3.0), ("2".to_owned(), 6.0));

    let newest = RealServer::of("two_versions", "").await;
    assert_eq!(answer(&newest, "").await, second);
    assert_eq!(answer(&newest, "2").await, second);
    let status = newest.refusal(ask("1")).await;
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "model `two_versions` has no version 1; served: 2");
    newest.finish().await;

    let both = RealServer::of("two_versions", "version_policy = \"all\"").await;
    assert_eq!(answer(&both, "").await, second);
    assert_eq!(answer(&both, "1").await, first);
    assert_eq!(answer(&both, "2").await, second);
    both.finish().await;

    let oldest = RealServer::of("two_versions", "version_policy = { specific = [1] }").await;
    assert_eq!(answer(&oldest, "").await, first);
    assert_eq!(oldest.refusal(ask("2")).await.code(), Code::NotFound);
    oldest.finish().await;
}
